"""What a request asks for: its media type, its key, how long it waits, how much, and its commands.

Each function raises Problem naming what is wrong; nothing was published then.
"""

import json
import re
from typing import Annotated

from fastapi import Query, Request

from gateway.problem import WRONG, Problem
from gateway.sender import Order
from gateway.tokens import Caller, Right
from ledger.domain.commands import MessageKey, PurchaseGoods, is_key_part
from ledger.domain.envelope import parse_fields, validate
from producer import jsonl
from producer.jsonl import BadLine
from producer.lines import Line

WAIT_DEFAULT_S, WAIT_MAX_S = 5, 30
WAIT = re.compile(r'\s*wait\s*=\s*"?([0-9]{1,9})"?\s*(?:;.*)?', re.IGNORECASE)
LIMIT_MAX = 1000
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="So many at most.")]
QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')


def require_media(request: Request, *allowed: str) -> str:
    """The body's media type. Raises Problem unless it is allowed, so no form of a web page gets in."""
    media, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.partition("=")[2].strip(' "').lower() if "charset" in parameters.lower() else "utf-8"
    if media.strip().lower() not in allowed or charset != "utf-8":
        accepted = " or ".join(allowed)
        raise Problem(
            415, f"the body's content type must be {accepted}", remedy=f"send it as Content-Type: {accepted}"
        )
    return media.strip().lower()


def idempotency_key(request: Request) -> str:
    """The command's id, bare or as a quoted string. Raises Problem where it is missing or can't be one."""
    name = "Idempotency-Key"
    text = request.headers.get(name, "").strip()
    if not text:
        raise Problem.bad(name, "is missing", remedy="make an id once, and send it with each repeat")
    if text.startswith('"'):
        quoted = QUOTED.fullmatch(text)
        text = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else ""
    if not is_key_part(text):
        raise Problem.bad(name, "must be 1 to 128 visible ASCII characters, bare or in quotes")
    return text


def wait_s(request: Request) -> float:
    """How long to wait for an outcome: `Prefer: wait=N`, up to 30 s; 5 s if nothing is preferred."""
    for preference in ",".join(request.headers.getlist("prefer")).split(","):
        if found := WAIT.fullmatch(preference):
            return min(int(found[1]), WAIT_MAX_S)
    return WAIT_DEFAULT_S


def one_purchase(body: bytes) -> PurchaseGoods:
    """The purchase, as strict as a record of the topic. Raises Problem naming the field."""
    try:
        return validate(PurchaseGoods, parse_fields(body.decode()))
    except UnicodeDecodeError:
        raise Problem.bad("", "the body isn't UTF-8") from None
    except json.JSONDecodeError as error:
        raise Problem.bad(
            "", f"the body isn't valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except ValueError as error:
        field, separator, reason = str(error).partition(": ")
        raise Problem.bad(*((field, reason) if separator else ("", f"the body {error}"))) from None


def one_command(text: bytes, number: int, caller: Caller) -> Order:
    """The command of a line, judged as `publish` does. Raises Problem naming line and field."""
    item = jsonl.parse("body", Line(number, text.removesuffix(b"\r"), 0, 0), caller.source)
    if isinstance(item, BadLine):
        where = f"line {item.line}, column {item.column}: "
        what = f"{item.field}: {item.reason}" if item.field else item.reason
        detail = f"{where}{what}; nothing was published"
        raise Problem(400, detail, remedy=item.remedy or WRONG, field=item.field, line=number)
    if item.id is None:
        raise Problem(400, f"line {number}: id: is missing; nothing was published", field="id", line=number)
    if item.source != caller.source:
        raise Problem(
            403, f"line {number}: this token sends as {caller.source}, and for no other source",
            remedy="leave source out", line=number,
        )  # fmt: skip
    needed = Right.BUY if isinstance(item.command, PurchaseGoods) else Right.OPERATE
    if needed not in caller.rights:
        raise Problem(
            403, f"line {number}: to send {item.command.NAME} takes the right {needed}",
            remedy="use a token that has it", line=number,
        )  # fmt: skip
    return Order(MessageKey(item.source, item.id), item.command)
