"""Who said what of itself, and when: whether all are live and ready, and the sum of their numbers.

What one that ended had counted stays in the sum, so no sum ever goes backwards. A dead one's last second is
lost: it was never shown.
"""

import threading
import time
from collections.abc import Callable

from ledger.telemetry.numbers import Numbers, Said

SILENCE_MAX_S = 300.0
"""Kafka's own default for `max.poll.interval.ms`: a loop that stands still for longer is stuck."""
ALONE = 0
"""Who speaks for the process that has the board; workers that it looks after are numbered from 1."""
BEGINS = "it hasn't begun yet"


class Board:
    """Any thread may speak, and any may ask. Each `who` must be heard again within `silence_max_s`."""

    def __init__(
        self, silence_max_s: float = SILENCE_MAX_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.silence_max_s = silence_max_s
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[int, Said] = {}
        self._heard_at: dict[int, float] = {}
        self._ended = Numbers()

    def expect(self, who: int) -> None:
        """It begins now."""
        self.hear(who, Said(Numbers(), BEGINS))

    def hear(self, who: int, said: Said) -> None:
        """It speaks; what it says isn't changed afterwards."""
        with self._lock:
            self._said[who], self._heard_at[who] = said, self._clock()

    def forget(self, who: int) -> None:
        """It has ended."""
        with self._lock:
            if said := self._said.pop(who, None):
                self._ended.add(said.numbers, levels=False)
            self._heard_at.pop(who, None)

    def stuck_s(self) -> float:
        """How long the loop that is stuck has stood still; 0 if none is."""
        with self._lock:
            silent_s = max((self._clock() - at for at in self._heard_at.values()), default=0.0)
        return silent_s if silent_s > self.silence_max_s else 0.0

    def trouble(self) -> str:
        """Why they aren't ready; "" if all are."""
        with self._lock:
            troubles = sorted({said.trouble for said in self._said.values()} - {""})
            return "; ".join(troubles) if self._said else BEGINS

    def sum(self) -> Numbers:
        """The numbers of all."""
        with self._lock:
            total = self._ended.copy()
            for said in self._said.values():
                total.add(said.numbers)
        return total
