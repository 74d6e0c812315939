"""A cache against the ledger, as of the position that the cache itself names."""

import random
from dataclasses import dataclass
from typing import Any, NamedTuple

from ledger.api import Ledger
from ledger.cache.reader import Reader
from ledger.store.tables.stock import StockLevel


class Difference(NamedTuple):
    """What a cache says of an item, and what the ledger says as of the same position."""

    goods_id: str
    token: str
    cached: StockLevel | None
    recorded: StockLevel | None

    def __str__(self) -> str:
        return (
            f"goods {self.goods_id}: the cache says {_words(self.cached)} as of {self.token}, "
            f"the ledger says {_words(self.recorded)}"
        )

    def as_json(self) -> dict[str, Any]:
        """The object of `--json`."""
        return {
            "goods_id": self.goods_id,
            "token": self.token,
            "cached": self.cached and self.cached._asdict(),
            "recorded": self.recorded and self.recorded._asdict(),
        }


def _words(level: StockLevel | None) -> str:
    return f"{level.on_hand} on hand (version {level.version})" if level else "that it was never listed"


@dataclass
class CacheComparison:
    """How much was compared, and the first difference."""

    compared: int = 0
    rounds: int = 0
    token: str | None = None
    difference: Difference | None = None


def compare(cache: Reader, book: Ledger, percent: float | None, done: CacheComparison) -> None:
    """Compare all goods of the cache, or so many percent of them, and add it to `done`.

    Raises HistoryChanged where the ledger was restored since, and what `Reader.snapshot` raises.
    """
    snapshot = cache.snapshot()
    done.token, done.rounds = snapshot.token, done.rounds + 1
    if percent is None:
        recorded: dict[str, StockLevel | None] = {
            level.goods_id: level
            for level in book.stock_levels(as_of=snapshot.token)
            if cache.holds(level.goods_id)
        }
        goods = sorted(snapshot.keys() | recorded.keys())
    else:
        goods = random.sample(
            sorted(snapshot), min(len(snapshot), max(1, round(len(snapshot) * percent / 100)))
        )
        recorded = {goods_id: book.stock(goods_id, as_of=snapshot.token) for goods_id in goods}
    for goods_id in goods:
        cached, truth = snapshot.get(goods_id), recorded.get(goods_id)
        done.compared += 1
        if cached != truth:
            done.difference = Difference(goods_id, snapshot.token, cached, truth)
            return
