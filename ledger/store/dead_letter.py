"""Records that are no valid command, kept byte for byte, never registered."""

from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from ledger.domain.delivery import Bad, Headers, Lane, Record
from ledger.store import copy
from ledger.store.database import Connection


class Status(StrEnum):
    """What was done about a dead letter: the only thing about it that may change."""

    PARKED = "parked"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"


class DeadLetter(NamedTuple):
    """A record that is no valid command: why not, and its bytes."""

    lane: Lane
    offset: int
    code: str
    detail: str
    status: Status
    recorded_at: datetime
    record: Record


COPY = """
COPY ledger.dead_letter
    (entry, topic, partition, "offset", code, detail, key, value, header_names, header_values) FROM STDIN
"""
LINES = """
COPY (SELECT entry, topic, partition, "offset", code, detail, key, value, header_names, header_values
      FROM ledger.dead_letter WHERE entry BETWEEN %s AND %s ORDER BY entry, "offset") TO STDOUT
"""
# Along the primary key.
IN_RANGE = """
SELECT "offset", key, value, header_names, header_values FROM ledger.dead_letter
WHERE topic = %s AND partition = %s AND "offset" >= %s AND "offset" < %s
"""
LIST = """
SELECT topic, partition, "offset", code, detail, status, recorded_at, key, value, header_names, header_values
FROM ledger.dead_letters
WHERE (%(status)s::text IS NULL OR status = %(status)s) AND (%(code)s::text IS NULL OR code = %(code)s)
ORDER BY topic, partition, "offset"
"""
ONE = """
SELECT topic, partition, "offset", code, detail, status, recorded_at, key, value, header_names, header_values
FROM ledger.dead_letters WHERE topic = %s AND partition = %s AND "offset" = %s
"""
TOTALS = "SELECT status, count(*) FROM ledger.dead_letter GROUP BY status"
# Compared, so that of two operators who decide at the same time only one does.
SET_STATUS = """
UPDATE ledger.dead_letter SET status = %s
WHERE topic = %s AND partition = %s AND "offset" = %s AND status = %s
"""


def line(entry: int, lane: Lane, offset: int, bad: Bad, record: Record) -> str:
    """The record's row."""
    names: list[bytes | None] | None = None
    values: list[bytes | None] | None = None
    if record.headers is not None:
        names = [name.encode("utf-8", "surrogateescape") for name, _ in record.headers]
        values = [value for _, value in record.headers]
    return copy.line(entry, *lane, offset, bad.code, bad.detail, record.key, record.value, names, values)


def in_range(conn: Connection, lane: Lane, first_offset: int, next_offset: int) -> dict[int, Record]:
    """The dead records of a range of offsets, by offset."""
    rows = conn.execute(IN_RANGE, (*lane, first_offset, next_offset), binary=True)
    return {offset: _record(*stored) for offset, *stored in rows}


def listed(conn: Connection, *, status: Status | None = None, code: str | None = None) -> list[DeadLetter]:
    """The dead letters with that status and code, lane by lane in offset order."""
    return [_dead_letter(*row) for row in conn.execute(LIST, {"status": status, "code": code})]


def find(conn: Connection, lane: Lane, offset: int) -> DeadLetter | None:
    """The dead letter at this offset, if it is one."""
    row = conn.execute(ONE, (*lane, offset)).fetchone()
    return _dead_letter(*row) if row else None


def totals(conn: Connection) -> dict[Status, int]:
    """How many there are of each status."""
    found = {Status(status): number for status, number in conn.execute(TOTALS)}
    return {status: found.get(status, 0) for status in Status}


def set_status(conn: Connection, lane: Lane, offset: int, *, was: Status, now: Status) -> bool:
    """Note what was done about the dead letter; False if there is none or its status isn't `was` any more."""
    return conn.execute(SET_STATUS, (now, *lane, offset, was)).rowcount == 1


def _dead_letter(
    topic: str,
    partition: int,
    offset: int,
    code: str,
    detail: str,
    status: str,
    recorded_at: datetime,
    *stored: Any,
) -> DeadLetter:
    lane = Lane(topic, partition)
    return DeadLetter(lane, offset, code, detail, Status(status), recorded_at, _record(*stored))


def _record(
    key: bytes | None, value: bytes | None, names: list[bytes] | None, values: list[bytes | None] | None
) -> Record:
    headers: Headers | None = None
    if names is not None and values is not None:
        headers = [(n.decode("utf-8", "surrogateescape"), v) for n, v in zip(names, values, strict=True)]
    return Record(key, value, headers)
