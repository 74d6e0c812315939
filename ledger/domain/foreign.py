"""What bytes that should be a command are instead: a sentence for people, after a look at them.

Nothing here decides: a record is dead before anybody asks. What is looked at is bounded, so it costs the same
whatever a stranger sends.
"""

import binascii
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from ledger.domain.commands import COMMANDS
from ledger.domain.delivery import Headers

LOOKED_AT = 64 * 1024
LINE_LOOKED_AT = 1024 * 1024
REQUIRED_HEADERS = ("ce_specversion", "ce_id", "ce_source", "ce_type")
JSON_ADVICE = "use a plain JSON serializer"

BYTE_ORDER_MARK, UTF_16, UTF_32 = "a byte order mark", "UTF-16", "UTF-32"
COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "zip",
}
ENCODINGS = {
    b"\xff\xfe\x00\x00": UTF_32,
    b"\x00\x00\xfe\xff": UTF_32,
    b"\xff\xfe": UTF_16,
    b"\xfe\xff": UTF_16,
    b"\xef\xbb\xbf": BYTE_ORDER_MARK,
    b"{\x00": UTF_16,
    b"[\x00": UTF_16,
    b"\x00{": UTF_16,
    b"\x00[": UTF_16,
}
FORMATS = {
    b"Obj\x01": "an Avro file",
    b"PAR1": "a Parquet file",
    b"\xac\xed\x00\x05": "a serialized Java object",
    b"\x80\x04\x95": "a Python pickle",
    b"\x80\x05\x95": "a Python pickle",
    b"SQLite format 3": "an SQLite database",
    b"%PDF": "a PDF",
    b"<": "XML or HTML",
}
_BASE64 = re.compile(rb'"?[A-Za-z0-9+/_-]{8,}={0,2}"?')
_EVENT_HEADER = re.compile(r"(ce|cloudevents?)[-_:.]?(specversion|id|source|type)", re.IGNORECASE)
_OUTBOX = ("id", "eventtype", "event_type", "aggregatetype", "aggregate_type", "aggregateid", "aggregate_id")


def begins_as(data: bytes, kinds: dict[bytes, str]) -> str:
    """Which of the kinds the bytes begin as; empty if none."""
    return next((kind for prefix, kind in kinds.items() if data.startswith(prefix)), "")


def value_is(value: bytes) -> str:
    """What a value is that isn't a JSON object in UTF-8, and what to send instead; empty if nobody knows."""
    head = value[:LOOKED_AT].strip()
    if not head:
        return "is empty"
    if encoding := begins_as(value, ENCODINGS):
        what = "begins with a byte order mark" if encoding == BYTE_ORDER_MARK else f"is {encoding}"
        return f"{what}: encode it as UTF-8 without one"
    if value[0] == 0 and len(value) > 5:
        schema = int.from_bytes(value[1:5])
        return f"is a schema registry's frame (byte 0, schema id {schema}): {JSON_ADVICE}, without a registry"
    if compression := begins_as(value, COMPRESSIONS):
        return f"is compressed with {compression}: leave that to the client's compression.type"
    if kind := begins_as(value, FORMATS):
        return f"looks like {kind}: {JSON_ADVICE}"
    if _holds_base64(head):
        return "is base64 of JSON: send the JSON itself"
    if head.startswith((b'"{', b'"[', b'"\\')):
        return "is a JSON text that holds JSON: it was serialized twice"
    if head.startswith(b"["):
        return "is a JSON array: send one command a record"
    if head.startswith(b"{'"):
        return "has single quotes, as Python prints a dict: use json.dumps"
    return ""


def object_is(fields: Mapping[str, Any]) -> str:
    """What a JSON object is that isn't a command's fields; empty if nobody knows."""
    if "specversion" in fields:
        return "is a whole event: send it with the header content-type: application/cloudevents+json"
    name = fields.get("type")
    if isinstance(name, str) and name in COMMANDS:
        return (
            "is a line for `stockledger publish`: publish it with that, or send type, id and source as "
            f"headers (ce_type is stockledger.{name}.v1) and the other fields as the value"
        )
    if {"schema", "payload"} <= fields.keys():
        return "has Kafka Connect's schema around it: set value.converter.schemas.enable=false"
    if {"before", "after", "op"} <= fields.keys():
        return "is a change event of a database's table: send commands, not rows"
    return ""


def record_is(headers: Headers, value: bytes) -> str:
    """What a record is in which one of CloudEvents' headers is missing; empty if nobody knows."""
    names = [name for name, _ in headers[:100]]
    if like := [name for name in names if name not in REQUIRED_HEADERS and _EVENT_HEADER.fullmatch(name)]:
        return f"the headers are named {_listed(like)}, but must be {_listed(REQUIRED_HEADERS)}"
    if value_said := value_is(value) or object_is(_lenient(value)):
        return f"the value {value_said}"
    if outbox := [name for name in names if name.lower() in _OUTBOX]:
        return (
            f"the headers {_listed(outbox)} look like an outbox's: map id and type to ce_id and ce_type, and "
            "add ce_source and ce_specversion (1.0)"
        )
    if "__TypeId__" in names:
        return "the header __TypeId__ is Spring's: send CloudEvents' headers in its place"
    return "" if names else "the record has no headers"


def refused_path(text: str, is_strict: Callable[[str], bool]) -> str:
    """Where the first member is that is repeated or whose value isn't strict, such as `data.quantity`."""
    found = refused_member(text, is_strict)
    if found is None:
        return ""
    inner = refused_path(found.value, is_strict) if found.value.startswith("{") else ""
    return f"{found.name}.{inner}" if inner else found.name


def refused_member(text: str, is_strict: Callable[[str], bool]) -> "Member | None":
    """The first member of a JSON object that is repeated or whose value isn't strict."""
    seen = set()
    try:
        for member in members(text) if len(text) <= LINE_LOOKED_AT else ():
            if member.name in seen or not is_strict(member.value):
                return member
            seen.add(member.name)
    except (ValueError, RecursionError):
        pass
    return None


class Member(NamedTuple):
    """A member of a JSON object: its name, the name's column from 1, and its value as it is written."""

    name: str
    column: int
    value: str


def members(text: str) -> Iterator[Member]:
    """The members of the JSON object in order, repeated ones too. Raises ValueError where it isn't one."""
    decode = json.JSONDecoder().raw_decode
    at = _skip(text, 0)
    while at < len(text) and text[at] in "{,":
        key_at = _skip(text, at + 1)
        name, end = decode(text, key_at)
        value_at = _skip(text, _skip(text, end) + 1)  # after the colon
        _, end = decode(text, value_at)
        yield Member(name, key_at + 1, text[value_at:end])
        at = _skip(text, end)


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\t", "\r", "\n"):
        at += 1
    return at


def _lenient(value: bytes) -> dict[str, Any]:
    try:
        found = json.loads(value) if len(value) <= LOOKED_AT else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _holds_base64(head: bytes) -> bool:
    if not _BASE64.fullmatch(head[:LOOKED_AT]):
        return False
    try:
        return binascii.a2b_base64(head.strip(b'"')[:8]).lstrip().startswith(b"{")
    except binascii.Error:
        return False


def _listed(names: Iterable[str]) -> str:
    return ", ".join(name[:40] for name in islice(names, 4))
