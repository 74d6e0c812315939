"""The past, read from the journal and the events: what happened, and the stock as of then.

Nothing is written or locked. What is committed at a position never changes, so a range needs no snapshot:
each function is a few short statements of their own, in autocommit, and memory holds a page at a time. A
stream's versions rise with the positions, so a stream is paged along its primary key; the rest by entry.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, LiteralString, NamedTuple

from ledger.domain.goods import goods_stream
from ledger.domain.token import AnyPosition, Token, position_of, prove
from ledger.errors import AGAIN, Defect, Unavailable
from ledger.store.connection.database import Connection
from ledger.store.reads.ranges import EVENTS, IN_RANGE, ranges
from ledger.store.tables import journal
from ledger.store.tables.stock import StockLevel

RANGE_EVENTS = 5_000
"""How many events are read at a time; a larger entry is read in pieces of this size."""
FOLD_EVENTS = 200_000
"""How many events are added up at a time in the database, of which only the sums come here."""
GOODS_PREFIX = goods_stream("")


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
    """Events that follow each other, and the position from which to go on if this is the last piece taken.

    `end`: the token of the journal's end as it was then, by which whoever goes on proves the history.
    """

    events: list[StoredEvent]
    next_position: int
    end: str = ""


class Moment(NamedTuple):
    """A position, when it was recorded (None: position 0, before the first entry), and its token."""

    position: int
    recorded_at: datetime | None
    token: str


class StockNow(NamedTuple):
    """The live stock of some goods by id, all as of one moment; goods that were never listed are missing."""

    moment: Moment
    levels: dict[str, StockLevel]


class Wanted(NamedTuple):
    """Which events are wanted; None: all."""

    stream: str | None = None
    user: str | None = None
    type: str | None = None


IN_ORDER: LiteralString = (
    """
SELECT j.position, e.ordinal, e.stream, e.version, e.type, e.payload::text, e.source, e.id, j.recorded_at
FROM"""
    + EVENTS
    + "WHERE"
    + IN_RANGE
    + """
    AND (%(user)s::text IS NULL OR e.user_id = %(user)s) AND (%(type)s::text IS NULL OR e.type = %(type)s)
ORDER BY j.position, e.ordinal
"""
)
OF_STREAM = """
SELECT j.position, e.ordinal, e.stream, e.version, e.type, e.payload::text, e.source, e.id, j.recorded_at
FROM ledger.event e JOIN ledger.journal j USING (entry)
WHERE e.stream = %(stream)s AND e.version > %(after)s AND j.position BETWEEN %(first)s AND %(last)s
  AND (%(user)s::text IS NULL OR e.user_id = %(user)s) AND (%(type)s::text IS NULL OR e.type = %(type)s)
ORDER BY e.version LIMIT %(rows)s
"""
RECORDED_AT = "SELECT recorded_at FROM ledger.journal WHERE position = %s"
NOW = "SELECT position, nullif(recorded_at, '-infinity'), hash FROM ledger.head"
# One statement each, so that a pooler can't have it answered by two servers.
MOMENT = """
SELECT h.position, pg_is_in_recovery(), j.recorded_at, j.hash
FROM ledger.head h LEFT JOIN ledger.journal j ON j.position = %s
"""
END = """
SELECT h.position, h.hash, pg_is_in_recovery(), j.position, j.hash
FROM ledger.head h LEFT JOIN ledger.journal j ON j.position = ANY(%s::bigint[])
"""
LIVE = """
SELECT h.position, nullif(h.recorded_at, '-infinity'), h.hash, s.goods_id, s.on_hand, s.version
FROM ledger.head h
LEFT JOIN ledger.stock s ON s.generation = h.stock_generation AND s.goods_id = ANY(%s::text[])
"""
LEVEL = """
SELECT sum(e.delta)::bigint, max(e.version) FROM ledger.event e JOIN ledger.journal j USING (entry)
WHERE e.stream = %s AND j.position <= %s
"""
VERSION_AT = """
SELECT coalesce(max(e.version), 0) FROM ledger.event e JOIN ledger.journal j USING (entry)
WHERE e.stream = %s AND (j.position, e.ordinal) <= (%s, %s)
"""
LEVELS: LiteralString = (
    "SELECT e.stream, sum(e.delta)::bigint, max(e.version) FROM"
    + EVENTS
    + "WHERE"
    + IN_RANGE
    + "AND starts_with(e.stream, %(prefix)s) GROUP BY e.stream"
)


def events(
    conn: Connection, first: int, last: int, wanted: Wanted, at_a_time: int = RANGE_EVENTS
) -> Iterator[Piece]:
    """The wanted events at the positions `first` to `last`, in (position, ordinal) order, piece by piece.

    A piece may be empty. `last` must be committed already; no transaction is open while a piece is used.
    """
    parts = _of_stream if wanted.stream is not None else _in_order
    return parts(conn, first, last, wanted, at_a_time)


def _in_order(conn: Connection, first: int, last: int, wanted: Wanted, at_a_time: int) -> Iterator[Piece]:
    for found in ranges(conn, first, last, at_a_time):
        ordinals = range(0, max(found.events, 1), at_a_time)  # more than one only of one large entry
        for ordinal in ordinals:
            part = found._replace(first_ordinal=ordinal, last_ordinal=ordinal + at_a_time - 1)
            rows = conn.execute(IN_ORDER, part._asdict() | wanted._asdict())
            yield Piece(_stored(rows), found.last + 1 if ordinal == ordinals[-1] else found.first)


def version_at(conn: Connection, stream: str, position: int, ordinal: int) -> int:
    """The stream's version after all that came up to this place; 0 if nothing did."""
    ((version,),) = conn.execute(VERSION_AT, (stream, position, ordinal))
    return int(version)


