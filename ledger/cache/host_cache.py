"""The stock of a host's folder, read by any number of processes: `stockledger cache --into DIR` keeps it."""

import os
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from ledger.cache.database import Database
from ledger.cache.files import Files
from ledger.cache.host_view import LOOK_INTERVAL_S, HostView, Nothing
from ledger.cache.options import CacheStatus, OnStale, Share, one_of, require_numbers
from ledger.cache.reader import WAIT_S, Reader
from ledger.cache.strategy import Terms
from ledger.domain.token import AnyPosition
from ledger.errors import Retry
from ledger.shell import command
from ledger.store.tables.stock import StockLevel

START_WAIT_S = 30.0
NOT_STARTED = "it was never started"
CLOSED = "it was closed"
FORKED = "this process was forked from one that had the folder open"
REMEDIES = {
    NOT_STARTED: "use it in a `with` block, or call start()",
    CLOSED: "make a new HostCache",
    FORKED: "call start() after the fork, and not before it",
}
_started: "weakref.WeakSet[HostCache]" = weakref.WeakSet()


class HostCache(Reader):
    """The stock that a feeder of this host keeps in a folder. A context manager; threads may share it.

    It has the contract of `StockCache`, without a copy or a thread in this process. `max_staleness_s` is
    the greatest age that `get` may return, since the feeder sent the question; all processes of a host read
    the same clock. `on_stale`: `raise` (Stale), `ask` (the database of `dsn`), `serve` (what there is). Open
    it after a fork only. `clock` must be CLOCK_MONOTONIC. Raises BadSettings.
    """

    def __init__(
        self,
        directory: str | Path,
        max_staleness_s: float = 1.0,
        on_stale: OnStale = "raise",
        dsn: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        one_of("on_stale", on_stale, ("raise", "ask", "serve"))
        require_numbers(max_staleness_s=max_staleness_s)
        self._directory = Path(directory)
        self._on_stale = on_stale
        self._clock = clock
        self._terms = Terms(max_staleness_s, clock=clock)
        self._share = Share(None)
        self._database = Database(dsn)
        self._ended = NOT_STARTED
        self._held: HostView | Nothing = Nothing(self._terms, NOT_STARTED)
        self._inherited: list[object] = []

    def start(self, timeout_s: float = START_WAIT_S) -> None:
        """Open the folder; returns once a feeder has filled it.

        Raises the fault that it meets: after `timeout_s`, or at once where no repetition helps.
        """
        if self._ended in (CLOSED, FORKED):
            raise self._stale(self._held.view)
        if not self._ended:
            return
        until = time.monotonic() + timeout_s
        held = self._opened(until)
        while held.view.point is None and time.monotonic() < until:
            time.sleep(LOOK_INTERVAL_S)
        if held.view.point is None:
            held.files.close()
            raise self._stale(held.view)
        self._held, self._share, self._ended = held, Share(held.about.share), ""
        _started.add(self)

    def _opened(self, until: float) -> "HostView":
        while True:
            try:
                return HostView(Files(self._directory, writes=False), self._terms)
            except Retry:
                if time.monotonic() >= until:
                    raise
                time.sleep(LOOK_INTERVAL_S)

    def close(self) -> None:
        """Let go of the folder, and end the connection; nothing is served any more."""
        held, is_ours = self._held, self._ended != FORKED
        self._end(CLOSED)
        if is_ours:
            self._database.close()
            if isinstance(held, HostView):
                held.files.close()

    def get(
        self, goods_id: str, at_least: AnyPosition | None = None, timeout_s: float = WAIT_S
    ) -> StockLevel | None:
        """As `StockCache.get`."""
        if at_least is None:
            level, until = self._held.one(goods_id)
            if level is not None and self._clock() <= until:
                return level
        return self.get_many((goods_id,), at_least, timeout_s)[goods_id]

    def status(self) -> CacheStatus:
        """How it stands; asks nobody."""
        return self._held.status(self._clock())

    def _end(self, why: str) -> None:
        self._ended = why
        self._held = Nothing(self._terms, why)

    def _disown(self) -> None:
        """In a child: closing what is the parent's would take the parent's place among the readers."""
        self._inherited.append((self._held, self._database))
        self._end(FORKED)

    def _cause(self) -> str:
        return self._ended or self.status().trouble

    def _remedy(self) -> str:
        return REMEDIES.get(self._ended, command("cache --into", str(self._directory)))

    def _may_ask(self) -> bool:
        return self._on_stale == "ask" and not self._ended


def _disown_all() -> None:
    for cache in list(_started):
        cache._disown()


os.register_at_fork(after_in_child=_disown_all)
