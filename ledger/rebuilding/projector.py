"""Keep projections current, until told to stop: what `stockledger project` runs.

Several may run side by side: on each generation one works and the others stand by. A projection that can't
go on stops there, and is told; the others go on. A range that takes longer than its statement may is halved;
what is waited for is told, never retried in silence.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from ledger.errors import Contended, LedgerError, ProjectionBroken, ProjectionRefused, Unavailable
from ledger.projections.projection import Projection, origin
from ledger.rebuilding.create import ensure
from ledger.rebuilding.follow import RANGE_EVENTS, follow_once, follows
from ledger.store.connection import session
from ledger.store.connection.database import Connection, faults
from ledger.store.reads import ranges
from ledger.store.tables import projection_state
from ledger.store.tables.projection_state import GenerationProgress

POLL_INTERVAL_S = 0.1
RECONNECT_FIRST_S = 0.1
RECONNECT_LONGEST_S = 10.0
STATUS_INTERVAL_S = 10.0
SUMMARIZE_INTERVAL_S = 1.0
"""Each range reads the blocks that no index knows yet: those of so many seconds."""
SAY_AGAIN_S = 60.0
LOST_UNTOLD_MAX = 10
"""So many races in a row are nobody's business."""
TOO_SLOW_MAX = 3
"""So often a range that can't be made smaller may take too long."""
SMALLER = 10
CANCELLED, LOCKED = "57014", "55P03"
"""The server ended a statement that took too long; a wait for a lock."""


class Told(Protocol):
    """What a projector tells whoever runs it. Who inherits hears only what it defines."""

    status_interval_s: float = STATUS_INTERVAL_S

    def moved(self) -> None:
        """Its loop goes on, or waits for what it knows."""
        return

    def ready(self, projections: Sequence[str]) -> None:
        """It is connected, and follows these."""
        return

    def applied(self, name: str, events: int) -> None:
        """So many events were applied to one of the projection's generations."""
        return

    def waiting(self, cause: LedgerError, name: str = "") -> None:
        """It can't go on for now: the server is away (told once), or somebody is in the projection's way."""
        return

    def back(self) -> None:
        """The server answers again."""
        return

    def status(self, progress: Sequence[GenerationProgress]) -> None:
        """How far each generation is, every few seconds."""
        return

    def fault(self, fault: LedgerError) -> None:
        """A projection stopped; the others go on."""
        return


class _Nobody(Told):
    """Hears nothing."""


@dataclass
class _Followed:
    """A projection and how it goes: the size of a range, and how often in a row it came to nothing."""

    projection: Projection
    ensured: bool = False
    events: int = RANGE_EVENTS
    lost: int = 0
    too_slow: int = 0
    refused: LedgerError | None = None


