"""Entries by the column: what the rows of an entry have in one place, in the rows' order, as bytes.

For whoever wants all rows as they are, and fast: a row costs the driver some microseconds, and a column only
what it takes to cut it. Reads only, and what it reads never changes. Memory holds the rows of the entries
that are asked for: a batch of each at least.
"""

from datetime import datetime
from typing import Any, LiteralString, NamedTuple, Self

from ledger.errors import Defect
from ledger.store.connection.database import Connection
from ledger.store.reads.history import StoredEvent


class EventColumns(NamedTuple):
    """The events of an entry, by ordinal; `payloads` have the JSON as it was written, in one line."""

    position: int
    recorded_at: datetime
    ordinals: list[bytes]
    streams: list[bytes]
    versions: list[bytes]
    types: list[bytes]
    payloads: list[bytes]
    sources: list[bytes]
    ids: list[bytes]

    @classmethod
    def of(cls, stored: StoredEvent) -> Self:
        """One event alone."""
        texts = (
            str(stored.ordinal), stored.stream, str(stored.version), stored.type, stored.payload,
            stored.source, stored.id,
        )  # fmt: skip
        return cls(stored.position, stored.recorded_at, *([text.encode()] for text in texts))

    def stored(self, number: int) -> StoredEvent:
        """One of the events, counted from 0."""
        ordinal, stream, version, type, payload, source, id = (column[number].decode() for column in self[2:])
        return StoredEvent(
            self.position, int(ordinal), stream, int(version), type, payload, source, id, self.recorded_at
        )


class OutcomeColumns(NamedTuple):
    """The register's rows of an entry, by offset; of what was applied the reason is empty."""

    position: int
    recorded_at: datetime
    offsets: list[bytes]
    reasons: list[bytes]
    fingerprints: list[bytes]
    sources: list[bytes]
    ids: list[bytes]


# Bytes, because the driver would make texts of texts, and the caller bytes again.
EVENTS: LiteralString = """
SELECT j.position, j.recorded_at,
       convert_to(string_agg(e.ordinal::text, E'\\n' ORDER BY e.ordinal), 'UTF8'),
       convert_to(string_agg(e.stream, E'\\n' ORDER BY e.ordinal), 'UTF8'),
       convert_to(string_agg(e.version::text, E'\\n' ORDER BY e.ordinal), 'UTF8'),
       convert_to(string_agg(e.type, E'\\n' ORDER BY e.ordinal), 'UTF8'),
       convert_to(string_agg(replace(e.payload::text, E'\\n', ' '), E'\\n' ORDER BY e.ordinal), 'UTF8'),
       convert_to(string_agg(e.source, E'\\n' ORDER BY e.ordinal), 'UTF8'),
       convert_to(string_agg(e.id, E'\\n' ORDER BY e.ordinal), 'UTF8')
FROM ledger.event e JOIN ledger.journal j USING (entry)
WHERE e.entry BETWEEN %(first_entry)s AND %(last_entry)s AND j.position BETWEEN %(first)s AND %(last)s
GROUP BY j.position ORDER BY j.position
"""
OUTCOMES: LiteralString = """
SELECT j.position, j.recorded_at,
       convert_to(string_agg(p."offset"::text, E'\\n' ORDER BY p."offset"), 'UTF8'),
       convert_to(string_agg(coalesce(p.reason, ''), E'\\n' ORDER BY p."offset"), 'UTF8'),
       convert_to(string_agg(encode(p.fingerprint, 'hex'), E'\\n' ORDER BY p."offset"), 'UTF8'),
       convert_to(string_agg(p.source, E'\\n' ORDER BY p."offset"), 'UTF8'),
       convert_to(string_agg(p.id, E'\\n' ORDER BY p."offset"), 'UTF8')
FROM ledger.processed_message p JOIN ledger.journal j USING (entry)
WHERE p.entry BETWEEN %(first_entry)s AND %(last_entry)s AND j.position BETWEEN %(first)s AND %(last)s
GROUP BY j.position ORDER BY j.position
"""


class Bounds(NamedTuple):
    """Positions from `first` to `last`, and between which entries those are."""

    first: int
    last: int
    first_entry: int
    last_entry: int


def events(conn: Connection, within: Bounds) -> list[EventColumns]:
    """The events of each of these entries that has any, in journal order."""
    return [EventColumns(*_cut(*row)) for row in _rows(conn, EVENTS, within)]


def outcomes(conn: Connection, within: Bounds) -> list[OutcomeColumns]:
    """What became of the commands of each of these entries that decided any, in journal order."""
    return [OutcomeColumns(*_cut(*row)) for row in _rows(conn, OUTCOMES, within)]


def _rows(conn: Connection, statement: LiteralString, within: Bounds) -> list[tuple[Any, ...]]:
    with conn.cursor(binary=True) as cursor:
        return cursor.execute(statement, within._asdict()).fetchall()


def _cut(position: int, recorded_at: datetime, *texts: bytes) -> tuple[Any, ...]:
    columns = [text.split(b"\n") for text in texts]
    if len({*map(len, columns)}) > 1:
        raise Defect(
            f"rows at position {position} have line feeds where none can be", remedy="stockledger verify"
        )
    return position, recorded_at, *columns
