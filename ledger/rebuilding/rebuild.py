"""Rebuild a projection beside the live one: build, catch up, compare, swap; the old one goes on following.

Each chunk's rows and its checkpoint are one transaction, and the swap is one, so the process may die at any
point and be started again: it goes on where it was. One builder a projection, held by a session lock; a dead
one is taken over. Needs the database's owner, as `migrate` does.
"""

import time
from dataclasses import dataclass

from ledger import failpoints
from ledger.errors import LedgerError, ProjectionRefused
from ledger.projections.projection import Projection
from ledger.rebuilding.build import build, claim_generation
from ledger.rebuilding.builder import Connect, builder
from ledger.rebuilding.create import FILLFACTOR
from ledger.rebuilding.pace import RebuildPace, RebuildReporter
from ledger.rebuilding.retire import clear, newest_standby, resumable
from ledger.rebuilding.swap import Comparison, Swapped, compare_with_live, differs, swap
from ledger.store.connection.database import Budgets, Connection, faults, rolled_back
from ledger.store.reads import ranges
from ledger.store.tables import partitions, projection_state
from ledger.store.tables.projection_state import Generation

BUDGETS = Budgets(statement_timeout_ms=0, transaction_timeout_ms=0, lock_timeout_ms=10_000)
"""The budgets of its connections: a chunk takes as long as it takes."""
SAMPLE_EVENTS = 50_000


@dataclass(frozen=True)
class RebuildOptions:
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
    projection_state.live(conn, projection.name)
    with faults():
        found = projection_state.generations(conn, projection.name)
        building = next((g for g in found if resumable(projection, g)), None)
        target = ranges.head(conn)
        events = _left(conn, building, target) if building else ranges.events_between(conn, 0, target)
        number = building.generation if building else projection_state.next_generation(conn, projection.name)
    return Plan(projection.name, number, building is not None, events, _sampled(conn, projection, number))


def _left(conn: Connection, generation: Generation, target: int) -> int:
    """How many events its shares lack, all in all."""
    lacking = [ranges.events_between(conn, each.after, each.upto) for each in generation.missing(target)]
    return sum(lacking) // generation.shares


def _sampled(conn: Connection, projection: Projection, number: int) -> float | None:
    """Events a second, over a few of them, in a generation that is rolled back."""
    with faults():
        found = ranges.next_range(conn, 0, ranges.head(conn), SAMPLE_EVENTS)
        if found is None or found.events == 0:
            return None
        with rolled_back(conn):
            partitions.make(conn, projection.table, number + 1, FILLFACTOR)
            begun = time.perf_counter()
            projection.apply(conn, number + 1, found)
            return found.events / (time.perf_counter() - begun)


def rebuild(
    connect: Connect,
    projection: Projection,
    options: RebuildOptions = RebuildOptions(),
    report: RebuildReporter | None = None,
) -> Rebuilt:
    """Build, or go on building, a new generation; compare and swap it.

    Raises RebuildRunning, ProjectionFault (an event can't be applied), ProjectionDiffers (the live one was
    left alone, and the built one is kept for a look), or ProjectionRefused.
    """
    begun = time.perf_counter()
    with builder(connect, projection) as conn:
        clear(conn, projection)
        pace = RebuildPace(report or (lambda _: None), options.max_rate)
        number = claim_generation(conn, projection, options.jobs)
        try:
            pace.start("build", _to_do(conn, projection, number))
            build(connect, conn, projection, number, options.jobs, pace)
            comparison = _compared(conn, projection, number, options, pace)
            pace.phase("swap")
            swapped = swap(conn, projection, number, "building", compared_at=_equal_at(comparison))
        except LedgerError:  # whatever a table that is gone, or a checkpoint that was ended, made of it
            _require_not_cancelled(conn, projection, number)
            raise
        with faults():
            projection_state.note_rate(conn, projection.name, number, pace.rate)
        clear(conn, projection)
    return Rebuilt(projection.name, pace.events, time.perf_counter() - begun, comparison, swapped)


def _equal_at(comparison: Comparison | None) -> int | None:
    return comparison.position if comparison and not comparison.differences else None


def _require_not_cancelled(conn: Connection, projection: Projection, number: int) -> None:
    if conn.closed:
        return
    with faults():
        kept = [g for g in projection_state.generations(conn, projection.name) if g.status != "dropping"]
    if number not in [each.generation for each in kept]:
        raise ProjectionRefused(
            f"the rebuild of {projection.name} was cancelled; the live generation is as it was",
            remedy=f"stockledger rebuild {projection.name}",
        )


def _to_do(conn: Connection, projection: Projection, number: int) -> int:
    with faults():
        return _left(conn, projection_state.find(conn, projection.name, number), ranges.head(conn))


def _compared(
    conn: Connection, projection: Projection, number: int, options: RebuildOptions, pace: RebuildPace
) -> Comparison | None:
    failpoints.hit("rebuild.caught_up")
    if projection_state.live(conn, projection.name).version != projection.version:
        return None
    pace.phase("compare")
    comparison = compare_with_live(conn, projection, number, "building")
    if comparison.differences and not options.accept_differences:
        raise differs(projection, comparison)
    return comparison


def roll_back(connect: Connect, projection: Projection) -> Swapped:
    """Make the standby live again: the same swap, backwards. What is live now goes on following.

    Its rows aren't compared first: a live generation that is wrong is why one rolls back.
    """
    with builder(connect, projection) as conn:
        with faults():
            standby = newest_standby(projection_state.generations(conn, projection.name))
        if standby is None:
            raise ProjectionRefused(
                f"{projection.name} has no standby generation to go back to",
                remedy=f"stockledger rebuild {projection.name}",
            )
        if standby.version != projection.version:
            raise ProjectionRefused(
                f"the standby of {projection.name} was made by version {standby.version}, this is version "
                f"{projection.version}",
                remedy="roll back with the release that has that version",
            )
        return swap(conn, projection, standby.generation, "standby", compared_at=None)
