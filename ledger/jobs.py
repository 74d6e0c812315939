"""Apply what a build lacks over several connections, for a projection whose fold allows it.

Where it only adds, each takes the next range; where its rows fall into shares, each applies all ranges to a
share of its own. A range and the note that the share has it (`done`, beyond the checkpoint) are one
transaction, so nothing is applied twice however often the build is killed; when no hole is left, the
checkpoint passes over all.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing

from ledger import failpoints
from ledger.builder import WORK_MEM
from ledger.errors import Contended, ProjectionRefused
from ledger.follow import fold_range, in_transaction
from ledger.pace import Pace
from ledger.projections.projection import Projection, Range
from ledger.store import projection as pointer
from ledger.store import session, spans
from ledger.store.database import Connection, faults, transaction
from ledger.store.projection import Generation, Missing

RETRIES = 10


def shares(projection: Projection, jobs: int) -> int:
    """Into how many shares the rows fall: as many as there are jobs, or one."""
    return max(jobs, 1) if projection.divisible else 1


def build_in_parallel(
    connect: Callable[[], Connection],
    conn: Connection,
    projection: Projection,
    generation: Generation,
    target: int,
    jobs: int,
    chunk: int,
    pace: Pace,
) -> None:
    """Apply all that is missing up to `target`, over `jobs` connections, or one a share."""
    missing = list(generation.missing(target))
    own = [[each for each in missing if each.share == share] for share in range(generation.shares)]
    queues = [_Ranges(conn, each, generation.shares, chunk, pace) for each in own]
    if len(queues) == 1:  # which all jobs take from; else two at one share would wait for each other's rows
        queues *= max(jobs, 1)
    faults_met: list[BaseException] = []

    def work(ranges: _Ranges) -> None:
        try:
            with closing(connect()) as own:
                with faults():
                    session.prepare_session(own, WORK_MEM)
                while not faults_met and (events := ranges.take()):
                    _apply(own, projection, generation.generation, events)
                    pace.done(_part(events))
        except BaseException as fault:  # noqa: BLE001 (handed to the caller)
            faults_met.append(fault)

    threads = [
        threading.Thread(target=work, args=(each,), name=f"rebuild-{n}") for n, each in enumerate(queues)
    ]
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
        complete = pointer.absorb(conn, projection.name, generation.generation)
        if not complete and any(ranges.given for ranges in queues):
            raise ProjectionRefused(f"the rebuild of {projection.name} was ended by another one")


def _part(events: Range) -> int:
    """The events of the range that count as the share's, so that those of all shares add up."""
    return events.events * (events.share + 1) // events.shares - events.events * events.share // events.shares


class _Ranges:
    """Hands out what is missing, a range at a time, to whoever asks."""

    def __init__(
        self, conn: Connection, missing: Iterable[Missing], shares: int, chunk: int, pace: Pace
    ) -> None:
        self.given = False
        self._lock = threading.Lock()
        self._ranges = self._each(conn, missing, shares, chunk, pace)

    def take(self) -> Range | None:
        with self._lock:
            return next(self._ranges, None)

    def _each(
        self, conn: Connection, missing: Iterable[Missing], shares: int, chunk: int, pace: Pace
    ) -> Iterator[Range]:
        for share, after, upto in missing:
            at = after
            while at < upto:
                with faults():
                    span = spans.span(conn, at, upto, pace.chunk(chunk))
                if span is None:
                    break
                at, self.given = span.last, True
                yield Range(*span, share=share, shares=shares)


def _apply(conn: Connection, projection: Projection, generation: int, events: Range) -> None:
    def fold() -> None:
        fold_range(conn, projection, generation, events)
        failpoints.hit("rebuild.chunk")
        pointer.mark(
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
