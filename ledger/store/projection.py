"""The pointer: which generation of a projection is live, how far each is, and who builds the next one.

Checkpoints are moved by compare-and-set, in the transaction that applies the range. At most one generation of
a projection is live and one building (unique indexes). The caller owns the transaction.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from psycopg.rows import class_row
from psycopg.types.range import Range as PgRange

from ledger.errors import Contended
from ledger.store.database import Connection


@dataclass(frozen=True)
class Generation:
    """One built copy of a projection. `done` are ranges applied out of order, beyond `position`."""

    name: str
    generation: int
    version: int
    status: str
    inline: bool
    position: int
    done: list[PgRange[int]]
    target: int
    rate: float | None
    builder_host: str | None
    builder_pid: int | None
    backend_pid: int | None
    backend_start: datetime | None
    started_at: datetime
    swapped_at: datetime | None


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


class Span(NamedTuple):
    """A range of positions, of the entries that they have, and how many events these hold."""

    first: int
    last: int
    first_entry: int
    last_entry: int
    events: int


class Broken(NamedTuple):
    """Where an event stands, and what it is."""

    position: int
    ordinal: int
    stream: str
    type: str


GENERATIONS = """
SELECT name, generation, version, status, inline, position,
       ARRAY(SELECT r FROM unnest(done) r) AS done, target, rate,
       builder_host, builder_pid, backend_pid, backend_start, started_at, swapped_at
FROM ledger.projection WHERE name = %s ORDER BY generation
"""
PROGRESS = """
SELECT name, generation, version, status, position, lag, lag_seconds FROM ledger.projections
"""
POSITION = "SELECT position FROM ledger.projections WHERE name = %s AND status = 'live'"
ENTRIES_MAX = 100_000
AT = "SELECT position FROM ledger.projection WHERE name = %s AND generation = %s AND status = ANY(%s)"
HEAD = "SELECT coalesce(max(position), 0) FROM ledger.journal_entries"
# Whoever holds the row works; the others pass by, and look again later.
HOLD = """
SELECT position FROM ledger.projection
WHERE name = %s AND generation = %s AND status = ANY(%s) FOR NO KEY UPDATE SKIP LOCKED
"""
LOCK = "SELECT generation FROM ledger.projection WHERE name = %s ORDER BY generation FOR UPDATE"
# In a statement of its own: known bounds make the block range index usable.
SPAN = """
SELECT min(position), max(position), min(entry), max(entry), coalesce(sum(applied), 0)::bigint
FROM (SELECT position, entry, applied, sum(applied) OVER (ORDER BY position) - applied AS before
      FROM (SELECT position, entry, applied FROM ledger.journal
            WHERE position > %(after)s AND position <= %(upto)s ORDER BY position LIMIT %(entries)s) j) j
WHERE before < %(events)s
"""
EVENTS_BETWEEN = """
SELECT coalesce(sum(applied), 0)::bigint FROM ledger.journal WHERE position > %s AND position <= %s
"""
MOVE = """
UPDATE ledger.projection SET position = %(last)s
WHERE name = %(name)s AND generation = %(generation)s AND position = %(first)s - 1
  AND status = ANY(%(statuses)s)
"""
MARK = """
UPDATE ledger.projection SET done = done + int8multirange(int8range(%(first)s, %(last)s, '[]'))
WHERE name = %(name)s AND generation = %(generation)s AND status = 'building' AND position < %(first)s
  AND NOT done && int8range(%(first)s, %(last)s, '[]')
"""
ABSORB = """
UPDATE ledger.projection SET position = upper(done) - 1, done = '{}'
WHERE name = %s AND generation = %s AND done = int8multirange(int8range(position + 1, upper(done)))
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
    target = %(target)s
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
# Transactions that write have a number. All that might have begun before the horizon was read are below it.
HORIZON = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
PASSED = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= %s"
SWAP_BUDGET = "SELECT set_config('statement_timeout', %s, true)"
# One builder a projection: the lock goes with the session, so with the process.
TRY_BUILDER_LOCK = "SELECT pg_try_advisory_lock(hashtextextended('stockledger.rebuild.' || %s, 0))"
TERMINATE = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid = %s AND backend_start = %s
"""
PLACES = """
SELECT j.position, e.ordinal, e.stream, e.type
FROM ledger.event e JOIN ledger.journal j USING (entry)
WHERE e.entry BETWEEN %(first_entry)s AND %(last_entry)s AND j.position BETWEEN %(first)s AND %(last)s
  AND e.ordinal BETWEEN %(first_ordinal)s AND %(last_ordinal)s
