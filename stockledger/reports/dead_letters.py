"""A dead letter as it is shown: its status, which command it seems to be, its bytes for JSON."""

import base64
import json
import re
from collections.abc import Collection, Iterable
from typing import Any

from ledger.api import Ledger
from ledger.domain.delivery import Bad, Lane, Record
from ledger.domain.envelope import decode
from ledger.store.tables.dead_letter import DeadLetter, Heading, LetterStatus

REPAIRED = "repaired"
"""A parked letter whose id has an outcome by now: the command was sent again, as it should be."""
MEMBER = re.compile(r'"(id|source)"\s*:\s*"([^"\\]*)"')


def status_of(book: Ledger, letter: DeadLetter) -> str:
    """The letter's status, or `repaired`."""
    source, id_ = claims(letter.record)
    if letter.status is LetterStatus.PARKED and id_ and book.outcome(id_, source):
        return REPAIRED
    return letter.status.value


def claims(record: Record) -> tuple[str | None, str | None]:
    """The source and the id that a record names, however wrong the rest of it is."""
    named = {name.lower().replace("-", "_"): value for name, value in record.headers or []}
    source, id_ = (_text(named.get(name)) for name in ("ce_source", "ce_id"))
    if id_ is None and record.value is not None:
        try:
            fields = json.loads(record.value)
        except (ValueError, RecursionError):  # no JSON, but perhaps it was to be
            found = MEMBER.findall(record.value.decode("utf-8", "replace"))
            fields = dict(reversed(found))
        if isinstance(fields, dict):
            id_, source = _text(fields.get("id")), source or _text(fields.get("source"))
    return source, id_


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) and value else None


def summary(letter: Heading | DeadLetter) -> dict[str, Any]:
    """As `--json` shows it, all but the record's value and headers."""
    return {
        "topic": letter.lane.topic, "partition": letter.lane.partition, "offset": letter.offset,
        "status": letter.status, "code": letter.code, "detail": letter.detail,
        "recorded_at": letter.recorded_at, "key": as_bytes(letter.key),
    }  # fmt: skip


def shown(book: Ledger, letter: DeadLetter) -> dict[str, Any]:
    """As `dlq show --json` has it: the summary, what this version makes of it, its value and headers."""
    headers = [{"name": name, **(as_bytes(value) or {})} for name, value in letter.record.headers or []]
    extra = {"now": now(letter), "value": as_bytes(letter.record.value), "headers": headers}
    return summary(letter) | {"status": status_of(book, letter)} | extra


def now(letter: DeadLetter) -> str:
    """What this version makes of the record."""
    content = decode(letter.record.headers, letter.record.value)
    return f"{content.code}: {content.detail}" if isinstance(content, Bad) else "a valid command"


def naming(book: Ledger, id_: str) -> list[DeadLetter]:
    """The dead letters whose id it is. Reads all that there are."""
    return [each for each in book.dead_letters_naming(id_) if claims(each.record)[1] == id_]


def summaries(
    letters: Iterable[Heading | DeadLetter], repaired: Collection[tuple[Lane, int]]
) -> list[dict[str, Any]]:
    """The summary of each; what is in `repaired` has that as its status."""
    return [
        summary(each) | ({"status": REPAIRED} if (each.lane, each.offset) in repaired else {})
        for each in letters
    ]


def as_bytes(value: bytes | None) -> dict[str, str | None] | None:
    """Bytes for JSON: as they are, and as text where they are text."""
    if value is None:
        return None
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = None
    return {"text": text, "base64": base64.b64encode(value).decode()}
