"""The past, read from the journal and the events: pages of a range, and stock as of then.

Nothing is written or locked. What is committed at a position never changes, so a range needs no snapshot:
each function is a few short statements of their own, in autocommit, and memory holds a page at a time. A
stream's versions rise with the positions, so a stream is paged along its primary key; the rest by entry.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from ledger.domain.goods import stream as stream_of
from ledger.errors import Defect
from ledger.store import journal
from ledger.store.database import Connection
from ledger.store.stock import StockLevel

PAGE_EVENTS = 5_000
"""About how many events a page has; a larger entry is read in pieces of this size."""
FOLD_EVENTS = 200_000
"""The same for what is added up in the database, of which only the sums come here."""
PAGE_ENTRIES = 10_000
GOODS_PREFIX = stream_of("")


class Page(NamedTuple):
    """A range of positions, the range of their entry numbers, and the most events that one of them has."""

    first: int
    last: int
    first_entry: int
    last_entry: int
    events_max: int


class StoredEvent(NamedTuple):
    """An event as it is stored; `payload` is the JSON text as it was written."""

    position: int
    ordinal: int
    stream: str
    version: int
    type: str
    payload: str
    source: str
    id: str
    recorded_at: datetime


class Piece(NamedTuple):
    """Events that follow each other, and the position from which to go on if this is the last piece taken."""

    events: list[StoredEvent]
    next_position: int


class Moment(NamedTuple):
    """A position, and when it was recorded (None: position 0, before the first entry)."""

    position: int
    recorded_at: datetime | None


class Wanted(NamedTuple):
    """Which events are wanted; None: all."""

    stream: str | None = None
    user: str | None = None
    type: str | None = None


# Inside: no more than so many entries; then those whose events fit into a page, or the first one alone.
PAGE = """
SELECT min(position), max(position), min(entry), max(entry), max(applied)
FROM (SELECT position, entry, applied, sum(applied) OVER (ORDER BY position) AS events
      FROM (SELECT position, entry, applied FROM ledger.journal
            WHERE position > %(after)s AND position <= %(last)s ORDER BY position LIMIT %(entries)s) j) j
WHERE events <= %(events)s OR events = applied
"""
IN_PAGE = """
SELECT j.position, e.ordinal, e.stream, e.version, e.type, e.payload::text, e.source, e.id, j.recorded_at
FROM ledger.event e JOIN ledger.journal j USING (entry)
WHERE e.entry BETWEEN %(first_entry)s AND %(last_entry)s AND j.position BETWEEN %(first)s AND %(last)s
  AND e.ordinal >= %(first_ordinal)s AND e.ordinal < %(next_ordinal)s
  AND (%(user)s::text IS NULL OR e.user_id = %(user)s) AND (%(type)s::text IS NULL OR e.type = %(type)s)
ORDER BY j.position, e.ordinal
"""
OF_STREAM = """
SELECT j.position, e.ordinal, e.stream, e.version, e.type, e.payload::text, e.source, e.id, j.recorded_at
FROM ledger.event e JOIN ledger.journal j USING (entry)
WHERE e.stream = %(stream)s AND e.version > %(after)s AND j.position BETWEEN %(first)s AND %(last)s
  AND (%(user)s::text IS NULL OR e.user_id = %(user)s) AND (%(type)s::text IS NULL OR e.type = %(type)s)
ORDER BY e.version LIMIT %(rows)s
"""
RECORDED_AT = "SELECT recorded_at FROM ledger.journal WHERE position = %s"
LEVEL = """
SELECT sum(e.delta)::bigint, max(e.version) FROM ledger.event e JOIN ledger.journal j USING (entry)
WHERE e.stream = %s AND j.position <= %s
"""
LEVELS = """
SELECT e.stream, sum(e.delta)::bigint, max(e.version) FROM ledger.event e JOIN ledger.journal j USING (entry)
WHERE e.entry BETWEEN %(first_entry)s AND %(last_entry)s AND j.position BETWEEN %(first)s AND %(last)s
  AND starts_with(e.stream, %(prefix)s) GROUP BY e.stream
