"""Keep projections current, until told to stop: what `stockledger project` runs.

Several may run side by side: on each generation one works and the others stand by. A projection that can't
apply an event stops there, and is told; the others go on.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from threading import Event

from ledger.errors import Contended, ProjectionFault, Unavailable
from ledger.follow import ensure, follow_once, follows
from ledger.projections.projection import Projection
from ledger.store import projection as pointer
from ledger.store import session, spans
from ledger.store.database import Connection, faults

POLL_INTERVAL_S = 0.1
RECONNECT_FIRST_S = 0.1
RECONNECT_LONGEST_S = 10.0

Applied = Callable[[str, int], None]
"""Told the projection's name and how many events were applied to one of its generations."""
Fault = Callable[[ProjectionFault], None]


class Projector:
    """Follows the journal for these projections; `run` owns its connections and all transactions."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        projections: Sequence[Projection],
        *,
        stop: Event | None = None,
        until_caught_up: bool = False,
        on_applied: Applied | None = None,
        on_fault: Fault | None = None,
    ) -> None:
        self._connect = connect
        self._projections = list(projections)
        self._stop = stop or Event()
        self._until_caught_up = until_caught_up
        self._on_applied = on_applied or (lambda *_: None)
        self._on_fault = on_fault or (lambda _: None)
        self._fault: ProjectionFault | None = None
        self._pause_s = RECONNECT_FIRST_S

    def run(self) -> None:
        """Follow until stopped, or until all is applied that the journal held at the start.

        Raises ProjectionFault at the end if a projection had to stop, Unavailable only if it was to catch up:
        else it connects again, for ever.
        """
        while not self._stop.is_set():
            try:
                with closing(self._connect()) as conn:
                    self._follow(conn)
                    break
            except Unavailable:
                if self._until_caught_up:
                    raise
                self._stop.wait(self._pause_s)
                self._pause_s = min(2 * self._pause_s, RECONNECT_LONGEST_S)
        if self._fault:
            raise self._fault

    def _follow(self, conn: Connection) -> None:
        for projection in self._projections:
            ensure(conn, projection)
        with faults():
            session.prepare_session(conn)
            target = spans.head(conn)
        while self._projections and not self._stop.is_set():
            worked = [self._one(conn, projection) for projection in list(self._projections)]
            self._pause_s = RECONNECT_FIRST_S
            if self._until_caught_up and self._caught_up(conn, target):
                return
            if not any(worked):
                self._stop.wait(POLL_INTERVAL_S)

    def _one(self, conn: Connection, projection: Projection) -> bool:
        try:
            steps = follow_once(conn, projection)
        except Contended:  # a swap, or another projector: look again
            return False
        except ProjectionFault as fault:
            self._projections.remove(projection)
            self._fault = self._fault or fault
            self._on_fault(fault)
            return False
        for step in steps:
            if step.applied:
                self._on_applied(projection.name, step.applied.events)
        return any(step.applied for step in steps)

    def _caught_up(self, conn: Connection, target: int) -> bool:
        with faults():
            return all(
                each.position >= target
                for projection in self._projections
                for each in pointer.generations(conn, projection.name)
                if follows(projection, each)
            )
