"""What the gateway measures of itself, for `/metrics`: how long its answers take, by endpoint."""

import time
from typing import TYPE_CHECKING

from ledger.cache.stock_cache import StockCache
from ledger.telemetry import names
from ledger.telemetry.exposition import written
from ledger.telemetry.numbers import Numbers

if TYPE_CHECKING:
    from gateway.door import Door

NO_ROUTE = "none"
METHODS = {"GET", "HEAD", "POST"}
OTHER = "other"
LOOK_INTERVAL_S = 1.0


class DoorMeter:
    """For the event loop's thread."""

    def __init__(self) -> None:
        self.in_hand = 0
        self._numbers = Numbers()
        self._look_due = 0.0

    def look(self, cache: StockCache) -> None:
        """Once a second: how old the cache is."""
        if time.monotonic() >= self._look_due:
            self._look_due = time.monotonic() + LOOK_INTERVAL_S
            if (age_s := cache.status().age_s) is not None:
                self._numbers.observe(names.CACHE_AGE, age_s)

    def answered(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """A request's answer has begun. Words that a client could choose are no labels."""
        method = method if method in METHODS else OTHER
        self._numbers.observe(names.HTTP, seconds, method, route or NO_ROUTE, str(status))

    def written(self, door: "Door", version: str, accept: str) -> tuple[bytes, str]:
        """All numbers in the format that is accepted, and its media type."""
        numbers, cache = self._numbers.copy(), door.reads.cache.status()
        numbers.put(names.HTTP_IN_HAND, self.in_hand)
        numbers.put(names.HTTP_WAITING, door.waits.taken_now)
        numbers.put(names.HTTP_STREAMS, door.streams.taken_now)
        numbers.counts[names.CACHE_LOADS.name,] = cache.loads
        numbers.counts[names.CACHE_RESETS.name,] = cache.resets
        if cache.position is not None:
            numbers.put(names.CACHE_POSITION, cache.position)
        return written(numbers, version, accept)