def of_stream(conn: Connection, stream: str, after_version: int, last: int, limit: int) -> list[StoredEvent]:
    """The stream's next events after this version, up to the position `last`."""
    bounds = Wanted(stream)._asdict() | {"first": 1, "last": last, "rows": limit, "after": after_version}
    return _stored(conn.execute(OF_STREAM, bounds))


def _of_stream(conn: Connection, first: int, last: int, wanted: Wanted, at_a_time: int) -> Iterator[Piece]:
    bounds = wanted._asdict() | {"first": first, "last": last, "rows": at_a_time, "after": 0}
    while found := _stored(conn.execute(OF_STREAM, bounds)):
        complete = len(found) < at_a_time
        yield Piece(found, last + 1 if complete else found[-1].position)
        if complete:
            return
        bounds["after"] = found[-1].version


def _stored(rows: Iterable[tuple[Any, ...]]) -> list[StoredEvent]:
    return [StoredEvent(*row) for row in rows]


def now(conn: Connection) -> Moment:
    """The last position that is committed."""
    (row,) = conn.execute(NOW)
    return _moment(*row)


def _moment(position: int, recorded_at: datetime | None, hash: bytes) -> Moment:
    return Moment(position, recorded_at, str(Token.at(position, hash)))


def live(conn: Connection, goods_ids: Iterable[str]) -> StockNow:
    """The live stock of these goods, and the last position that is committed: one snapshot."""
    rows = conn.execute(LIVE, (list(goods_ids),)).fetchall()
    levels = [StockLevel(*row[3:]) for row in rows if row[3] is not None]
    return StockNow(_moment(*rows[0][:3]), {level.goods_id: level for level in levels})


def moment(conn: Connection, as_of: AnyPosition | datetime) -> Moment:
    """The position or token `as_of`, or the last position that was recorded at or before that time.

    Raises ValueError for a position that isn't there yet, for a text that is no token, and for a time without
    an offset from UTC; HistoryChanged for a token of another history. One beyond the head is of a lost past,
    unless this is a standby, which may have yet to hear of it.
    """
    at = last_recorded(conn, as_of) if isinstance(as_of, datetime) else as_of
    position = position_of(at)
    ((end, standby, recorded_at, hash),) = conn.execute(MOMENT, (position,))
    found = hash if position else journal.GENESIS
    if position <= end or not standby:
        prove(at, found)
    if not 0 <= position <= end:
        raise ValueError(f"there is no position {position}: the journal ends at {end}")
    if found is None:
        raise _missing(position)
    return _moment(position, recorded_at, found)


def end(conn: Connection, known: Iterable[str]) -> Token:
    """The last position that is committed, in the history that all the `known` tokens are of: one snapshot.

    Raises HistoryChanged for a token of another history, Unavailable where only a standby that lags is asked.
    """
    tokens = [Token.parse(text) for text in known]
    rows = conn.execute(END, ([token.position for token in tokens],)).fetchall()
    position, hash, standby = rows[0][:3]
    hashes = {0: journal.GENESIS} | {row[3]: row[4] for row in rows}
    for token in tokens:
        if standby and token.position > position:
            raise Unavailable(
                f"there is no position {token.position}: the journal ends at {position}, "
                "as far as this standby has heard",
                remedy=AGAIN,
            )
        token.prove(hashes.get(token.position))
    return Token.at(position, hash)


def proven(conn: Connection, at: AnyPosition) -> int:
    """The position that is meant; a bare one is believed, also beyond the head. Raises as `end`."""
    if isinstance(at, str):
        end(conn, [at])
    return position_of(at)


def bounds(
    conn: Connection, since: AnyPosition | datetime | None, until: AnyPosition | datetime | None
) -> tuple[int, int]:
    """The first and the last position that was recorded after `since` and up to `until`.

    Of a time, `since` takes in what was recorded at it, `until` leaves it out. Raises ValueError as `moment`.
    """
    end = journal.tip(conn).position
    first, last = 1, end
    if since is not None:
        at = last_recorded(conn, since, before=True) if isinstance(since, datetime) else since
        first = moment(conn, at).position + 1
    if until is not None:
        at = last_recorded(conn, until, before=True) if isinstance(until, datetime) else until
        last = moment(conn, at).position
    return first, last


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
        raise _missing(position)
    recorded: datetime = row[0]
    return recorded


def _missing(position: int) -> Defect:
    return Defect(f"position {position} is missing in the journal", remedy="stockledger verify")


def level(conn: Connection, goods_id: str, position: int) -> StockLevel | None:
    """The goods' stock after the entry at this position; None if they weren't listed yet."""
    row = conn.execute(LEVEL, (goods_stream(goods_id), position)).fetchone()
    return StockLevel(goods_id, *row) if row and row[1] else None


def levels(conn: Connection, position: int) -> list[StockLevel]:
    """The stock of all goods after the entry at this position, by id. Memory grows with the goods alone."""
    found: dict[str, tuple[int, int]] = {}
    for part in ranges(conn, 1, position, FOLD_EVENTS):
        for stream, delta, version in conn.execute(LEVELS, part._asdict() | {"prefix": GOODS_PREFIX}):
            found[stream] = found.get(stream, (0, 0))[0] + delta, version
    return [StockLevel(stream.removeprefix(GOODS_PREFIX), *found[stream]) for stream in sorted(found)]