"""


def pages(conn: Connection, first: int, last: int, events: int) -> Iterator[Page]:
    """The positions `first` to `last`, in pages of about so many events."""
    after = first - 1
    while after < last:
        bounds = {"after": after, "last": last, "entries": PAGE_ENTRIES, "events": events}
        row = conn.execute(PAGE, bounds).fetchone()
        if row is None or row[0] is None:
            return
        page = Page(*row)
        yield page
        after = page.last


def events(conn: Connection, first: int, last: int, wanted: Wanted) -> Iterator[Piece]:
    """The wanted events at the positions `first` to `last`, in (position, ordinal) order, piece by piece.

    A piece may be empty. `last` must be committed already; no transaction is open while a piece is used.
    """
    parts = _of_stream if wanted.stream is not None else _of_pages
    return parts(conn, first, last, wanted)


def _of_pages(conn: Connection, first: int, last: int, wanted: Wanted) -> Iterator[Piece]:
    for page in pages(conn, first, last, PAGE_EVENTS):
        ordinals = range(0, max(page.events_max, 1), PAGE_EVENTS)
        for ordinal in ordinals:
            part = {"first_ordinal": ordinal, "next_ordinal": ordinal + PAGE_EVENTS}
            rows = conn.execute(IN_PAGE, page._asdict() | part | wanted._asdict())
            yield Piece(_stored(rows), page.last + 1 if ordinal == ordinals[-1] else page.first)


def _of_stream(conn: Connection, first: int, last: int, wanted: Wanted) -> Iterator[Piece]:
    bounds = wanted._asdict() | {"first": first, "last": last, "rows": PAGE_EVENTS, "after": 0}
    while found := _stored(conn.execute(OF_STREAM, bounds)):
        complete = len(found) < PAGE_EVENTS
        yield Piece(found, last + 1 if complete else found[-1].position)
        if complete:
            return
        bounds["after"] = found[-1].version


def _stored(rows: Iterable[tuple[Any, ...]]) -> list[StoredEvent]:
    return [StoredEvent(*row) for row in rows]


def moment(conn: Connection, as_of: int | datetime) -> Moment:
    """The position `as_of`, or the last one that was recorded at or before that time.

    Raises ValueError for a position that isn't there yet, and for a time without an offset from UTC.
    """
    if isinstance(as_of, datetime):
        position = last_recorded(conn, as_of)
    else:
        position, end = as_of, journal.tip(conn).position
        if not 0 <= position <= end:
            raise ValueError(f"there is no position {position}: the journal ends at {end}")
    return Moment(position, _recorded_at(conn, position) if position else None)


def last_recorded(conn: Connection, time: datetime, *, before: bool = False) -> int:
    """The last position that was recorded at `time` or earlier (`before`: earlier); 0 if there is none.

    Times never fall from one position to the next, so it is found by halving.
    """
    if time.tzinfo is None:
        raise ValueError("a time needs its offset from UTC")
    low, high = 0, journal.tip(conn).position
    while low < high:
        middle = (low + high + 1) // 2
        recorded = _recorded_at(conn, middle)
        if recorded < time or (recorded == time and not before):
            low = middle
        else:
            high = middle - 1
    return low


def _recorded_at(conn: Connection, position: int) -> datetime:
    row = conn.execute(RECORDED_AT, (position,)).fetchone()
    if row is None:
        raise Defect(f"position {position} is missing in the journal", remedy="stockledger verify")
    recorded: datetime = row[0]
    return recorded


def level(conn: Connection, goods_id: str, position: int) -> StockLevel | None:
    """The goods' stock after the entry at this position; None if they weren't listed yet."""
    row = conn.execute(LEVEL, (stream_of(goods_id), position)).fetchone()
    return StockLevel(goods_id, *row) if row and row[1] else None


def levels(conn: Connection, position: int) -> list[StockLevel]:
    """The stock of all goods after the entry at this position, by id. Memory grows with the goods alone."""
    found: dict[str, tuple[int, int]] = {}
    for page in pages(conn, 1, position, FOLD_EVENTS):
        for stream, delta, version in conn.execute(LEVELS, page._asdict() | {"prefix": GOODS_PREFIX}):
            found[stream] = found.get(stream, (0, 0))[0] + delta, version
    return [StockLevel(stream.removeprefix(GOODS_PREFIX), *found[stream]) for stream in sorted(found)]
