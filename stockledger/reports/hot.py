"""Which goods the lanes are busy with, and what it would change to isolate them. Reads only.

Counted are deliveries, as they are in Kafka: repeats and refusals take a lane's time too, and the ledger
itself doesn't keep which goods a refused purchase was about.
"""

import json
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from consumer import known_log
from ledger.domain.delivery import Request
from ledger.domain.structs import AnyStruct
from ledger.store.reads import recent
from ledger.store.reads.recent import LaneRange
from producer.plain import Ready
from producer.routing import Routing, Why
from stockledger.settings import PREFIX, Settings
from stockledger.wiring import ledger_database

Subject = tuple[str, str]
"""What a command changes: a name of a command of its kind, and the goods' or user's id."""


@dataclass(frozen=True)
class Isolated:
    """What isolating these goods on so many partitions would come to."""

    goods: list[str]
    partitions: int
    busiest: float
    """The busiest lane's part of all deliveries."""
    moved: float
    """The part of all deliveries, hot ones aside, that would come by another partition than now by goods."""

    @property
    def setting(self) -> str:
        """The line that sets it."""
        named = {"PARTITION_BY": "mixed", "HOT_GOODS": json.dumps(self.goods, ensure_ascii=False)}
        if self.partitions > 1:
            named["HOT_PARTITIONS"] = str(self.partitions)
        return "export " + " ".join(f"{PREFIX}{name}={shlex.quote(value)}" for name, value in named.items())


@dataclass(frozen=True)
class Heat:
    """The deliveries of the newest entries, by what they change and by lane."""

    ranges: list[LaneRange]
    partitions: int
    lanes: dict[Subject, Counter[int]]
    others: Counter[int]
    """By lane: records that are no command."""

    @cached_property
    def total(self) -> int:
        """How many deliveries were read."""
        return sum(self.by_lane.values())

    @property
    def missing(self) -> int:
        """How many offsets of the entries hold no record: gone from Kafka, or a mark of a transaction."""
        return sum(each.next_offset - each.first_offset for each in self.ranges) - self.total

    @cached_property
    def by_lane(self) -> Counter[int]:
        """Deliveries by partition."""
        return sum(self.lanes.values(), Counter(self.others))

    @property
    def busiest(self) -> tuple[int, float]:
        """The partition with the most deliveries, and its part of all."""
        at, most = self.by_lane.most_common(1)[0]
        return at, most / self.total

    def goods(self, limit: int) -> list[tuple[str, Counter[int]]]:
        """The goods with the most deliveries, with the lanes that these came by."""
        found = [(id, lanes) for (name, id), lanes in self.lanes.items() if name == OF_GOODS]
        return sorted(found, key=lambda each: (-each[1].total(), each[0]))[:limit]

    def hot(self, limit: int) -> list[str]:
        """The goods that alone are as much as a lane's fair part of all."""
        fair = self.total / self.partitions
        return [id for id, lanes in self.goods(limit) if lanes.total() >= fair]

    def waiting(self, hot: Iterable[str]) -> float:
        """The part of all deliveries that isn't about these goods and comes by a lane of theirs."""
        theirs = [self.lanes[OF_GOODS, id] for id in hot]
        lanes = {at for each in theirs for at in each}
        beside = sum(count for at, count in self.by_lane.items() if at in lanes)
        return (beside - sum(each.total() for each in theirs)) / self.total

    def isolated(self, hot: list[str]) -> Isolated | None:
        """What isolating the goods would come to; None where there are none, or no partition for them."""
        width = min(len(hot), max(self.partitions // 2, 1))
        if not hot or self.partitions < 2:
            return None
        routing = Routing.of("mixed", hot, "isolate", width)
        lanes, moved = Counter(self.others), 0
        for (name, id), came in self.lanes.items():
            route = routing.route(Ready("", None, name, id, "", b""), self.partitions)
            lanes[route.lane(self.partitions)] += came.total()
            moved += came.total() if route.why is Why.DISPLACED else 0
        return Isolated(hot, width, max(lanes.values()) / self.total, moved / self.total)


OF_GOODS, OF_USERS = "ListGoods", "RegisterUser"


def look(
    settings: Settings, topic: str, records: int, progress: Callable[[str, int, int], None]
) -> Heat | None:
    """Count the topic's deliveries of the newest entries that took so many offsets; None if there are none.

    Raises what `Ledger.status` raises, and BrokerUnavailable, TopicUnfit or TopicReplaced.
    """
    kafka = settings.kafka_properties()
    with ledger_database(settings, "hot") as conn:
        ranges = [each for each in recent.newest(conn, records) if each.lane.topic == topic]
        known = known_log.read(conn)
    if not ranges:
        return None
    facts = known.inspect(kafka, topic)
    read = known_log.KnownRecords(kafka, known)
    lanes: defaultdict[Subject, Counter[int]] = defaultdict(Counter)
    others: Counter[int] = Counter()
    for each in ranges:
        partition = each.lane.partition
        for delivery in read(each.lane, each.first_offset, each.next_offset):
            content = delivery.content
            if isinstance(content, Request):
                lanes[_subject(content.command)][partition] += 1
            else:
                others[partition] += 1
            progress(
                str(each.lane), delivery.offset - each.first_offset, each.next_offset - each.first_offset
            )
    heat = Heat(ranges, facts.partitions, lanes, others)
    return heat if heat.total else None


def _subject(command: AnyStruct) -> Subject:
    goods_id = getattr(command, "goods_id", "")
    return (OF_GOODS, goods_id) if goods_id else (OF_USERS, getattr(command, "user_id", ""))


def as_json(heat: Heat, limit: int, unlisted: list[str]) -> dict[str, Any]:
    """The object of `hot --json`."""
    hot = heat.hot(limit)
    isolated = heat.isolated(hot)
    at, busiest = heat.busiest
    return {
        "deliveries": heat.total,
        "missing": heat.missing,
        "entries": sum(each.entries for each in heat.ranges),
        "first_position": min(each.first_position for each in heat.ranges),
        "last_position": max(each.last_position for each in heat.ranges),
        "partitions": heat.partitions,
        "goods": [
            {
                "goods_id": id,
                "deliveries": lanes.total(),
                "share": _rounded(lanes.total() / heat.total),
                "lanes": _lanes(lanes),
                "is_hot": id in hot,
            }
            for id, lanes in heat.goods(limit)
        ],
        "busiest": {"partition": at, "share": _rounded(busiest)},
        "waiting": _rounded(heat.waiting(hot)),
        "isolated": isolated
        and {
            "goods": isolated.goods,
            "partitions": isolated.partitions,
            "busiest": _rounded(isolated.busiest),
            "moved": _rounded(isolated.moved),
            "setting": isolated.setting,
        },
        "unlisted": unlisted,
    }


def _lanes(lanes: Mapping[int, int]) -> list[dict[str, int]]:
    return [{"partition": at, "deliveries": count} for at, count in sorted(lanes.items())]


def _rounded(part: float) -> float:
    return round(part, 4)
