"""Which lane a command goes to: that of its goods, of its user, or one that hot goods have to themselves.

Routing decides in which order commands come and who waits for whom, never what becomes of one: the ledger
applies an id once, whichever lanes it comes by. The payload, and so the fingerprint, has no part in it.

A partition is chosen by `share_of`, as Kafka's own partitioner does it: so all producers agree that are told
the same. One that was told something else is still right; its commands wait elsewhere, in another order.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple, Self, TypeVar

from ledger.domain.commands import ListGoods
from ledger.domain.envelope import validate
from ledger.domain.shares import share_of
from ledger.domain.structs import STRUCTS, GoodsStruct
from ledger.errors import BadSettings
from ledger.figures import counted
from producer.partition_by import HotBy, PartitionBy
from producer.plain import Ready

OF_GOODS = {name for name, kind in STRUCTS.items() if issubclass(kind, GoodsStruct)}
KEPT_SHARES = 100_000

_share = lru_cache(KEPT_SHARES)(share_of)
E = TypeVar("E", bound=StrEnum)


class Why(StrEnum):
    """Why a command goes where it goes."""

    GOODS = "goods"
    USER = "user"
    ISOLATED = "isolated"
    SPREAD = "spread"
    DISPLACED = "displaced"
    """Its own partition is set aside for hot goods."""


class Route(NamedTuple):
    """Where a command goes: its record key, and its partition (None: wherever the client puts the key)."""

    key: str
    partition: int | None
    why: Why

    def lane(self, partitions: int) -> int:
        """The partition, where Kafka's own partitioner chooses it."""
        return _share(self.key, partitions) if self.partition is None else self.partition


@dataclass(frozen=True)
class Routing:
    """How a producer routes; made by `of`, which refuses what makes no sense."""

    partition_by: PartitionBy = PartitionBy.GOODS
    hot_goods: tuple[str, ...] = ()
    hot_by: HotBy = HotBy.ISOLATE
    hot_partitions: int | None = None
    _places: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_places", {goods: at for at, goods in enumerate(self.hot_goods)})

    @classmethod
    def of(cls, partition_by: str, hot_goods: Iterable[str], hot_by: str, hot_partitions: int | None) -> Self:
        """Raises BadSettings where these don't fit together, TypeError for what can't be one of them."""
        by, hot = _one_of("partition_by", PartitionBy, partition_by), _goods(hot_goods)
        if hot_partitions is not None:
            _require_count(hot_partitions)
        if by is PartitionBy.MIXED and not hot:
            raise BadSettings(
                "partition_by is mixed, but no hot goods are named",
                remedy="name some in hot_goods (stockledger hot finds them), or partition by goods",
            )
        if by is not PartitionBy.MIXED and (hot or hot_partitions is not None):
            named = "hot_goods" if hot else "hot_partitions"
            raise BadSettings(
                f"{named} is given, but partition_by is {by}: only mixed looks at it",
                remedy=f"partition by mixed, or leave {named} out",
            )
        return cls(by, hot, _one_of("hot_by", HotBy, hot_by), hot_partitions)

    def require(self, topic: str, partitions: int) -> None:
        """Raise BadSettings where the topic has too few partitions."""
        wanted = self._width(partitions)
        if self.partition_by is not PartitionBy.MIXED:
            return
        if self.hot_by is HotBy.ISOLATE and wanted >= partitions:
            what = f"can't set {wanted} aside for hot goods: the others need one at least"
        elif wanted > partitions:
            what = f"can't spread hot goods over {wanted}"
        else:
            return
        raise BadSettings(
            f"the topic {topic} has {counted(partitions, 'partition')}, so routing {what}; nothing was sent",
            remedy="ask for fewer hot_partitions, or add partitions to the topic",
        )

    def route(self, command: Ready, partitions: int) -> Route:
        """Where the command goes in a topic of so many partitions.

        0: it isn't known how many. Then `mixed` names no partition, and no key where that depends on it.
        """
        if self.partition_by is PartitionBy.USER and command.user_id:
            return Route(command.user_id, None, Why.USER)
        own = Why.GOODS if command.name in OF_GOODS else Why.USER
        if self.partition_by is not PartitionBy.MIXED:
            return Route(command.subject, None, own)
        place = self._places.get(command.subject) if own is Why.GOODS else None
        if not partitions:
            return self._unplaced(command, place is not None, own)
        if self.hot_by is HotBy.SPREAD:
            return self._spread(command, partitions, place is not None, own)
        return self._isolated(command, partitions, place, own)

    def _width(self, partitions: int) -> int:
        return self.hot_partitions or (1 if self.hot_by is HotBy.ISOLATE else partitions)

    def _unplaced(self, command: Ready, is_hot: bool, own: Why) -> Route:
        if self.hot_by is HotBy.ISOLATE:
            return Route(command.subject, None, Why.ISOLATED if is_hot else own)
        if not is_hot or not command.user_id:
            return Route(command.subject, None, own)
        width = self.hot_partitions
        key = f"{command.subject}/{_share(command.user_id, width)}" if width else ""
        return Route(key, None, Why.SPREAD)

    def _isolated(self, command: Ready, partitions: int, place: int | None, own: Why) -> Route:
        # The last ones are set aside. Only what would have come there moves, so all else stays in order. The
        # partition is always said: a client that hears of new partitions would put keys among the hot goods.
        aside = self._width(partitions)
        others = partitions - aside
        if place is not None:
            return Route(command.subject, others + place % aside, Why.ISOLATED)
        at = _share(command.subject, partitions)
        if at < others:
            return Route(command.subject, at, own)
        return Route(command.subject, _share(command.subject, others), Why.DISPLACED)

    def _spread(self, command: Ready, partitions: int, is_hot: bool, own: Why) -> Route:
        # From its own partition on, one after the other: hashes of keys would meet on some, and miss others.
        at = _share(command.subject, partitions)
        if not is_hot or not command.user_id:
            return Route(command.subject, at, own)
        share = _share(command.user_id, self._width(partitions))
        return Route(f"{command.subject}/{share}", (at + share) % partitions, Why.SPREAD)


def _one_of(name: str, kind: type[E], value: object) -> E:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, not {type(value).__name__}")
    try:
        return kind(value)
    except ValueError:
        words = ", ".join(kind)
        raise BadSettings(f"{name} can't be {value!r:.40}", remedy=f"use one of {words}") from None


def _goods(given: Iterable[str]) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"hot_goods must be a list of goods ids, not {type(given).__name__}")
    found = tuple(dict.fromkeys(given))
    for number, goods_id in enumerate(found, 1):
        try:
            validate(ListGoods, {"goods_id": goods_id})
        except ValueError as error:
            reason = str(error).removeprefix("goods_id: ")
            raise BadSettings(
                f"hot_goods: number {number} can't be the id of goods: {reason}",
                remedy="correct it or leave it out",
            ) from None
    return found


def _require_count(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"hot_partitions must be a number, not {type(value).__name__}")
    if value < 1:
        raise BadSettings(f"hot_partitions can't be {value}", remedy="ask for 1 or more, or leave it out")