class Projector:
    """Follows the journal for these projections; `run` owns its connections and all transactions."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        projections: Sequence[Projection],
        *,
        stop: Event | None = None,
        until_caught_up: bool = False,
        told: Told | None = None,
    ) -> None:
        self._connect = connect
        self._followed = [_Followed(each) for each in projections]
        self._stop = stop or Event()
        self._until_caught_up = until_caught_up
        self._told = told or _Nobody()
        self._fault: LedgerError | None = None
        self._pause_s = RECONNECT_FIRST_S
        self._away_for, self._say_again_due = "", 0.0
        self._was_ready = False

    def run(self) -> None:
        """Follow until stopped, or until all is applied that the journal held at the start.

        Raises the first fault at the end if a projection had to stop, Unavailable only if it was to catch up:
        else it connects again, for ever.
        """
        while not self._stop.is_set():
            try:
                with closing(self._connect()) as conn:
                    self._follow(conn)
                    break
            except Unavailable as cause:
                if self._until_caught_up:
                    raise
                self._wait(cause)
        if fault := self._fault or next((each.refused for each in self._followed if each.refused), None):
            raise fault

    def _wait(self, cause: Unavailable) -> None:
        if cause.code != self._away_for or time.monotonic() > self._say_again_due:
            self._told.waiting(cause)
            self._away_for, self._say_again_due = cause.code, time.monotonic() + SAY_AGAIN_S
        self._told.moved()
        self._stop.wait(self._pause_s)
        self._pause_s = min(2 * self._pause_s, RECONNECT_LONGEST_S)

    def _follow(self, conn: Connection) -> None:
        with faults():
            session.prepare_session(conn)
            target = ranges.head(conn)
        self._connected()
        ranges.summarize_events(conn)
        status_at = time.monotonic() + self._told.status_interval_s
        summarize_at = time.monotonic() + SUMMARIZE_INTERVAL_S
        while self._followed and not self._stop.is_set():
            self._told.moved()
            worked = [self._one(conn, each) for each in list(self._followed)]
            self._pause_s = RECONNECT_FIRST_S
            if self._until_caught_up and self._caught_up(conn, target):
                return
            if time.monotonic() > status_at:
                status_at = time.monotonic() + self._told.status_interval_s
                self._tell_status(conn)
            if not any(worked):
                self._stop.wait(POLL_INTERVAL_S)
            elif time.monotonic() >= summarize_at:
                ranges.summarize_events(conn)
                summarize_at = time.monotonic() + SUMMARIZE_INTERVAL_S

    def _connected(self) -> None:
        if self._away_for and self._was_ready:
            self._told.back()
        if not self._was_ready:
            self._told.ready([each.projection.name for each in self._followed])
        self._away_for, self._was_ready = "", True

    def _tell_status(self, conn: Connection) -> None:
        names = {each.projection.name for each in self._followed}
        with faults():
            self._told.status([each for each in projection_state.progress(conn) if each.name in names])

    def _one(self, conn: Connection, each: _Followed) -> bool:
        try:
            if not each.ensured:
                ensure(conn, each.projection)
                self._look_at_version(conn, each)
            each.ensured = True
            steps = follow_once(conn, each.projection, each.events)
        except Unavailable:
            raise
        except Contended as lost:  # a swap, another projector, a lock, a statement that took too long
            self._lost(each, lost)
            return False
        except LedgerError as fault:
            self._give_up(each, fault)
            return False
        applied = [step.applied for step in steps if step.applied]
        if applied:
            each.events, each.lost, each.too_slow = min(2 * each.events, RANGE_EVENTS), 0, 0
            each.refused = None
        for events in applied:
            self._told.applied(each.projection.name, events.events)
        return bool(applied)

    def _lost(self, each: _Followed, lost: Contended) -> None:
        each.lost += 1
        if lost.sqlstate == CANCELLED:
            each.too_slow += each.events == 1
            each.events = max(1, each.events // SMALLER)
        if each.too_slow >= TOO_SLOW_MAX:
            what = f"{each.projection.name} ({origin(each.projection)})"
            self._give_up(
                each,
                ProjectionBroken(
                    f"{what} takes longer to apply one entry than its statement may: {lost.message}; it was "
                    f"tried {TOO_SLOW_MAX} times, its checkpoint stays, and the other projections go on",
                    remedy=f"make its fold faster, then: stockledger project {each.projection.name}",
                ),
            )
        elif each.lost % LOST_UNTOLD_MAX == (1 if lost.sqlstate in (CANCELLED, LOCKED) else 0):
            self._told.waiting(lost, each.projection.name)

    def _look_at_version(self, conn: Connection, each: _Followed) -> None:
        """Nobody follows what another version made: that is told, once, and again at the end."""
        with faults():
            found = projection_state.generations(conn, each.projection.name)
        live = next((g for g in found if g.status == "live"), None)
        if live and live.version != each.projection.version:
            each.refused = ProjectionRefused(
                f"the live generation of {each.projection.name} was made by version {live.version}, this is "
                f"version {each.projection.version} ({origin(each.projection)}): nobody follows it",
                remedy=f"stockledger rebuild {each.projection.name} --yes",
            )
            self._told.fault(each.refused)

    def _give_up(self, each: _Followed, fault: LedgerError) -> None:
        self._followed.remove(each)
        self._fault = self._fault or fault
        self._told.fault(fault)

    def _caught_up(self, conn: Connection, target: int) -> bool:
        with faults():
            return all(
                generation.position >= target
                for each in self._followed
                for generation in projection_state.generations(conn, each.projection.name)
                if follows(each.projection, generation)
            )
