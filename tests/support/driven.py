"""A StockCache without a thread, over a ledger in memory, with a clock that is moved by hand."""

from collections.abc import Iterable
from typing import Any, cast

from ledger.cache.stock_cache import StockCache
from ledger.cache.turns import Turns
from ledger.domain.token import AnyPosition, Token, position_of
from ledger.store.reads.history import StockNow
from tests.support.shown_ledger import ShownLedger


class Clock:
    """Monotonic, and moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += seconds


class ShownDatabase:
    """What `ledger.cache.database.Database` is, over the ledger in memory."""

    def __init__(self, ledger: ShownLedger) -> None:
        self._ledger = ledger
        self._turns = Turns(self.live)

    def ask(self, goods_ids: Iterable[str]) -> StockNow:
        return self._turns.ask(goods_ids)

    def live(self, goods_ids: set[str]) -> StockNow:
        return self._ledger.live(goods_ids)

    def require_reached(self, at: AnyPosition) -> None:
        self._ledger.require_link()
        position, known = position_of(at), None
        if position <= self._ledger.seen:
            known = self._ledger.hash_at(position)
        elif self._ledger.standby:
            raise TimeoutError
        if isinstance(at, str):
            Token.parse(at).prove(known)

    def close(self) -> None:
        pass


class Driven:
    """`poll()` is one step of the feeder; the rest is the cache's own."""

    def __init__(self, ledger: ShownLedger, **options: Any) -> None:
        self.clock = Clock()
        self.ledger = ledger
        # Any: tests look inside, and put fakes in place.
        self.cache: Any = cast(Any, StockCache)("", clock=self.clock, poll_s=0.001, **options)
        self.cache._open = lambda: ShownDatabase(ledger)
        self.cache._connect = lambda stopping: ledger
        self.cache._begin()

    def poll(self) -> None:
        """Ask until the head is reached, as the thread does without a pause."""
        while self.cache._feeder.advance(self.ledger):
            pass

    def loaded(self) -> "Driven":
        self.poll()
        return self
