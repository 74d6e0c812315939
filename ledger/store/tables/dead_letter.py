"""Records that are no valid command, kept byte for byte, never registered."""

import json
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from ledger.domain.delivery import Bad, Headers, Lane, Record
from ledger.store.connection import copy
from ledger.store.connection.database import Connection


class LetterStatus(StrEnum):
    """What was done about a dead letter: the only thing about it that may change."""

    PARKED = "parked"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"


class Heading(NamedTuple):
    """A dead letter without its record, which may be large: for lists. Of its key, the beginning."""

    lane: Lane
    offset: int
    code: str
    detail: str
    status: LetterStatus
    recorded_at: datetime
    key: bytes | None


class DeadLetter(NamedTuple):
    """A record that is no valid command: why not, and its bytes."""

    lane: Lane
    offset: int
    code: str
    detail: str
    status: LetterStatus
    recorded_at: datetime
    record: Record

    @property
    def key(self) -> bytes | None:
        """The record's."""
        return self.record.key


COPY = """
COPY ledger.dead_letter
    (entry, topic, partition, "offset", code, detail, key, value, header_names, header_values) FROM STDIN
"""
LINES = """
COPY (SELECT entry, topic, partition, "offset", code, detail, key, value, header_names, header_values
      FROM ledger.dead_letter WHERE entry BETWEEN %s AND %s ORDER BY entry, "offset") TO STDOUT
"""
ENTRIES = "SELECT DISTINCT entry FROM ledger.dead_letter WHERE entry BETWEEN %s AND %s"
# Along the primary key.
IN_RANGE = """
SELECT "offset", key, value, header_names, header_values FROM ledger.dead_letter
WHERE topic = %s AND partition = %s AND "offset" >= %s AND "offset" < %s
"""
LIST = """
SELECT topic, partition, "offset", code, detail, status, recorded_at, substring(key FROM 1 FOR 200)
FROM ledger.dead_letters
WHERE (%(status)s::text IS NULL OR status = %(status)s) AND (%(code)s::text IS NULL OR code = %(code)s)
  AND (topic, partition, "offset") > (%(topic)s, %(partition)s, %(offset)s)
ORDER BY topic, partition, "offset" LIMIT %(limit)s
"""
BEFORE_ALL = Lane("", 0), 0
ONE = """
SELECT topic, partition, "offset", code, detail, status, recorded_at, key, value, header_names, header_values
FROM ledger.dead_letters WHERE topic = %s AND partition = %s AND "offset" = %s
"""
# Whatever is wrong with it: the id is a header's value, or a JSON text in the value. Reads all dead letters.
NAMING = """
SELECT topic, partition, "offset", code, detail, status, recorded_at, key, value, header_names, header_values
FROM ledger.dead_letters
WHERE %(id)s::bytea = ANY(header_values) OR position(%(text)s::bytea IN value) > 0
ORDER BY topic, partition, "offset" LIMIT %(limit)s
"""
# Parked, but sent again since, as it should have been. `escape` takes any bytes, and leaves text alone.
REPAIRED = """
SELECT d.topic, d.partition, d."offset" FROM ledger.dead_letter d JOIN ledger.processed_message p
ON p.id = encode(d.header_values[array_position(d.header_names, 'ce_id'::bytea)], 'escape')
   AND p.source = encode(d.header_values[array_position(d.header_names, 'ce_source'::bytea)], 'escape')
WHERE d.status = 'parked'
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


def entries(conn: Connection, first: int, last: int) -> set[int]:
    """The entries of a range that have such rows."""
    return {entry for (entry,) in conn.execute(ENTRIES, (first, last))}


def in_range(conn: Connection, lane: Lane, first_offset: int, next_offset: int) -> dict[int, Record]:
    """The dead records of a range of offsets, by offset."""
    rows = conn.execute(IN_RANGE, (*lane, first_offset, next_offset), binary=True)
    return {offset: _record(*stored) for offset, *stored in rows}


def listed(
    conn: Connection,
    *,
    status: LetterStatus | None = None,
    code: str | None = None,
    after: tuple[Lane, int] | None = None,
    limit: int | None = None,
) -> list[Heading]:
    """The dead letters with that status and code after that place, lane by lane in offset order."""
    (topic, partition), offset = after or BEFORE_ALL
    place = {"topic": topic, "partition": partition, "offset": offset}
    rows = conn.execute(LIST, {"status": status, "code": code, "limit": limit, **place})
    return [
        Heading(Lane(topic, partition), offset, code, detail, LetterStatus(status), *rest)
        for topic, partition, offset, code, detail, status, *rest in rows
    ]


def find(conn: Connection, lane: Lane, offset: int) -> DeadLetter | None:
    """The dead letter at this offset, if it is one."""
    row = conn.execute(ONE, (*lane, offset)).fetchone()
    return _dead_letter(*row) if row else None


def naming(conn: Connection, id: str, limit: int) -> list[DeadLetter]:
    """The first dead letters that name this id, lane by lane in offset order."""
    wanted = {"id": id.encode(), "text": json.dumps(id, ensure_ascii=False).encode(), "limit": limit}
    return [_dead_letter(*row) for row in conn.execute(NAMING, wanted)]


def repaired(conn: Connection) -> set[tuple[Lane, int]]:
    """The places of the parked letters whose command has an outcome by now."""
    return {(Lane(topic, partition), offset) for topic, partition, offset in conn.execute(REPAIRED)}


def totals(conn: Connection) -> dict[LetterStatus, int]:
    """How many there are of each status."""
    found = {LetterStatus(status): number for status, number in conn.execute(TOTALS)}
    return {status: found.get(status, 0) for status in LetterStatus}


def set_status(conn: Connection, lane: Lane, offset: int, *, was: LetterStatus, now: LetterStatus) -> bool:
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
    return DeadLetter(lane, offset, code, detail, LetterStatus(status), recorded_at, _record(*stored))


def _record(
    key: bytes | None, value: bytes | None, names: list[bytes] | None, values: list[bytes | None] | None
) -> Record:
    headers: Headers | None = None
    if names is not None and values is not None:
        headers = [(n.decode("utf-8", "surrogateescape"), v) for n, v in zip(names, values, strict=True)]
    return Record(key, value, headers)
