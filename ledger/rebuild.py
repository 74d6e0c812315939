"""Rebuild a projection beside the live one: build, catch up, compare, swap; the old one goes on following.

Each chunk's rows and its checkpoint are one transaction, and the swap is one, so the process may die at any
point and be started again: it goes on where it was. One builder a projection, held by a session lock; a dead
one is taken over. Needs the database's owner, as `migrate` does.
"""

import os
import socket
import time
from dataclasses import dataclass

from ledger import failpoints
from ledger.builder import Connect, builder
from ledger.catch_up import find, live_of
from ledger.compare import Comparison, compare, differ
from ledger.errors import Contended, ProjectionRefused
from ledger.follow import FILLFACTOR, FILLFACTOR_INLINE, advance
from ledger.jobs import build_in_parallel, shares
from ledger.pace import Pace, Reporter
from ledger.projections.projection import Projection, Range
from ledger.retire import clear, newest_standby, resumable
from ledger.store import generation as tables
from ledger.store import projection as pointer
from ledger.store import spans
from ledger.store.database import Budgets, Connection, faults, rollback, transaction
from ledger.store.projection import Generation
from ledger.swap import Swapped, swap

BUDGETS = Budgets(statement_timeout_ms=0, transaction_timeout_ms=0, lock_timeout_ms=10_000)
"""For its connections: a chunk takes as long as it takes."""
CHUNK_EVENTS = 2_000_000
"""Seconds' worth of work, which is what a SIGKILL costs. Smaller ones write a row more often and take up to
twice as long: see docs/ARCHITECTURE.md."""
SAMPLE_EVENTS = 50_000


@dataclass(frozen=True)
class Options:
    """`max_rate` in events a second while building; `jobs` connections where the fold allows it."""

    max_rate: int | None = None
    jobs: int = 1
    accept_differences: bool = False


