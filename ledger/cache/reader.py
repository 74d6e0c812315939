"""Reads from a view that is swapped as a whole: never older than allowed, never backwards, of one past.

The fast path is one look at the view, one at the item and one at the clock. All else happens off it: what is
stale, missing, or asked for with a token.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from ledger.cache.bands import BANDS, Band
from ledger.cache.database import Database
from ledger.cache.options import OnStale, Share
from ledger.cache.sink import Point
from ledger.cache.strategy import Terms
from ledger.cache.view import Snapshot, View
from ledger.domain.token import AnyPosition, Token, position_of, prove
from ledger.errors import BadSettings, Stale
from ledger.store.tables.stock import StockLevel

V = TypeVar("V")

WAIT_S = 1.0
LOOK_INTERVAL_S = 0.1
ASKS_MAX = 3


class Waits(Protocol):
    """Entered by who reads several things of one moment, or waits for the next one."""

    def __enter__(self) -> object:
        """Keep the writer out, where nothing else does."""
        ...

    def __exit__(self, *exc: Any) -> object:
        """Let it in again."""
        ...

    def wait(self, timeout: float) -> object:
        """Wait for something new, for so many seconds at most."""
        ...


class ReadHashes(Protocol):
    """The journal's hashes that were read of late."""

    def hash_at(self, position: int) -> bytes | None:
        """The journal's hash at the position; None if it isn't here."""
        ...

    def add(self, points: Iterable[Point]) -> None:
        """Remember these."""
        ...


class Readable(Protocol):
    """What is read: a strategy in this process, or a host's folder."""

    @property
    def view(self) -> View:
        """What may be served now."""
        ...

    @property
    def moved(self) -> Waits:
        """Who waits for the view to move."""
        ...

    @property
    def known(self) -> ReadHashes:
        """ReadHashes that prove a token."""
        ...

    @property
    def histories(self) -> int:
        """Counts the histories that were forgotten."""
        ...

    @property
    def terms(self) -> Terms:
        """What it keeps to."""
        ...

    def many(self, goods_ids: Sequence[str]) -> tuple[View, dict[str, StockLevel | None]]:
        """The items' stock, and the view that it is of."""
        ...

    def everything(self, band: Band | None = None) -> tuple[View, Mapping[str, StockLevel]]:
        """All that is held, or what of it is in the band, and the view that it is of."""
        ...

    def tell(self, position: int, histories: int) -> bool:
        """Whether a reader may be told of this position, read from the database while `histories` was so."""
        ...


