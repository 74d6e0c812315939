"""Bands of stock: which goods are sold out, which are low, of which there are plenty."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, get_args

from ledger.store.tables.stock import StockLevel

Band = Literal["sold_out", "low", "ample"]
BANDS: tuple[Band, ...] = get_args(Band)


def band_of(on_hand: int, low_below: int) -> Band:
    """Where goods with so many pieces stand."""
    if on_hand == 0:
        return "sold_out"
    return "low" if on_hand < low_below else "ample"


class Moves(NamedTuple):
    """What a change of some goods does to one band."""

    put: dict[str, StockLevel]
    drop: list[str]


def moves(
    before: Mapping[str, StockLevel], changes: Iterable[StockLevel], low_below: int
) -> dict[Band, Moves]:
    """What the changes do to each band, where the goods were as `before` says."""
    found = {band: Moves({}, []) for band in BANDS}
    for level in changes:
        now = band_of(level.on_hand, low_below)
        was = before.get(level.goods_id)
        if was is not None and (former := band_of(was.on_hand, low_below)) != now:
            found[former].drop.append(level.goods_id)
        found[now].put[level.goods_id] = level
    return found
