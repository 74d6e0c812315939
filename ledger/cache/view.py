"""What readers see: a view, replaced as a whole; and what they are given of several goods."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from ledger.cache.bands import Band
from ledger.cache.sink import Point
from ledger.domain.token import Token
from ledger.store.tables.stock import StockLevel

NEVER = float("-inf")
V = TypeVar("V", covariant=True)


class Levels(Protocol):
    """The stock by goods id: a dict, a persistent map, or what was asked for of late."""

    def get(self, goods_id: str, /) -> StockLevel | None:
        """The item's stock; None if it isn't here."""
        ...


@dataclass(frozen=True, slots=True)
class View:
    """The stock as of a point, and until when it may be served; both belong together, so both are swapped."""

    levels: Levels
    until: float = NEVER
    """The reader's clock when it is as old as it may be."""
    asked_at: float = NEVER
    point: Point | None = None
    """None: nothing was loaded."""
    standby: bool = False
    why: str = ""
    """Why nothing may be served; empty if only age can forbid it."""
    bands: Mapping[Band, Mapping[str, StockLevel]] = field(default_factory=dict)


def nothing(why: str) -> View:
    """A view without anything to serve."""
    return View({}, why=why)


class Snapshot(Mapping[str, V]):
    """Stock by goods id, all as of one position; `token` names it, and `age_s` says how old it may be."""

    __slots__ = ("_levels", "age_s", "token")

    def __init__(self, levels: Mapping[str, V], token: str, age_s: float) -> None:
        self._levels = levels
        self.token = token
        self.age_s = age_s

    @property
    def position(self) -> int:
        """The position that all of it is as of."""
        return Token.parse(self.token).position

    def __getitem__(self, goods_id: str) -> V:
        return self._levels[goods_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._levels)

    def __len__(self) -> int:
        return len(self._levels)

    def __repr__(self) -> str:
        return f"<Snapshot of {len(self)} goods as of {self.token}>"
