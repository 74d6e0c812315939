"""What the strategies share: one view that is swapped, and who waits for it to move.

A reader loads `view` once, and needs no lock. Whoever changes it holds `moved`. A view whose position is less
than one that a reader was told of already is never fresh: nothing goes backwards.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from ledger.cache.bands import Band
from ledger.cache.known import Known
from ledger.cache.sink import Loading, News, Point
from ledger.cache.view import NEVER, Levels, View, nothing
from ledger.store.tables.stock import StockLevel


class Terms(NamedTuple):
    """What a strategy keeps to."""

    max_staleness_s: float
    holds: Callable[[str], bool] = lambda goods_id: True
    """Whether the item is of this cache's share."""
    low_below: int | None = None
    """Where the band `low` ends; None: no bands are kept."""
    clock: Callable[[], float] = time.monotonic


class Strategy(ABC):
    """A sink in memory. The feeder's thread writes, any thread reads."""

    wants_catalogue = True

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.view = nothing("the stock isn't loaded yet")
        self.moved = threading.Condition(threading.RLock())
        self.known = Known()
        self.histories = 0
        """Counts the histories that were forgotten."""
        self._told = 0
        self._told_at = NEVER
        self._ended = False

    # What the feeder calls

    def mark(self) -> Point | None:
        """Up to where it holds what happened."""
        return self.view.point

    def forget(self, why: str) -> None:
        """Serve nothing of this history any more."""
        with self.moved:
            self.histories += 1
            self._told = 0
            self.known.forget()
            self._show(nothing(why))

    @abstractmethod
    def load(self) -> Loading:
        """A fresh copy, served once it is done."""

    @abstractmethod
    def take(self, news: News) -> None:
        """Put the news in place."""

    # What readers call

    @abstractmethod
    def many(self, goods_ids: Sequence[str]) -> tuple[View, dict[str, StockLevel | None]]:
        """The items' stock, and the view that it is of."""

    @abstractmethod
    def everything(self, band: Band | None = None) -> tuple[View, Mapping[str, StockLevel]]:
        """All that is held, or what of it is in the band, and the view that it is of."""

    def size(self) -> int:
        """How many goods are held."""
        return len(self.everything()[1])

    def tell(self, position: int, histories: int) -> bool:
        """Whether a reader may be told of this position, read from the database while `histories` was so.

        Not after a later one was told of, nor after its history was lost. If so, no earlier one is served.
        """
        with self.moved:
            told = max(self._told, self.view.point.position if self.view.point else 0)
            if histories != self.histories or position < told:
                return False
            self._told, self._told_at = position, self.terms.clock()
            if self.view.point and self.view.point.position < position:
                self.view = replace(self.view, until=NEVER)
            return True

    def end(self, why: str) -> None:
        """Serve nothing any more, whatever the feeder still brings."""
        with self.moved:
            self._show(nothing(why))
            self._ended = True

    # What those below call, with `moved` held

    def _publish(
        self,
        levels: Levels,
        news: News,
        bands: Mapping[Band, Mapping[str, StockLevel]] | None = None,
    ) -> None:
        self.known.add(news.passed)
        if disowns(news, self._told, self._told_at):
            self._told = 0
            self.histories += 1
        asked_at = self.view.asked_at if news.asked_at is None else news.asked_at
        until = asked_at + self.terms.max_staleness_s if news.at.position >= self._told else NEVER
        self._show(View(levels, until, asked_at, news.at, news.standby, bands=bands or {}))

    def _show(self, view: View) -> None:
        if not self._ended:
            self.view = view
        self.moved.notify_all()


def disowns(news: News, position: int, noted_at: float) -> bool:
    """Whether a position seen by then is of a lost past: a primary's head, asked for later, is less."""
    asked_later = news.asked_at is not None and news.asked_at > noted_at
    return asked_later and not news.standby and news.at.position < position


def loaded(at: Point, asked_at: float) -> News:
    """That a copy as of this point is there, as news; whether more may come, the next poll says."""
    return News([], [at], at, asked_at, standby=True)


def newer(
    held: Callable[[str], StockLevel | None], levels: Iterable[StockLevel], holds: Callable[[str], bool]
) -> dict[str, StockLevel]:
    """What of these levels is newer than what is held, and of this share; of one item, the newest."""
    found: dict[str, StockLevel] = {}
    for level in levels:
        goods_id = level.goods_id
        before = found.get(goods_id) or held(goods_id)
        if level.version > before.version if before else holds(goods_id):
            found[goods_id] = level
    return found
