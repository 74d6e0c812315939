"""write-copy: the next snapshot is made beside the one that is read, and then one pointer is swapped."""

from collections.abc import Mapping, Sequence
from typing import Any

from ledger.cache.bands import Band, Moves
from ledger.cache.holding import Holding
from ledger.cache.strategy import Terms
from ledger.cache.view import View
from ledger.errors import BadSettings
from ledger.store.tables.stock import StockLevel

try:
    from immutables import Map
except ImportError:  # pragma: no cover (the extra is installed wherever tests are)
    Map: Any = None  # type: ignore[no-redef]


class Copy(Holding["Map[str, StockLevel]"]):
    """A persistent map: a change makes the next one, which shares with it all that stayed as it was."""

    def __init__(self, terms: Terms) -> None:
        if Map is None:
            raise BadSettings(
                "strategy='copy' needs the package immutables", remedy="pip install 'stockledger[cache]'"
            )
        super().__init__(terms)

    def many(self, goods_ids: Sequence[str]) -> tuple[View, dict[str, StockLevel | None]]:
        """Of one position: of one view."""
        view = self.view
        return view, {goods_id: view.levels.get(goods_id) for goods_id in goods_ids}

    def everything(self, band: Band | None = None) -> tuple[View, Mapping[str, StockLevel]]:
        """The map itself, as of its view, whatever its size."""
        with self.moved:
            return self.view, self.view.bands.get(band, {}) if band else self._levels

    def _new(self, levels: dict[str, StockLevel]) -> "Map[str, StockLevel]":
        return Map(levels)

    def _moved(self, levels: "Map[str, StockLevel]", change: Moves) -> "Map[str, StockLevel]":
        changed = levels.mutate()
        for goods_id in change.drop:
            changed.pop(goods_id, None)
        changed.update(change.put)
        return changed.finish()