@dataclass(frozen=True)
class Plan:
    """What a rebuild would do: the generation, how many events are left, and the measured rate."""

    name: str
    generation: int
    resumes: bool
    events: int
    rate: float | None

    @property
    def seconds(self) -> float | None:
        """The estimate; None if there was nothing to measure."""
        return self.events / self.rate if self.rate else None


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild did. `comparison` is None where another version made the live one."""

    name: str
    events: int
    seconds: float
    comparison: Comparison | None
    swapped: Swapped


def plan(conn: Connection, projection: Projection) -> Plan:
    """Look, and try the fold on a few events; everything that this writes is rolled back."""
    live_of(conn, projection)
    with faults():
        found = pointer.generations(conn, projection.name)
        building = next((g for g in found if resumable(projection, g)), None)
        target = spans.head(conn)
        events = _left(conn, building, target) if building else spans.events_between(conn, 0, target)
    number = building.generation if building else found[-1].generation + 1
    return Plan(projection.name, number, building is not None, events, _sampled(conn, projection, number))


def _left(conn: Connection, generation: Generation, target: int) -> int:
    """How many events its shares lack, all in all."""
    lacking = [spans.events_between(conn, each.after, each.upto) for each in generation.missing(target)]
    return sum(lacking) // generation.shares


def _sampled(conn: Connection, projection: Projection, number: int) -> float | None:
    """Events a second, over a few of them, in a generation that is rolled back."""
    with faults():
        span = spans.span(conn, 0, spans.head(conn), SAMPLE_EVENTS)
        if span is None or span.events == 0:
            return None
        conn.execute("BEGIN")
        try:
            tables.make(conn, projection.table, number + 1, FILLFACTOR)
            begun = time.perf_counter()
            projection.apply(conn, number + 1, Range(*span))
            return span.events / (time.perf_counter() - begun)
        finally:
            rollback(conn)


def rebuild(
    connect: Connect, projection: Projection, options: Options = Options(), report: Reporter | None = None
) -> Rebuilt:
    """Build, or go on building, a new generation; compare and swap it.

    Raises RebuildRunning, ProjectionFault (an event can't be applied), ProjectionDiffers (the live one was
    left alone, and the built one is kept for a look), or ProjectionRefused.
    """
    begun = time.perf_counter()
    with builder(connect, projection) as conn:
        clear(conn, projection)
        pace = Pace(report or (lambda _: None), options.max_rate)
        number = _begin(conn, projection, options, pace)
        try:
            _build(connect, conn, projection, number, options, pace)
            comparison = _compared(conn, projection, number, options, pace)
            pace.phase("swap")
            swapped = swap(conn, projection, number, "building", compared_at=_equal_at(comparison))
        except Contended:
            _require_building(conn, projection, number)
            raise
        with faults():
            pointer.note_rate(conn, projection.name, number, pace.rate)
        clear(conn, projection)
    return Rebuilt(projection.name, pace.events, time.perf_counter() - begun, comparison, swapped)


def _equal_at(comparison: Comparison | None) -> int | None:
    return comparison.position if comparison and not comparison.differences else None


def _require_building(conn: Connection, projection: Projection, number: int) -> None:
    if find(conn, projection, number).status != "building":
        raise ProjectionRefused(f"the rebuild of {projection.name} was cancelled")


def _begin(conn: Connection, projection: Projection, options: Options, pace: Pace) -> int:
    """The generation to build: the one begun before, or a new one."""
    live_of(conn, projection)
    with transaction(conn):
        pointer.lock(conn, projection.name)
        found = [g for g in pointer.generations(conn, projection.name) if g.status == "building"]
        if not found:
            number = pointer.begin(
                conn, projection.name, projection.version, "building", inline=projection.inline
            )
            fill = FILLFACTOR_INLINE if projection.inline else FILLFACTOR
            tables.make(conn, projection.table, number, fill)
            found = [g for g in pointer.generations(conn, projection.name) if g.generation == number]
        host, parts = socket.gethostname(), shares(projection, options.jobs)
        pointer.note_builder(conn, found[0], host, os.getpid(), spans.head(conn), parts)
    failpoints.hit("rebuild.begin")
    with faults():
        pace.begin("build", _left(conn, find(conn, projection, found[0].generation), spans.head(conn)))
    return found[0].generation


def _build(
    connect: Connect,
    conn: Connection,
    projection: Projection,
    number: int,
    options: Options,
    pace: Pace,
) -> None:
    """Apply everything up to where the head is now, at the pace that was asked for."""
    spans.summarize(conn)
    with faults():
        target = spans.head(conn)
        first = spans.span(conn, 0, target, CHUNK_EVENTS)
        keyed = tables.has_key(conn, projection.table, number)
    if not keyed:  # to build an index costs less than to fill it row by row
        if first:
            _apply(connect, conn, projection, number, first.last, shares(projection, options.jobs), pace)
        with faults():
            tables.add_key(conn, projection.table, number, projection.key)
    jobs = options.jobs if projection.additive else shares(projection, options.jobs)
    _apply(connect, conn, projection, number, target, jobs, pace)
    failpoints.hit("rebuild.applied")
    with faults():
        tables.analyze(conn, projection.table, number)


def _apply(
    connect: Connect,
    conn: Connection,
    projection: Projection,
    number: int,
    upto: int,
    jobs: int,
    pace: Pace,
) -> None:
    generation = find(conn, projection, number)
    if generation.done or jobs > 1:
        build_in_parallel(connect, conn, projection, generation, upto, jobs, CHUNK_EVENTS, pace)
    while True:
        step = advance(
            conn, projection, number, upto=upto, events=pace.chunk(CHUNK_EVENTS), statuses=["building"]
        )
        if step.applied:
            failpoints.hit("rebuild.chunk")
            pace.done(step.applied.events)
        elif not step.busy:
            return


def _compared(
    conn: Connection, projection: Projection, number: int, options: Options, pace: Pace
) -> Comparison | None:
    failpoints.hit("rebuild.caught_up")
    if live_of(conn, projection).version != projection.version:
        return None
    pace.phase("compare")
    comparison = compare(conn, projection, number, "building")
    if comparison.differences and not options.accept_differences:
        raise differ(projection, comparison)
    return comparison


def roll_back(connect: Connect, projection: Projection) -> Swapped:
    """Make the standby live again: the same swap, backwards. What is live now goes on following.

    Its rows aren't compared first: a live generation that is wrong is why one rolls back.
    """
    with builder(connect, projection) as conn:
        with faults():
            standby = newest_standby(pointer.generations(conn, projection.name))
        if standby is None:
            raise ProjectionRefused(f"{projection.name} has no standby generation to go back to")
        if standby.version != projection.version:
            raise ProjectionRefused(
                f"the standby of {projection.name} was made by version {standby.version}, this is version "
                f"{projection.version}",
                remedy="roll back with the release that has that version",
            )
        return swap(conn, projection, standby.generation, "standby", compared_at=None)
