"""write-update: each change is put into the one dict that is read, if its version is greater."""

import sys
from collections.abc import Mapping, Sequence

from ledger.cache.bands import Band, Moves
from ledger.cache.holding import Holding
from ledger.cache.strategy import Terms
from ledger.cache.view import View
from ledger.errors import BadSettings
from ledger.store.tables.stock import StockLevel


class Update(Holding[dict[str, StockLevel]]):
    """One dict, changed in place. A read takes no lock; what reads several items keeps the writer out.

    All changes of a poll come with one `dict.update` of text keys. It runs no Python code and allocates
    nothing that is collected, so it is one step under the interpreter's lock: nobody sees half of it.
    """

    def __init__(self, terms: Terms) -> None:
        if not getattr(sys, "_is_gil_enabled", lambda: True)():
            raise BadSettings(
                "strategy='update' needs an interpreter with its global lock: without, readers could see half"
                " of an entry",
                remedy="make the cache with strategy='copy'",
            )
        super().__init__(terms)

    def many(self, goods_ids: Sequence[str]) -> tuple[View, dict[str, StockLevel | None]]:
        """Of one position: nothing is changed meanwhile."""
        with self.moved:
            return self.view, {goods_id: self.view.levels.get(goods_id) for goods_id in goods_ids}

    def everything(self, band: Band | None = None) -> tuple[View, Mapping[str, StockLevel]]:
        """A copy: it takes as long as there are goods, and the feeder waits for it."""
        with self.moved:
            return self.view, dict(self._bands.get(band, {}) if band else self._levels)

    def size(self) -> int:
        """How many goods are held."""
        return len(self._levels)

    def _new(self, levels: dict[str, StockLevel]) -> dict[str, StockLevel]:
        return levels

    def _moved(self, levels: dict[str, StockLevel], change: Moves) -> dict[str, StockLevel]:
        for goods_id in change.drop:
            levels.pop(goods_id, None)
        levels.update(change.put)
        return levels
