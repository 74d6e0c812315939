"""The pointer: which generation of a projection is live, how far each is, and who builds the next one.

Checkpoints are moved by compare-and-set, in the transaction that applies the range. At most one generation of
a projection is live and one building (unique indexes). The caller owns the transaction.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString, NamedTuple

from psycopg.rows import class_row
from psycopg.types.multirange import Multirange

from ledger.errors import Contended, ProjectionRefused
from ledger.store.connection.database import Connection, faults


class Missing(NamedTuple):
    """The share lacks what lies after the position `after`, up to `upto`."""

    share: int
    after: int
    upto: int


@dataclass(frozen=True)
class Generation:
    """One built copy of a projection.

    Its rows fall into shares, each of which may be built by a job of its own. `done` has for each of them the
    positions that were applied out of order, beyond `position`.
    """

    name: str
    generation: int
    version: int
    relation: str
    status: str
    inline: bool
    position: int
    done: list[Multirange[int]]
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
        applied = [[(each.lower or 0, each.upper or 0) for each in share] for share in self.done]
        upto = max([upto, self.position, *(end - 1 for share in applied for _, end in share)])
        for number, share in enumerate(applied):
            after = self.position
            for first, end in share:
                yield Missing(number, after, first - 1)
                after = end - 1
            yield Missing(number, after, upto)

    @property
    def shares(self) -> int:
        """Into how many shares its rows fall."""
        return len(self.done)


class Moving(NamedTuple):
    """A generation whose checkpoint somebody wants to move, and what it must be for that.

    It is never the live one of an inline projection, whatever the statuses say: batches write that.
    """

    name: str
    generation: int
    version: int
    statuses: list[str]


@dataclass(frozen=True)
class GenerationProgress:
    """How far a generation is; the lag in seconds is the age of the first entry that it lacks."""

    name: str
    generation: int
    version: int
    status: str
    position: int
    lag: int
    lag_seconds: float


GENERATIONS = """
SELECT name, generation, version, relation, status, inline, position, done, target, rate,
       builder_host, builder_pid, backend_pid, backend_start, started_at, swapped_at
FROM ledger.projection WHERE name = %s AND status <> 'dropped' ORDER BY generation
"""
# Numbers of dropped ones count: what somebody still knows of one never fits another.
NEXT = "SELECT coalesce(max(generation), 0) + 1 FROM ledger.projection WHERE name = %s"
PROGRESS = """
SELECT name, generation, version, status, position, lag, lag_seconds FROM ledger.projections
"""
POSITION = "SELECT position FROM ledger.projections WHERE name = %s AND status = 'live'"
# Judged by the statement that reads, holds or moves, never by what was read before it: between the two a
# rollback may make a standby live, and a batch write to it what the follower is about to fold. Nobody moves
# an inline generation while it is live.
_IS_MOVABLE: LiteralString = """
WHERE name = %(name)s AND generation = %(generation)s AND version = %(version)s AND status = ANY(%(statuses)s)
  AND NOT (inline AND status = 'live')
"""
AT: LiteralString = "SELECT position FROM ledger.projection" + _IS_MOVABLE
# Whoever holds the row works; the others pass by, and look again later.
HOLD: LiteralString = AT + "FOR NO KEY UPDATE SKIP LOCKED"
LOCK = "SELECT generation FROM ledger.projection WHERE name = %s ORDER BY generation FOR UPDATE"
MOVE: LiteralString = (
    "UPDATE ledger.projection SET position = %(last)s" + _IS_MOVABLE + "AND position = %(first)s - 1"
)
MARK = """
UPDATE ledger.projection
SET done[%(share)s + 1] = done[%(share)s + 1] + int8multirange(int8range(%(first)s, %(last)s, '[]'))
WHERE name = %(name)s AND generation = %(generation)s AND status = 'building'
  AND cardinality(done) = %(shares)s AND position < %(first)s
  AND NOT done[%(share)s + 1] && int8range(%(first)s, %(last)s, '[]')
"""
# Every share has applied one range from the checkpoint on, and all the same one.
ABSORB = """
UPDATE ledger.projection SET position = upper(done[1]) - 1,
    done = array_fill('{}'::int8multirange, ARRAY[cardinality(done)])
WHERE name = %(name)s AND generation = %(generation)s AND status = 'building'
  AND int8multirange(int8range(position + 1, upper(done[1]))) = ALL (done)
"""
BEGIN = """
INSERT INTO ledger.projection (name, generation, version, relation, status, inline)
VALUES (%(name)s, %(generation)s, %(version)s, %(relation)s, %(status)s, %(inline)s)
"""
BUILDER = """
UPDATE ledger.projection SET builder_host = %(host)s, builder_pid = %(pid)s, backend_pid = pg_backend_pid(),
    backend_start = (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()),
    target = %(target)s, done = CASE WHEN '{}' = ALL (done) THEN
        array_fill('{}'::int8multirange, ARRAY[%(shares)s::integer]) ELSE done END
WHERE name = %(name)s AND generation = %(generation)s
"""
RATE = "UPDATE ledger.projection SET rate = %s WHERE name = %s AND generation = %s"
STATUS = """
UPDATE ledger.projection SET status = %(now)s, swapped_at = CASE WHEN %(now)s = 'dropping' THEN swapped_at
                                                            ELSE clock_timestamp() END
WHERE name = %(name)s AND generation = %(generation)s AND status = %(was)s
"""
SET_POSITION = """
UPDATE ledger.projection SET position = %(position)s
WHERE name = %(name)s AND generation = %(generation)s AND inline AND status = 'standby'
  AND position <= %(position)s
