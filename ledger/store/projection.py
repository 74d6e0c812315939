"""The pointer: which generation of a projection is live, how far each is, and who builds the next one.

Checkpoints are moved by compare-and-set, in the transaction that applies the range. At most one generation of
a projection is live and one building (unique indexes). The caller owns the transaction.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from psycopg.rows import class_row
from psycopg.types.range import Range as PgRange

from ledger.errors import Contended
from ledger.store.database import Connection

SHARE = 2**40
"""In `done`, position p of the share number s is s * SHARE + p."""


class Missing(NamedTuple):
    """The share lacks what lies behind the position `after`, up to `upto`."""

    share: int
    after: int
    upto: int


@dataclass(frozen=True)
class Generation:
    """One built copy of a projection.

    `done` are ranges applied out of order, beyond `position`, by each of its `shares`.
    """

    name: str
    generation: int
    version: int
    status: str
    inline: bool
    position: int
    shares: int
    done: list[PgRange[int]]
    target: int
    rate: float | None
    builder_host: str | None
    builder_pid: int | None
    backend_pid: int | None
    backend_start: datetime | None
    started_at: datetime
    swapped_at: datetime | None

    def missing(self, upto: int) -> Iterator[Missing]:
        """What isn't applied yet, share by share: up to `upto`, or as far as any share has come."""
        done = [(*divmod(each.lower or 0, SHARE), (each.upper or 0) % SHARE - 1) for each in self.done]
        upto = max([upto, self.position, *(last for _, _, last in done)])
        for share in range(self.shares):
            after = self.position
            for _, first, last in (each for each in done if each[0] == share):
                yield Missing(share, after, first - 1)
                after = last
            yield Missing(share, after, upto)


@dataclass(frozen=True)
class Progress:
    """How far a generation is; the lag in seconds is the age of the first entry that it lacks."""

    name: str
    generation: int
    version: int
    status: str
    position: int
    lag: int
    lag_seconds: float


GENERATIONS = """
SELECT name, generation, version, status, inline, position, shares,
       ARRAY(SELECT r FROM unnest(done) r) AS done, target, rate,
       builder_host, builder_pid, backend_pid, backend_start, started_at, swapped_at
FROM ledger.projection WHERE name = %s ORDER BY generation
"""
PROGRESS = """
SELECT name, generation, version, status, position, lag, lag_seconds FROM ledger.projections
"""
POSITION = "SELECT position FROM ledger.projections WHERE name = %s AND status = 'live'"
AT = "SELECT position FROM ledger.projection WHERE name = %s AND generation = %s AND status = ANY(%s)"
# Whoever holds the row works; the others pass by, and look again later.
HOLD = """
SELECT position FROM ledger.projection
WHERE name = %s AND generation = %s AND status = ANY(%s) FOR NO KEY UPDATE SKIP LOCKED
"""
LOCK = "SELECT generation FROM ledger.projection WHERE name = %s ORDER BY generation FOR UPDATE"
MOVE = """
UPDATE ledger.projection SET position = %(last)s
WHERE name = %(name)s AND generation = %(generation)s AND position = %(first)s - 1
  AND status = ANY(%(statuses)s)
"""
MARK = """
UPDATE ledger.projection
SET done = done + int8multirange(int8range(%(base)s + %(first)s, %(base)s + %(last)s, '[]'))
WHERE name = %(name)s AND generation = %(generation)s AND status = 'building' AND shares = %(shares)s
  AND position < %(first)s AND NOT done && int8range(%(base)s + %(first)s, %(base)s + %(last)s, '[]')
"""
# Every share has applied one range from the checkpoint on, and all the same one.
ABSORB = """
UPDATE ledger.projection SET position = upper(done) - 1 - (shares - 1) * %(share)s, done = '{}'
WHERE name = %(name)s AND generation = %(generation)s AND done = (
    SELECT range_agg(int8range(n * %(share)s + position + 1, upper(done) - (shares - 1 - n) * %(share)s))
    FROM generate_series(0, shares - 1) n)
"""
BEGIN = """
INSERT INTO ledger.projection (name, generation, version, status, inline)
SELECT %(name)s, coalesce(max(generation), 0) + 1, %(version)s, %(status)s, %(inline)s
FROM ledger.projection WHERE name = %(name)s
RETURNING generation
"""
BUILDER = """
UPDATE ledger.projection SET builder_host = %(host)s, builder_pid = %(pid)s, backend_pid = pg_backend_pid(),
    backend_start = (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()),
    target = %(target)s, shares = CASE done WHEN '{}' THEN %(shares)s ELSE shares END
WHERE name = %(name)s AND generation = %(generation)s
"""
RATE = "UPDATE ledger.projection SET rate = %s WHERE name = %s AND generation = %s"
STATUS = """
UPDATE ledger.projection SET status = %(now)s, swapped_at = CASE WHEN %(now)s = 'dropping' THEN swapped_at
                                                            ELSE clock_timestamp() END
WHERE name = %(name)s AND generation = %(generation)s AND status = %(was)s
"""
SET_POSITION = "UPDATE ledger.projection SET position = %s WHERE name = %s AND generation = %s"
SET_LIVE_STOCK = "UPDATE ledger.head SET stock_generation = %s"
FORGET = "DELETE FROM ledger.projection WHERE name = %s AND generation = %s AND status = 'dropping'"


