"""Build a generation: its table, what it lacks chunk by chunk, then its key.

Where the fold allows it, several connections share the work. If it only adds, each takes the next range; if
its rows fall into shares, each applies all ranges to a share of its own. A range and the note that the share
has it (`done`, beyond the checkpoint) are one transaction, so nothing is applied twice however often the
build is killed; when no hole is left, the checkpoint passes over all.
"""

import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing

from ledger import failpoints, signals
from ledger.errors import Contended, ProjectionRefused
from ledger.projections.projection import Projection
from ledger.rebuilding.builder import WORK_MEM, Connect
from ledger.rebuilding.create import FILLFACTOR, FILLFACTOR_INLINE, fit_table
from ledger.rebuilding.fold import fold_range, in_transaction
from ledger.rebuilding.follow import advance
from ledger.rebuilding.pace import RebuildPace
from ledger.store.connection import session
from ledger.store.connection.database import Connection, faults, transaction
from ledger.store.reads import ranges
from ledger.store.reads.ranges import Range
from ledger.store.tables import partitions, projection_state
from ledger.store.tables.projection_state import Generation, Missing

CHUNK_EVENTS = 2_000_000
"""Seconds' worth of work, which is what a SIGKILL costs. Smaller ones write a row more often and take up to
twice as long: see docs/ARCHITECTURE.md."""
RETRIES = 10


def claim_generation(conn: Connection, projection: Projection, jobs: int) -> int:
    """The generation to build: the one begun before, or a new one. Notes who builds it."""
    projection_state.live(conn, projection.name)
    with transaction(conn):
        projection_state.lock(conn, projection.name)
        found = [g for g in projection_state.generations(conn, projection.name) if g.status == "building"]
        if not found:
            if projection.ddl:
                fit_table(conn, projection)
            number = projection_state.add_generation(
                conn, projection.name, projection.version, projection.table, "building",
                inline=projection.inline,
            )  # fmt: skip
            fill = FILLFACTOR_INLINE if projection.inline else FILLFACTOR
            partitions.make(conn, projection.table, number, fill)
            found = [g for g in projection_state.generations(conn, projection.name) if g.generation == number]
        host, parts = socket.gethostname(), shares(projection, jobs)
        projection_state.note_builder(conn, found[0], host, os.getpid(), ranges.head(conn), parts)
    failpoints.hit("rebuild.begin")
    return found[0].generation


def build(
    connect: Connect,
    conn: Connection,
    projection: Projection,
    number: int,
    jobs: int,
    pace: RebuildPace,
) -> None:
    """Fold everything up to where the head is now into the generation, at the pace that was asked for."""
    ranges.summarize_events(conn)
    with faults():
        target = ranges.head(conn)
        first = ranges.next_range(conn, 0, target, CHUNK_EVENTS)
        keyed = partitions.has_key(conn, projection.table, number)
    if not keyed:  # to build an index costs less than to fill it row by row
        if first:
            _build_upto(connect, conn, projection, number, first.last, shares(projection, jobs), pace)
        with faults():
            partitions.add_key(conn, projection.table, number, projection.key)
    jobs = jobs if projection.additive else shares(projection, jobs)
    _build_upto(connect, conn, projection, number, target, jobs, pace)
    failpoints.hit("rebuild.applied")
    with faults():
        partitions.analyze(conn, projection.table, number)


def _build_upto(
    connect: Connect,
    conn: Connection,
    projection: Projection,
    number: int,
    upto: int,
    jobs: int,
    pace: RebuildPace,
) -> None:
    generation = projection_state.find(conn, projection.name, number)
    if any(generation.done) or jobs > 1:
        _build_in_parallel(connect, conn, projection, generation, upto, jobs, pace)
    while True:
        step = advance(
            conn, projection, number, upto=upto, events=pace.chunk(CHUNK_EVENTS), statuses=["building"]
        )
        if step.applied:
            failpoints.hit("rebuild.chunk")
            pace.done(step.applied.events)
        elif not step.busy:
            return


def shares(projection: Projection, jobs: int) -> int:
    """Into how many shares the rows fall: as many as there are jobs, or one."""
    return max(jobs, 1) if projection.divisible else 1


def _build_in_parallel(
    connect: Connect,
    conn: Connection,
    projection: Projection,
    generation: Generation,
    target: int,
    jobs: int,
    pace: RebuildPace,
) -> None:
    """Fold all that is missing up to `target`, over `jobs` connections, or one a share."""
    missing = list(generation.missing(target))
    own = [[each for each in missing if each.share == share] for share in range(generation.shares)]
    queues = [_Ranges(conn, each, generation.shares, pace) for each in own]
    if len(queues) == 1:  # which all jobs take from; else two at one share would wait for each other's rows
        queues *= max(jobs, 1)
    faults_met: list[BaseException] = []

    def work(ranges: _Ranges) -> None:
        try:
            with closing(connect()) as own:
                with faults():
                    session.prepare_session(own, WORK_MEM)
                while not faults_met and (events := ranges.take()):
                    _fold_and_mark(own, projection, generation.generation, events)
                    pace.done(_counted_of(events))
        except BaseException as fault:  # noqa: BLE001 (handed to the caller)
            faults_met.append(fault)

    threads = [
        threading.Thread(target=work, args=(each,), name=f"rebuild-{n}") for n, each in enumerate(queues)
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            signals.join(thread)
    except BaseException as fault:  # Ctrl-C: each ends after the range that it is at
        faults_met.append(fault)
        for thread in threads:
            thread.join()
        raise
    if faults_met:
        raise faults_met[0]
    with transaction(conn):
        complete = projection_state.absorb(conn, projection.name, generation.generation)
        if not complete and any(ranges.given for ranges in queues):
            raise ProjectionRefused(
                f"the rebuild of {projection.name} was ended by another one",
                remedy=f"stockledger rebuild {projection.name}",
            )


def _counted_of(events: Range) -> int:
    """The events of the range that count as the share's, so that those of all shares add up."""
    return events.events * (events.share + 1) // events.shares - events.events * events.share // events.shares


class _Ranges:
    """Hands out what is missing, a range at a time, to whoever asks."""

    def __init__(self, conn: Connection, missing: Iterable[Missing], shares: int, pace: RebuildPace) -> None:
        self.given = False
        self._lock = threading.Lock()
        self._ranges = self._each(conn, missing, shares, pace)

    def take(self) -> Range | None:
        with self._lock:
            return next(self._ranges, None)

    def _each(
        self, conn: Connection, missing: Iterable[Missing], shares: int, pace: RebuildPace
    ) -> Iterator[Range]:
        for share, after, upto in missing:
            at = after
            while at < upto:
                with faults():
                    found = ranges.next_range(conn, at, upto, pace.chunk(CHUNK_EVENTS))
                if found is None:
                    break
                at, self.given = found.last, True
                yield found._replace(share=share, shares=shares)


def _fold_and_mark(conn: Connection, projection: Projection, generation: int, events: Range) -> None:
    def fold() -> None:
        fold_range(conn, projection, generation, events)
        failpoints.hit("rebuild.chunk")
        projection_state.mark(
            conn, projection.name, generation, events.first, events.last, events.share, events.shares
        )

    for attempt in range(RETRIES):
        try:
            in_transaction(conn, projection, generation, [events], fold)
            return
        except Contended:
            if attempt == RETRIES - 1:
                raise
            time.sleep(0.05 * (attempt + 1))