"""
# Where the pointer's row was lost: what the head says, and what there is of the table.
RESTORE_INLINE = """
INSERT INTO ledger.projection (name, generation, version, relation, status, inline)
SELECT %(name)s, stock_generation, %(version)s, %(relation)s, 'live', true FROM ledger.head
ON CONFLICT (name, generation) DO UPDATE SET status = 'live'
"""
ADOPT = """
INSERT INTO ledger.projection (name, generation, version, relation, status)
SELECT %(name)s, substring(c.relname FROM '[0-9]+$')::integer, 0, %(relation)s, 'dropping'
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass(format('ledger.%%I', %(relation)s::text))
ON CONFLICT (name, generation) DO NOTHING
"""
SET_LIVE_STOCK = "UPDATE ledger.head SET stock_generation = %s"
FORGET = """
UPDATE ledger.projection SET status = 'dropped' WHERE name = %s AND generation = %s AND status = 'dropping'
"""


def generations(conn: Connection, name: str) -> list[Generation]:
    """All generations of the projection that aren't dropped, in order."""
    with conn.cursor(row_factory=class_row(Generation)) as cursor:
        return cursor.execute(GENERATIONS, (name,)).fetchall()


def find(conn: Connection, name: str, number: int) -> Generation:
    """The generation as it is now. Raises ProjectionRefused if it is gone."""
    with faults():
        for each in generations(conn, name):
            if each.generation == number:
                return each
    raise ProjectionRefused(
        f"generation {number} of {name} was removed meanwhile", remedy=f"stockledger rebuild {name}"
    )


def live(conn: Connection, name: str) -> Generation:
    """The live generation. Raises ProjectionRefused if the projection isn't known here yet."""
    with faults():
        for each in generations(conn, name):
            if each.status == "live":
                return each
    remedy = f"stockledger project {name} --until-caught-up"
    raise ProjectionRefused(f"{name} was never built here", remedy=remedy)


def progress(conn: Connection) -> list[GenerationProgress]:
    """How far each generation of each projection is."""
    with conn.cursor(row_factory=class_row(GenerationProgress)) as cursor:
        return cursor.execute(PROGRESS).fetchall()


def live_position(conn: Connection, name: str) -> int | None:
    """Up to which position readers of the projection see; None if there is none of this name."""
    row = conn.execute(POSITION, (name,)).fetchone()
    return int(row[0]) if row else None


def position(conn: Connection, moving: Moving) -> int:
    """The generation's checkpoint. Raises Contended if it isn't to be moved any more."""
    row = conn.execute(AT, moving._asdict()).fetchone()
    if row is None:
        raise Contended(
            f"generation {moving.generation} of {moving.name} was ended or swapped by another one"
        )
    return int(row[0])


def hold(conn: Connection, moving: Moving) -> int | None:
    """Hold the generation until the transaction ends; returns its position.

    None: another one holds it, or it isn't to be moved any more.
    """
    row = conn.execute(HOLD, moving._asdict()).fetchone()
    return int(row[0]) if row else None


def lock(conn: Connection, name: str) -> None:
    """Hold all generations of the projection: none moves, none is swapped."""
    conn.execute(LOCK, (name,))


def move(conn: Connection, moving: Moving, first: int, last: int) -> None:
    """The checkpoint passes the range. Raises Contended if it doesn't stand right before it."""
    facts = {**moving._asdict(), "first": first, "last": last}
    _one(conn.execute(MOVE, facts).rowcount, moving.name, moving.generation)


def mark(
    conn: Connection, name: str, generation: int, first: int, last: int, share: int = 0, shares: int = 1
) -> None:
    """Note that the share has applied the range, out of order. Raises Contended if part of it was already."""
    facts = {"name": name, "generation": generation, "first": first, "last": last}
    facts |= {"share": share, "shares": shares}
    _one(conn.execute(MARK, facts).rowcount, name, generation)


def absorb(conn: Connection, name: str, generation: int) -> bool:
    """What was applied out of order joins the checkpoint, if it leaves no hole."""
    facts = {"name": name, "generation": generation}
    return conn.execute(ABSORB, facts).rowcount == 1


def _one(changed: int, name: str, generation: int) -> None:
    if changed != 1:
        raise Contended(
            f"generation {generation} of {name} isn't where it was: another one moved or ended it"
        )


def next_generation(conn: Connection, name: str) -> int:
    """The number that the projection's next generation gets."""
    row = conn.execute(NEXT, (name,)).fetchone()
    assert row is not None
    return int(row[0])


def add_generation(
    conn: Connection, name: str, version: int, relation: str, status: str, *, inline: bool
) -> int:
    """Note a new generation, at position 0; returns its number."""
    facts = {"name": name, "version": version, "relation": relation, "status": status, "inline": inline}
    number = next_generation(conn, name)
    conn.execute(BEGIN, {**facts, "generation": number})
    return number


def restore_inline(conn: Connection, name: str, version: int, relation: str) -> None:
    """The row of the generation that batches write, by the head's word, if it was lost."""
    conn.execute(RESTORE_INLINE, {"name": name, "version": version, "relation": relation})


def adopt(conn: Connection, name: str, relation: str) -> None:
    """Note generations that the pointer has lost, to be dropped: nobody knows how far they are."""
    conn.execute(ADOPT, {"name": name, "relation": relation})


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
    """Where an inline generation stands that has just ceased to be live; under the head's lock.

    Raises Contended if it is none, or stands beyond that.
    """
    facts = {"name": name, "generation": generation, "position": position}
    _one(conn.execute(SET_POSITION, facts).rowcount, name, generation)


def set_live_stock(conn: Connection, generation: int) -> None:
    """Batches that loaded another generation can't seal any more. Needs the database's owner."""
    conn.execute(SET_LIVE_STOCK, (generation,))


def forget(conn: Connection, name: str, generation: int) -> None:
    """Note that the generation's table is gone."""
    conn.execute(FORGET, (name, generation))
