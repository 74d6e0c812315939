"""What `update` and `copy` share: they hold all goods of their share as of one position, and their bands."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any, Generic, TypeVar

from ledger.cache.bands import BANDS, Band, Moves, moves
from ledger.cache.sink import News, Point
from ledger.cache.strategy import Strategy, Terms, loaded, newer
from ledger.store.tables.stock import StockLevel

M = TypeVar("M", bound=Mapping[str, StockLevel])


class Holding(Strategy, Generic[M]):
    """A catalogue in a mapping of one kind; the kind says how it is changed."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._levels = self._new({})
        self._bands: dict[Band, M] = {}

    @abstractmethod
    def _new(self, levels: dict[str, StockLevel]) -> M:
        """A mapping with this in it, which nobody else changes."""

    @abstractmethod
    def _moved(self, levels: M, change: Moves) -> M:
        """The mapping after the change: the same one, or the next."""

    def load(self) -> "Fresh":
        """A fresh copy, in a dict of its own."""
        return Fresh(self)

    def take(self, news: News) -> None:
        """Put the changes in place: what is newer than what is held."""
        with self.moved:
            changes = newer(self._levels.get, news.levels, self.terms.holds)
            if changes:
                self._move(changes)
            self._publish(self._levels, news, self._bands)

    def replace(self, levels: dict[str, StockLevel], at: Point, asked_at: float) -> None:
        """Serve this copy from now on."""
        with self.moved:
            bands = self._banded(levels)
            self._levels, self._bands = self._new(levels), bands
            self._publish(self._levels, loaded(at, asked_at), bands)

    def _move(self, changes: dict[str, StockLevel]) -> None:
        if self.terms.low_below is not None:
            moved = moves(self._levels, changes.values(), self.terms.low_below)
            self._bands = {band: self._moved(self._bands[band], moved[band]) for band in BANDS}
        self._levels = self._moved(self._levels, Moves(changes, []))

    def _banded(self, levels: dict[str, StockLevel]) -> dict[Band, M]:
        if self.terms.low_below is None:
            return {}
        return {
            band: self._new(change.put)
            for band, change in moves({}, levels.values(), self.terms.low_below).items()
        }


class Fresh:
    """A copy in the making: the greater version of an item stays."""

    def __init__(self, strategy: Holding[Any]) -> None:
        self._strategy = strategy
        self._levels: dict[str, StockLevel] = {}

    def put(self, levels: Iterable[StockLevel]) -> None:
        """Add what is newer."""
        holds = self._strategy.terms.holds
        ours = [level for level in levels if holds(level.goods_id)]
        added = dict(zip(map(itemgetter(0), ours), ours, strict=True))
        # A page's goods are mostly new: to compare versions one by one took a third of a large load.
        if len(added) < len(ours) or not self._levels.keys().isdisjoint(added):
            added = newer(self._levels.get, ours, holds)
        self._levels.update(added)

    def done(self, at: Point, asked_at: float) -> None:
        """Have it served."""
        self._strategy.replace(self._levels, at, asked_at)
