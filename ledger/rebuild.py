"""Rebuild a projection beside the live one: build, catch up, compare, swap; the old one goes on following.

Each chunk's rows and its checkpoint are one transaction, and the swap is one, so the process may die at any
point and be started again: it goes on where it was. One builder a projection, held by a session lock; a dead
one is taken over. Needs the database's owner, as `migrate` does.
"""

import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass

from ledger import failpoints
from ledger.builder import Connect, builder
from ledger.errors import Contended, ProjectionRefused
from ledger.follow import FILLFACTOR, FILLFACTOR_INLINE, advance
from ledger.jobs import build_in_parallel
from ledger.pace import Pace, Reporter
from ledger.projections.projection import Projection, Range
from ledger.retire import clear, newest_standby, resumable
from ledger.store import generation as tables
from ledger.store import projection as pointer
from ledger.store.database import Budgets, Connection, faults, rollback, transaction
from ledger.swap import Comparison, Swapped, compare, differ, find, live_of, swap

BUDGETS = Budgets(statement_timeout_ms=0, transaction_timeout_ms=0, lock_timeout_ms=10_000)
"""For its connections: a chunk takes as long as it takes."""
CHUNK_EVENTS = 2_000_000
"""A few seconds' worth. Fewer and larger ones write a row less often: see docs/ARCHITECTURE.md."""
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
        after = building.position if building else 0
        events = pointer.events_between(conn, after, pointer.head(conn))
        if building:
            events -= sum(
                pointer.events_between(conn, (r.lower or 1) - 1, (r.upper or 1) - 1) for r in building.done
            )
    number = building.generation if building else found[-1].generation + 1
    return Plan(projection.name, number, building is not None, events, _sampled(conn, projection, number))


def _sampled(conn: Connection, projection: Projection, number: int) -> float | None:
    """Events a second, over a few of them, in a generation that is rolled back."""
    with faults():
        span = pointer.span(conn, 0, pointer.head(conn), SAMPLE_EVENTS)
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
        number = _begin(conn, projection, pace)
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


def _begin(conn: Connection, projection: Projection, pace: Pace) -> int:
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
        pointer.note_builder(conn, found[0], socket.gethostname(), os.getpid(), pointer.head(conn))
    failpoints.hit("rebuild.begin")
    with faults():
        target = pointer.head(conn)
        pace.begin("build", pointer.events_between(conn, found[0].position, target))
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
    with suppress(Contended), faults():  # a vacuum that is at it does the same
        pointer.summarize(conn)
    with faults():
        target = pointer.head(conn)
    generation = find(conn, projection, number)
    if generation.done or (options.jobs > 1 and projection.additive):
        build_in_parallel(connect, conn, projection, generation, target, options.jobs, pace)
    while True:
        step = advance(
            conn, projection, number, upto=target, events=pace.chunk(CHUNK_EVENTS), statuses=["building"]
        )
        if step.applied:
            failpoints.hit("rebuild.chunk")
            pace.done(step.applied.events)
        elif not step.busy:
            break
    failpoints.hit("rebuild.applied")
    with faults():
        tables.analyze(conn, projection.table, number)


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