def generations(conn: Connection, name: str) -> list[Generation]:
    """All generations of the projection, in order."""
    with conn.cursor(row_factory=class_row(Generation)) as cursor:
        return cursor.execute(GENERATIONS, (name,)).fetchall()


def progress(conn: Connection) -> list[Progress]:
    """How far each generation of each projection is."""
    with conn.cursor(row_factory=class_row(Progress)) as cursor:
        return cursor.execute(PROGRESS).fetchall()


def live_position(conn: Connection, name: str) -> int | None:
    """Up to which position readers of the projection see; None if there is none of this name."""
    row = conn.execute(POSITION, (name,)).fetchone()
    return int(row[0]) if row else None


def position(conn: Connection, name: str, generation: int, statuses: list[str]) -> int:
    """The generation's checkpoint. Raises Contended if it has none of these statuses any more."""
    row = conn.execute(AT, (name, generation, statuses)).fetchone()
    if row is None:
        raise Contended(f"generation {generation} of {name} was ended or swapped by another one")
    return int(row[0])


def hold(conn: Connection, name: str, generation: int, statuses: list[str]) -> int | None:
    """Hold the generation until the transaction ends; returns its position. None: another one holds it."""
    row = conn.execute(HOLD, (name, generation, statuses)).fetchone()
    return int(row[0]) if row else None


def lock(conn: Connection, name: str) -> None:
    """Hold all generations of the projection: none moves, none is swapped."""
    conn.execute(LOCK, (name,))


def move(conn: Connection, name: str, generation: int, first: int, last: int, statuses: list[str]) -> None:
    """The checkpoint passes the range. Raises Contended if it doesn't stand right before it."""
    facts = {"name": name, "generation": generation, "first": first, "last": last, "statuses": statuses}
    _one(conn.execute(MOVE, facts).rowcount, name, generation)


def mark(
    conn: Connection, name: str, generation: int, first: int, last: int, share: int = 0, shares: int = 1
) -> None:
    """Note that the share has applied the range, out of order. Raises Contended if part of it was already."""
    facts = {"name": name, "generation": generation, "first": first, "last": last}
    facts |= {"base": share * SHARE, "shares": shares}
    _one(conn.execute(MARK, facts).rowcount, name, generation)


def absorb(conn: Connection, name: str, generation: int) -> bool:
    """What was applied out of order joins the checkpoint, if it leaves no hole."""
    facts = {"name": name, "generation": generation, "share": SHARE}
    return conn.execute(ABSORB, facts).rowcount == 1


def _one(changed: int, name: str, generation: int) -> None:
    if changed != 1:
        raise Contended(
            f"generation {generation} of {name} isn't where it was: another one moved or ended it"
        )


def begin(conn: Connection, name: str, version: int, status: str, *, inline: bool) -> int:
    """A new generation, at position 0; returns its number."""
    facts = {"name": name, "version": version, "status": status, "inline": inline}
    row = conn.execute(BEGIN, facts).fetchone()
    assert row is not None
    return int(row[0])


def note_builder(
    conn: Connection, generation: Generation, host: str, pid: int, target: int, shares: int
) -> None:
    """Write down who builds it, up to where, and in how many shares, unless some have begun already."""
    facts = {"host": host, "pid": pid, "target": target, "shares": shares}
    conn.execute(BUILDER, {"name": generation.name, "generation": generation.generation, **facts})


def note_rate(conn: Connection, name: str, generation: int, rate: float) -> None:
    """Remember how fast it was built, in events a second."""
    conn.execute(RATE, (rate, name, generation))


def set_status(conn: Connection, name: str, generation: int, *, was: str, now: str) -> bool:
    """Change the status; False if it isn't `was`."""
    facts = {"name": name, "generation": generation, "was": was, "now": now}
    return conn.execute(STATUS, facts).rowcount == 1


def set_position(conn: Connection, name: str, generation: int, position: int) -> None:
    """Where an inline generation stands when it ceases to be live; under the head's lock."""
    conn.execute(SET_POSITION, (position, name, generation))


def set_live_stock(conn: Connection, generation: int) -> None:
    """Batches that loaded another generation can't seal any more. Needs the database's owner."""
    conn.execute(SET_LIVE_STOCK, (generation,))


def forget(conn: Connection, name: str, generation: int) -> None:
    """Remove the row of a generation whose table is gone."""
    conn.execute(FORGET, (name, generation))