class Reader(ABC):
    """What can be asked of a cache: `StockCache` keeps one in its process, `HostCache` reads one's folder."""

    _held: Readable
    _database: Database
    _share: Share
    _on_stale: OnStale
    _clock: Callable[[], float]
    _ended: str
    """Why nobody keeps the view up to date any more; empty as long as somebody does."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def start(self) -> None:
        """Begin to serve; returns once there is something to serve."""

    @abstractmethod
    def close(self) -> None:
        """Serve nothing any more."""

    def get(
        self, goods_id: str, at_least: AnyPosition | None = None, timeout_s: float = WAIT_S
    ) -> StockLevel | None:
        """The item's stock, None if it was never listed; not older than allowed, unless `on_stale` says so.

        `at_least`: wait until the cache has come to this position; a token proves the history, too. Raises
        TimeoutError after `timeout_s`, HistoryChanged for a token of another history, Stale; ValueError for
        goods of another share. Where the database is asked, also what a `Ledger` raises.
        """
        view = self._held.view
        level = view.levels.get(goods_id)
        # The clock after the item: nothing but the return may come between this look and the caller.
        if level is not None and at_least is None and self._clock() <= view.until:
            return level
        return self.get_many((goods_id,), at_least, timeout_s)[goods_id]

    def get_many(
        self, goods_ids: Iterable[str], at_least: AnyPosition | None = None, timeout_s: float = WAIT_S
    ) -> Snapshot[StockLevel | None]:
        """The items' stock, of one position (`notify`: each at least as of that). Raises as `get` does."""
        wanted = list(dict.fromkeys(goods_ids))
        self._share.require(wanted)
        asks = self._on_stale == "ask" and self._is_old(self._held.view)
        if at_least is not None and not asks:
            self._reach(at_least, timeout_s)
        view = self._held.view
        if not self._is_old(view):  # or `notify` would load what can't be served
            view, levels = self._held.many(wanted)
            if not self._is_old(view):
                return self._snapshot(view, levels)
        return self._instead(view, wanted, at_least)

    def snapshot(self) -> Snapshot[StockLevel]:
        """The stock of all goods of this cache, as of one position.

        Raises Stale, also where `get` would ask the database; BadSettings for `notify`, which has none.
        """
        return self._all(None)

    def in_band(self, band: Band) -> Snapshot[StockLevel]:
        """The goods that are `sold_out`, `low` or `ample`, as of one position: a look-up, no scan.

        Raises what `snapshot` does; BadSettings where no bands are kept.
        """
        if band not in BANDS:
            raise ValueError(f"there is no band {band}: it is one of {', '.join(BANDS)}")
        return self._all(band)

    def holds(self, goods_id: str) -> bool:
        """Whether the goods are of this cache's share."""
        return self._share.holds(goods_id)

    def _all(self, band: Band | None) -> Snapshot[StockLevel]:
        if band and self._held.terms.low_below is None:
            raise BadSettings("this cache keeps no bands", remedy="make the cache with partition='value'")
        view, levels = self._held.everything(band)
        if self._is_old(view):
            raise self._stale(view)
        return self._snapshot(view, levels)

    def _snapshot(self, view: View, levels: Mapping[str, V]) -> Snapshot[V]:
        assert view.point is not None
        return Snapshot(levels, str(Token.at(*view.point)), self._clock() - view.asked_at)

    def _is_old(self, view: View) -> bool:
        """Whether the view may not be served. One without a point never is: lost, closed, forked, broken."""
        return self._clock() > view.until and (self._on_stale != "serve" or view.point is None)

    # Beyond the bound

    @abstractmethod
    def _cause(self) -> str:
        """Why the view isn't fresh, as far as that is known."""

    @abstractmethod
    def _remedy(self) -> str:
        """What to do about it."""

    @abstractmethod
    def _may_ask(self) -> bool:
        """Whether the database may be asked instead."""

    def _instead(
        self, view: View, wanted: list[str], at_least: AnyPosition | None
    ) -> Snapshot[StockLevel | None]:
        """What the database says, if it may be asked."""
        for _ in range(ASKS_MAX if self._may_ask() else 0):
            histories = self._held.histories
            asked_at = self._clock()
            answer = self._database.ask(wanted)
            if at_least is not None:
                self._database.require_reached(at_least)
            # What was told once isn't taken back by a view that the feeder asked for before.
            if self._held.tell(answer.moment.position, histories):
                levels = {goods_id: answer.levels.get(goods_id) for goods_id in wanted}
                return Snapshot(levels, answer.moment.token, self._clock() - asked_at)
        raise self._stale(view)

    def _stale(self, view: View) -> Stale:
        age_s = self._clock() - view.asked_at if view.point else None
        has = f"what the cache has may be {age_s:.3g} s old" if age_s is not None else "the cache has nothing"
        cause = self._cause() or view.why or "its feeder had no turn yet"
        return Stale(
            f"{has}, and at most {self._held.terms.max_staleness_s:g} s is allowed: {cause}",
            age_s=age_s,
            cause=cause,
            remedy=self._remedy(),
        )

    # Tokens

    def _reach(self, at_least: AnyPosition, timeout_s: float) -> None:
        """Wait until the cache has come so far, and prove that it is of the same history."""
        position, began = position_of(at_least), self._clock()
        until = time.monotonic() + timeout_s
        with self._held.moved:
            while (view := self._held.view).point is None or view.point.position < position:
                self._require_a_future(view, at_least, began)
                if (left := until - time.monotonic()) <= 0:
                    at = view.point.position if view.point else None
                    raise TimeoutError(
                        f"the cache is at position {at}, not yet at {position}: {self._cause()}"
                    )
                self._held.moved.wait(min(left, LOOK_INTERVAL_S))
        if isinstance(at_least, str):
            self._prove(at_least)

    def _require_a_future(self, view: View, at_least: AnyPosition, began: float) -> None:
        """Raise where waiting is in vain: the view is short of the place."""
        # The head was asked for after the caller had its token: on a primary it can't be short of that.
        if view.point and view.asked_at > began and not view.standby:
            prove(at_least, None)
        if self._ended:
            raise self._stale(view)

    def _prove(self, token: str) -> None:
        at, histories = Token.parse(token), self._held.histories
        with self._held.moved:
            hash = self._held.known.hash_at(at.position)
        if hash is not None:
            at.prove(hash)
            return
        self._database.require_reached(token)
        with self._held.moved:
            if histories == self._held.histories:
                self._held.known.add([Point(at.position, bytes.fromhex(at.hash))])
