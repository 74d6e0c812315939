"""What a cache can be asked to be, and how it says that it stands."""

from dataclasses import dataclass
from typing import Literal

from ledger.domain.shares import share_of
from ledger.domain.token import Token
from ledger.errors import BadSettings

StrategyName = Literal["notify", "update", "copy"]
OnStale = Literal["raise", "ask", "serve"]
Partition = Literal["key", "value", "mixed"]
REMEDY = "help(stockledger.StockCache) says what fits"


@dataclass(frozen=True)
class CacheStatus:
    """How a cache stands. `trouble` says why it isn't up to date; `error` is its fault's code, if it has one.

    `loads` counts whole copies, `resets` histories that turned out to be lost.
    """

    strategy: str
    token: str | None
    age_s: float | None
    items: int
    fresh: bool
    trouble: str
    error: str | None
    loads: int
    resets: int
    standby: bool

    @property
    def position(self) -> int | None:
        """The position that it stands at; None: it holds nothing."""
        return Token.parse(self.token).position if self.token else None


def require_partition(
    strategy: StrategyName, partition: Partition | None, share: tuple[int, int] | None
) -> None:
    """Raise BadSettings unless these fit together."""
    one_of("strategy", strategy, ("notify", "update", "copy"))
    one_of("partition", partition, (None, "key", "value", "mixed"))
    if strategy == "notify" and partition:
        raise BadSettings(
            f"strategy='notify' holds no share and no bands, so partition={partition!r} doesn't fit",
            remedy="make the cache with strategy='update'",
        )
    if (partition in ("key", "mixed")) != (share is not None):
        raise BadSettings(
            f"share={share!r} doesn't fit partition={partition!r}: it says which share, of how many",
            remedy="give share=(0, 4) together with partition='key'",
        )
    if share and not 0 <= share[0] < share[1]:
        raise BadSettings(f"share={share!r}: it counts from 0 to one less than there are", remedy=REMEDY)


def require_numbers(**numbers: float | None) -> None:
    """Raise BadSettings unless each of these that is given is more than 0."""
    for name, number in numbers.items():
        if number is not None and not number > 0:
            raise BadSettings(f"{name}={number!r} must be more than 0", remedy=REMEDY)


def one_of(name: str, value: str | None, allowed: tuple[str | None, ...]) -> None:
    """Raise BadSettings unless the value is allowed."""
    if value not in allowed:
        raise BadSettings(f"{name}={value!r} must be one of {', '.join(map(repr, allowed))}", remedy=REMEDY)


class Share:
    """The goods that a cache holds: one share of so many, or all."""

    def __init__(self, share: tuple[int, int] | None) -> None:
        self._share = share

    def holds(self, goods_id: str) -> bool:
        """Whether the goods are of this share."""
        return self._share is None or share_of(goods_id, self._share[1]) == self._share[0]

    def require(self, goods_ids: list[str]) -> None:
        """Raise ValueError for goods of another share: what isn't held may be listed all the same."""
        if self._share is None:
            return
        for goods_id in goods_ids:
            if (of := share_of(goods_id, self._share[1])) != self._share[0]:
                raise ValueError(f"{goods_id} is of share {of}, and this cache holds {self._share[0]}")
