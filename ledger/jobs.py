"""Apply disjoint ranges of the journal side by side, for a projection that only adds.

Each range and the note that it is done (`done`, beyond the checkpoint) are one transaction, so nothing is
applied twice however often the build is killed; when no hole is left, the checkpoint passes over all.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

from ledger import failpoints
from ledger.errors import Contended, ProjectionRefused
from ledger.follow import fold_range, in_transaction
from ledger.pace import Pace
from ledger.projections.projection import Projection, Range
from ledger.store import projection as pointer
from ledger.store.database import Connection, faults, transaction
from ledger.store.projection import Generation

CHUNK_EVENTS = 200_000
RETRIES = 10


def build_in_parallel(
    connect: Callable[[], Connection],
    conn: Connection,
    projection: Projection,
    generation: Generation,
    target: int,
    jobs: int,
    pace: Pace,
) -> None:
    """Apply all that is missing up to `target`, over `jobs` connections."""
    ranges = _Ranges(conn, generation, target, pace)
    faults_met: list[BaseException] = []

    def work() -> None:
        try:
            with closing(connect()) as own:
                with faults():
                    pointer.prepare_session(own)
                while not faults_met and (events := ranges.take()):
                    _apply(own, projection, generation.generation, events)
                    pace.done(events.events)
        except BaseException as fault:  # noqa: BLE001 (handed to the caller)
            faults_met.append(fault)

    threads = [threading.Thread(target=work, name=f"rebuild-{n}") for n in range(max(jobs, 1))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException as fault:  # Ctrl-C: each ends behind the range that it is at
        faults_met.append(fault)
        for thread in threads:
            thread.join()
        raise
    if faults_met:
        raise faults_met[0]
    with transaction(conn):
        if not pointer.absorb(conn, projection.name, generation.generation) and ranges.given:
            raise ProjectionRefused(f"the rebuild of {projection.name} was ended by another one")


class _Ranges:
    """Hands out what is missing, a range at a time, to whoever asks."""

    def __init__(self, conn: Connection, generation: Generation, target: int, pace: Pace) -> None:
        self.given = False
        self._lock = threading.Lock()
        self._ranges = self._missing(conn, generation, target, pace)

    def take(self) -> Range | None:
        with self._lock:
            return next(self._ranges, None)

    def _missing(self, conn: Connection, generation: Generation, target: int, pace: Pace) -> Iterator[Range]:
        after = generation.position
        holes = []
        for done in generation.done:
            holes.append((after, (done.lower or 0) - 1))
            after = (done.upper or 0) - 1
        for first, upto in [*holes, (after, max(after, target))]:
            at = first
            while at < upto:
                with faults():
                    span = pointer.span(conn, at, upto, pace.chunk(CHUNK_EVENTS))
                if span is None:
                    break
                at, self.given = span.last, True
                yield Range(*span)


def _apply(conn: Connection, projection: Projection, generation: int, events: Range) -> None:
    def fold() -> None:
        fold_range(conn, projection, generation, events)
        failpoints.hit("rebuild.chunk")
        pointer.mark(conn, projection.name, generation, events.first, events.last)

    for attempt in range(RETRIES):
        try:
            in_transaction(conn, projection, generation, [events], fold)
            return
        except Contended:
            if attempt == RETRIES - 1:
                raise
            time.sleep(0.05 * (attempt + 1))