ORDER BY j.position, e.ordinal
"""
# New blocks are unknown to the block range index until a vacuum comes by: every range would read them.
SUMMARIZE = "SELECT brin_summarize_new_values('ledger.event_entry')"
SESSION = """
SELECT set_config('work_mem', %s, false), set_config('jit', 'off', false),
       set_config('max_parallel_workers_per_gather', '0', false),
       set_config('client_connection_check_interval', '1000', false)
"""


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


def head(conn: Connection) -> int:
    """The journal's last position, for whoever may read the views."""
    row = conn.execute(HEAD).fetchone()
    assert row is not None
    return int(row[0])


def hold(conn: Connection, name: str, generation: int, statuses: list[str]) -> int | None:
    """Hold the generation until the transaction ends; returns its position. None: another one holds it."""
    row = conn.execute(HOLD, (name, generation, statuses)).fetchone()
    return int(row[0]) if row else None


def lock(conn: Connection, name: str) -> None:
    """Hold all generations of the projection: none moves, none is swapped."""
    conn.execute(LOCK, (name,))


def span(conn: Connection, after: int, upto: int, events: int) -> Span | None:
    """The entries that follow `after`, up to `upto` or about so many events; None if there are none."""
    entries = max(1, min(events, ENTRIES_MAX))
    row = conn.execute(SPAN, {"after": after, "upto": upto, "events": events, "entries": entries}).fetchone()
    return Span(*row) if row and row[0] is not None else None


def events_between(conn: Connection, after: int, upto: int) -> int:
    """How many events the journal counts behind `after`, up to `upto`."""
    row = conn.execute(EVENTS_BETWEEN, (after, upto)).fetchone()
    assert row is not None
    return int(row[0])


def move(conn: Connection, name: str, generation: int, first: int, last: int, statuses: list[str]) -> None:
    """The checkpoint passes the range. Raises Contended if it doesn't stand right before it."""
    facts = {"name": name, "generation": generation, "first": first, "last": last, "statuses": statuses}
    _one(conn.execute(MOVE, facts).rowcount, name, generation)


def mark(conn: Connection, name: str, generation: int, first: int, last: int) -> None:
    """Note that the range is applied, out of order. Raises Contended if part of it was already."""
    facts = {"name": name, "generation": generation, "first": first, "last": last}
    _one(conn.execute(MARK, facts).rowcount, name, generation)


def absorb(conn: Connection, name: str, generation: int) -> bool:
    """What was applied out of order joins the checkpoint, if it leaves no hole."""
    return conn.execute(ABSORB, (name, generation)).rowcount == 1


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


def note_builder(conn: Connection, generation: Generation, host: str, pid: int, target: int) -> None:
    """Write down who builds it, and up to where it will be built."""
    facts = {"host": host, "pid": pid, "target": target}
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


def horizon(conn: Connection) -> int:
    """A mark: every transaction that writes and runs now is below it."""
    row = conn.execute(HORIZON).fetchone()
    assert row is not None
    return int(row[0])


def passed(conn: Connection, mark: int) -> bool:
    """Whether all transactions below the mark have ended."""
    return conn.execute(PASSED, (mark,)).fetchone() == (True,)


def try_builder_lock(conn: Connection, name: str) -> bool:
    """Become the one builder of the projection, until the session ends."""
    return conn.execute(TRY_BUILDER_LOCK, (name,)).fetchone() == (True,)


def terminate(conn: Connection, generation: Generation) -> None:
    """End the builder's session, if it is still the one that was noted."""
    conn.execute(TERMINATE, (generation.backend_pid, generation.backend_start))


def places(conn: Connection, parameters: dict[str, int]) -> list[Broken]:
    """The events of a (short) range, in order."""
    return [Broken(*row) for row in conn.execute(PLACES, parameters)]


def prepare_session(conn: Connection, work_mem: str = "64MB") -> None:
    """For folds: room to sort, no compilation, and an end soon after the client is gone.

    No parallel workers: what writes has none anyway, and a comparison's would fill a small /dev/shm.
    """
    conn.execute(SESSION, (work_mem,))


def summarize(conn: Connection) -> None:
    """Make the newest events findable by their entry. Needs the database's owner."""
    conn.execute(SUMMARIZE)
