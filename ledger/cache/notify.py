"""write-notify: a change drops the item, and whoever wants it next loads it from the database.

A load can be overtaken: it was read before a change, and comes back after the change was dropped here. Such a
load isn't stored, because `refused_below` remembers the version; it is loaded again.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from ledger.cache.bands import Band
from ledger.cache.sink import News, Point
from ledger.cache.strategy import Strategy, Terms, disowns, loaded
from ledger.cache.turns import Turns
from ledger.cache.view import View
from ledger.domain.token import Token
from ledger.errors import BadSettings, Unavailable
from ledger.store.reads.history import Moment, StockNow
from ledger.store.tables.stock import StockLevel

LOADS_MAX = 10
"""How often a load that was overtaken is made again; each time the item changed meanwhile."""
LOAD_PAUSE_S = 0.01


class Floor(NamedTuple):
    """The version that readers were told of or will be, and a position at which it is there."""

    version: int
    position: int


class Notify(Strategy):
    """Items that were asked for of late, at most so many; of the others, the versions not to go back to."""

    wants_catalogue = False

    def __init__(self, terms: Terms, items_max: int, read: Callable[[set[str]], StockNow]) -> None:
        super().__init__(terms)
        self.refused_below: OrderedDict[str, Floor] = OrderedDict()
        self._kept = Kept()
        self._items_max = items_max
        self._read = read
        self._forgotten_at = 0
        """Loads as of an earlier position may be older than what `refused_below` has forgotten."""
        self._ahead: dict[int, tuple[Token, float]] = {}
        """Places beyond the feeder's that loads were of, by position, and when that was."""
        self._missing = Turns(self._load_missing)

    def forget(self, why: str) -> None:
        """Another history: versions of the lost one say nothing."""
        with self.moved:
            self._drop_all(0)
            super().forget(why)

    def load(self) -> "_Restart":
        """Nothing is loaded but where the journal ends."""
        return _Restart(self)

    def take(self, news: News) -> None:
        """Drop what changed, and remember the versions."""
        with self.moved:
            if self._contradicts(news):
                self.histories += 1
                self._drop_all(news.at.position)
            for goods_id, _, version in news.levels:
                self._refuse(goods_id, Floor(version, news.at.position))
            self._publish(self._kept, news)

    def restart(self, at: Point, asked_at: float) -> None:
        """Changes before this point weren't heard of: nothing that is kept, or on its way, holds."""
        with self.moved:
            self._kept.clear()
            self._ahead.clear()
            self._forgotten_at = max(self._forgotten_at, at.position)
            self._publish(self._kept, loaded(at, asked_at))

    def many(self, goods_ids: Sequence[str]) -> tuple[View, dict[str, StockLevel | None]]:
        """Each item for itself; what isn't here is loaded, all in one question."""
        while True:
            histories, view = self.histories, self.view
            found, missing = self._kept.find(goods_ids)
            if missing:
                found |= self._missing.ask(missing)
            if histories == self.histories:  # else some of it may be of a lost past
                return view, {goods_id: found[goods_id] for goods_id in goods_ids}

    def everything(self, band: Band | None = None) -> tuple[View, Mapping[str, StockLevel]]:
        """There is no such thing."""
        raise BadSettings(
            "strategy='notify' holds only what was asked for, so it has no snapshot and no bands",
            remedy="make the cache with strategy='copy'",
        )

    def size(self) -> int:
        """How many goods are held."""
        return len(self._kept)

    def _load_missing(self, goods_ids: set[str]) -> dict[str, StockLevel | None]:
        """Load what is still missing; several threads that missed the same item are answered by one load."""
        for _ in range(LOADS_MAX):
            histories = self.histories
            found, missing = self._kept.find(goods_ids)
            read = self._read(set(missing)) if missing else None
            with self.moved:
                if histories == self.histories:
                    if read:
                        self._note(read.moment)
                    found |= {
                        each: read.levels.get(each) for each in missing if read and self._store(each, read)
                    }
                    if len(found) == len(goods_ids):
                        return found
                self.moved.wait(LOAD_PAUSE_S)  # the feeder may be about to hear of another history
        goods_id = min(goods_ids - found.keys(), default="")
        raise Unavailable(
            f"the database answers with an older stock of {goods_id} than was read here before",
            remedy="name the primary in the DSN, or a standby that doesn't lag",
        )

    def _note(self, moment: Moment) -> None:
        """Remember what a load claims of places that the feeder hasn't passed."""
        if self.view.point is None or moment.position > self.view.point.position:
            self._ahead[moment.position] = Token.parse(moment.token), self.terms.clock()

    def _contradicts(self, news: News) -> bool:
        """Whether a load that was ahead of the feeder turns out to be of a lost past."""
        for point in news.passed:
            token, _ = self._ahead.pop(point.position, (None, 0))
            if token is not None and token != Token.at(*point):
                return True
        return any(disowns(news, position, noted) for position, (_, noted) in self._ahead.items())

    def _drop_all(self, position: int) -> None:
        """What is kept, or refused, is of a lost past; so is a load of before this position."""
        self._kept.clear()
        self._ahead.clear()
        self.refused_below.clear()
        self._forgotten_at = position

    def _store(self, goods_id: str, read: StockNow) -> bool:
        """Keep what was read, unless it is older than what was dropped here; whether it may be served."""
        level = read.levels.get(goods_id)
        version = level.version if level else 0
        floor = self.refused_below.get(goods_id)
        if version < floor.version if floor else read.moment.position < self._forgotten_at:
            return False
        self._kept.put(goods_id, level, Floor(version, read.moment.position))
        while len(self._kept) > self._items_max:
            self._remember(*self._kept.pop_oldest())
        return True

    def _refuse(self, goods_id: str, floor: Floor) -> None:
        kept = self._kept.version(goods_id)
        if kept is not None and kept >= floor.version:
            return  # it was loaded after the change
        self._kept.drop(goods_id)
        self._remember(goods_id, floor)

    def _remember(self, goods_id: str, floor: Floor) -> None:
        before = self.refused_below.pop(goods_id, floor)
        self.refused_below[goods_id] = max(before, floor)
        while len(self.refused_below) > self._items_max:
            _, forgotten = self.refused_below.popitem(last=False)
            self._forgotten_at = max(self._forgotten_at, forgotten.position)


