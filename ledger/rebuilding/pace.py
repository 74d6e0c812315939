"""How fast a rebuild goes, and how fast it may go: rate, time left, throttle. Its threads share it."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

CHUNK_S = 0.25
"""A throttled rebuild applies at most about so many seconds' worth of events at a time."""
CHUNK_MIN = 100


@dataclass(frozen=True)
class RebuildProgress:
    """How far a rebuild is. `rate` is in events a second; `eta_s` is None while that is unknown."""

    phase: str
    events: int
    total: int
    rate: float
    eta_s: float | None


RebuildReporter = Callable[[RebuildProgress], None]


class RebuildPace:
    """Counts what is done, tells `report`, and sleeps where `max_rate` (events a second) asks for it."""

    def __init__(self, report: RebuildReporter, max_rate: int | None = None) -> None:
        self.events = 0
        self._report, self._max_rate = report, max_rate
        self._total = 0
        self._phase = "build"
        self._begun = time.monotonic()
        self._lock = threading.Lock()

    @property
    def rate(self) -> float:
        """Events a second so far."""
        return self.events / max(time.monotonic() - self._begun, 1e-9)

    def start(self, phase: str, total: int) -> None:
        """Work on so many events begins now."""
        self._phase, self._total, self._begun = phase, total, time.monotonic()
        self._tell()

    def phase(self, phase: str) -> None:
        """The next phase begins now."""
        self._phase = phase
        self._tell()

    def chunk(self, most: int) -> int:
        """How many events to apply at a time."""
        if self._max_rate is None:
            return most
        return min(most, max(CHUNK_MIN, int(self._max_rate * CHUNK_S)))

    def done(self, events: int) -> None:
        """So many more events are applied. Returns when the next ones may be."""
        with self._lock:
            self.events += events
            due = self._begun + self.events / self._max_rate if self._max_rate else 0.0
            self._tell()
        time.sleep(max(0.0, due - time.monotonic()))

    def _tell(self) -> None:
        left = max(self._total - self.events, 0)
        eta_s = left / self.rate if self.events else None
        self._report(
            RebuildProgress(self._phase, self.events, max(self._total, self.events), self.rate, eta_s)
        )
