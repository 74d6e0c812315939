"""What the gateway measures of itself, for `/metrics`: how long its answers take, by endpoint."""

import math
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

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
PURCHASE = ("POST", "/v1/purchases", 200)
RECENT_S = 300.0
RECENT_MAX = 10_000


class PurchaseTimes(NamedTuple):
    """How long the latest purchases took from the request to their outcome, in seconds."""

    number: int
    p50_s: float
    p99_s: float


class DoorMeter:
    """For the event loop's thread."""

    def __init__(self) -> None:
        self.in_hand = 0
        self._numbers = Numbers()
        self._look_due = 0.0
        self._purchases: deque[tuple[float, float]] = deque(maxlen=RECENT_MAX)
        """When each of the latest ones was answered, and how long it took."""

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
        if (method, route, status) == PURCHASE:
            self._purchases.append((time.monotonic(), seconds))

    def purchases(self) -> PurchaseTimes | None:
        """Those of the last five minutes, at most the last 10,000; None: nobody bought here."""
        since = time.monotonic() - RECENT_S
        took = sorted(seconds for answered_at, seconds in self._purchases if answered_at >= since)
        if not took:
            return None
        return PurchaseTimes(len(took), *(took[math.ceil(share * len(took)) - 1] for share in (0.50, 0.99)))

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