class _Restart:
    def __init__(self, strategy: Notify) -> None:
        self._strategy = strategy

    def put(self, levels: Iterable[StockLevel]) -> None:
        """Items are loaded as they are asked for."""

    def done(self, at: Point, asked_at: float) -> None:
        """From here on every change is heard of."""
        self._strategy.restart(at, asked_at)


class Kept:
    """Items in the order in which they were last used, those that were never listed included.

    Each step is one call that runs no Python code, so a reader needs no lock; who writes holds `moved`.
    """

    def __init__(self) -> None:
        self._levels: OrderedDict[str, StockLevel | None] = OrderedDict()
        self._floors: dict[str, Floor] = {}

    def __len__(self) -> int:
        return len(self._levels)

    def get(self, goods_id: str, /) -> StockLevel | None:
        """The item's stock, which counts as used now."""
        try:
            self._levels.move_to_end(goods_id)
        except KeyError:
            return None
        return self._levels.get(goods_id)

    def find(self, goods_ids: Iterable[str]) -> tuple[dict[str, StockLevel | None], list[str]]:
        """What is here of these, and what isn't."""
        found: dict[str, StockLevel | None] = {}
        missing = []
        for goods_id in goods_ids:
            try:
                self._levels.move_to_end(goods_id)
                found[goods_id] = self._levels[goods_id]
            except KeyError:
                missing.append(goods_id)
        return found, missing

    def version(self, goods_id: str) -> int | None:
        """The version that is kept; None if the item isn't."""
        floor = self._floors.get(goods_id)
        return floor.version if floor else None

    def put(self, goods_id: str, level: StockLevel | None, floor: Floor) -> None:
        """Keep the item as the one that was used last."""
        self._levels[goods_id] = level
        self._levels.move_to_end(goods_id)
        self._floors[goods_id] = floor

    def drop(self, goods_id: str) -> None:
        """Keep it no longer."""
        self._levels.pop(goods_id, None)
        self._floors.pop(goods_id, None)

    def pop_oldest(self) -> tuple[str, Floor]:
        """Drop the item that was used longest ago; returns what readers were told of it."""
        goods_id, _ = self._levels.popitem(last=False)
        return goods_id, self._floors.pop(goods_id)

    def clear(self) -> None:
        """Keep nothing."""
        self._levels.clear()
        self._floors.clear()
