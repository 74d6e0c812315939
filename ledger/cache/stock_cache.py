"""The stock in this process: a strategy holds it, a feeder's thread keeps it, and `Reader` reads it."""

import os
import threading
import time
import weakref
from collections.abc import Callable

from ledger.cache.copy import Copy
from ledger.cache.database import Database
from ledger.cache.feed import PostgresFeed
from ledger.cache.feeder import Feeder
from ledger.cache.notify import Notify
from ledger.cache.options import (
    CacheStatus,
    OnStale,
    Partition,
    Share,
    StrategyName,
    one_of,
    require_numbers,
    require_partition,
)
from ledger.cache.reader import LOOK_INTERVAL_S, Reader
from ledger.cache.sink import Feed
from ledger.cache.strategy import Strategy, Terms
from ledger.cache.update import Update
from ledger.domain.token import Token
from ledger.errors import Retry

ITEMS_MAX = 100_000
START_WAIT_S = 30.0
CLOSED = "it was closed"
FORKED = "this process was forked from the one whose thread kept it"
REMEDIES = {CLOSED: "make a new StockCache", FORKED: "call start() in this process"}
_started: "weakref.WeakSet[StockCache]" = weakref.WeakSet()
"""Those that the child of a fork has to disown: it has their memory, and not their threads."""


class StockCache(Reader):
    """A copy of the stock in this process, kept by a thread. A context manager; threads may share it.

    `strategy`: `update` holds all goods in a dict, `copy` in immutable snapshots, `notify` those that are
    asked for. `max_staleness_s` is the greatest age that `get` may return, since this process sent the
    question whose answer it has. Beyond it `on_stale` decides: `raise` (Stale), `ask` (the database, in the
    caller's thread), `serve` (what there is).

    `partition`: `key` holds the goods of one share (`share=(3, 16)`), `value` keeps bands (`low` ends before
    `low_below`), `mixed` both. `max_items` bounds what `notify` keeps (100 000). `clock` must be monotonic.
    Raises BadSettings for what doesn't fit together.
    """

    _held: Strategy

    def __init__(
        self,
        dsn: str = "",
        strategy: StrategyName = "update",
        max_staleness_s: float = 1.0,
        on_stale: OnStale = "raise",
        partition: Partition | None = None,
        share: tuple[int, int] | None = None,
        low_below: int = 10,
        max_items: int | None = None,
        poll_s: float = 0.01,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        require_partition(strategy, partition, share)
        one_of("on_stale", on_stale, ("raise", "ask", "serve"))
        require_numbers(
            max_staleness_s=max_staleness_s, low_below=low_below, max_items=max_items, poll_s=poll_s
        )
        self._strategy = strategy
        self._on_stale = on_stale
        self._share = Share(share)
        bands = low_below if partition in ("value", "mixed") else None
        self._terms = Terms(max_staleness_s, self._share.holds, bands, clock)
        self._max_items = max_items or ITEMS_MAX
        self._poll_s = poll_s
        self._clock = clock
        self._connect: Callable[[threading.Event], Feed] = lambda stopping: PostgresFeed(dsn, stopping)
        self._open: Callable[[], Database] = lambda: Database(dsn)
        self._inherited: list[object] = []
        self._begin()
        self._end("it was never started")

    def _begin(self) -> None:
        self._ended = ""
        self._database = self._open()
        self._held = self._made()
        self._feeder = Feeder(
            self._connect, self._held, poll_s=self._poll_s, clock=self._clock, on_end=self._on_end
        )

    def _made(self) -> Strategy:
        if self._strategy == "notify":
            return Notify(self._terms, self._max_items, self._database.live)
        return Update(self._terms) if self._strategy == "update" else Copy(self._terms)

    def start(self, timeout_s: float = START_WAIT_S) -> None:
        """Begin to follow the ledger in this process; returns once the stock is loaded.

        Raises the fault that it meets: after `timeout_s`, or at once where no repetition helps. After a fork
        the child calls it again.
        """
        if self._ended == CLOSED:
            raise self._stale(self._held.view)
        if not self._ended:
            return
        self._begin()
        _started.add(self)
        self._feeder.start()
        try:
            self._wait_loaded(time.monotonic() + timeout_s)
        except BaseException:
            self._feeder.close()
            self._end("it couldn't be started")
            raise

    def _wait_loaded(self, until: float) -> None:
        with self._held.moved:
            while not self._held.view.point:
                is_late = self._ended or time.monotonic() >= until
                error = self._feeder.error
                if error and (is_late or not isinstance(error, Retry)):
                    raise error
                if is_late:
                    raise self._stale(self._held.view)
                self._held.moved.wait(LOOK_INTERVAL_S)

    def close(self) -> None:
        """End the thread and the connections; what was held is served no more."""
        is_ours = self._ended != FORKED
        self._end(CLOSED)
        if is_ours:
            self._feeder.close()
            self._database.close()

    def status(self) -> CacheStatus:
        """How it stands; asks nobody."""
        view, feeder = self._held.view, self._feeder
        return CacheStatus(
            strategy=self._strategy,
            token=str(Token.at(*view.point)) if view.point else None,
            age_s=self._clock() - view.asked_at if view.point else None,
            items=self._held.size(),
            fresh=self._clock() <= view.until,
            trouble=self._ended or feeder.trouble,
            error=feeder.error.code if feeder.error else None,
            loads=feeder.loads,
            resets=feeder.resets,
            standby=view.standby,
        )

    def _end(self, why: str) -> None:
        self._ended = why
        self._held.end(why)

    def _on_end(self, fault: BaseException) -> None:
        self._end(f"its thread was ended by a bug: {fault!r}")

    def _disown(self) -> None:
        """In a child: its parent's threads may hold locks for ever, and the connections are the parent's."""
        if not self._ended:
            self._inherited.append((self._held, self._feeder, self._database))  # never ended from here
            self._held = self._made()
            self._end(FORKED)

    def _cause(self) -> str:
        return self._ended or self._feeder.trouble

    def _remedy(self) -> str:
        return REMEDIES.get(self._ended, "stockledger doctor")

    def _may_ask(self) -> bool:
        return self._on_stale == "ask" and self._ended not in REMEDIES


def _disown_all() -> None:
    for cache in list(_started):
        cache._disown()


os.register_at_fork(after_in_child=_disown_all)
