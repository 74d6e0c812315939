"""The one canonical workload: purchases as CloudEvents on Kafka, the same bytes for the same parameters.

Everything comes out of the seed, the ids too, so two contenders read equal records. What each command must
come to (`applied`, `rejected`, `duplicate`) is known beforehand: a contender that is fast and wrong is found.
"""

import random
import zlib
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

from confluent_kafka import Producer

from ledger.domain import envelope
from ledger.domain.commands import AnyCommand, MessageKey, PurchaseGoods, RegisterUser, record_key

SOURCE = "bench"
TIME = "2026-01-01T00:00:00.000Z"
FULL_POLL_S = 0.001
STOCK_EACH = 1_000_000_000
"""Pieces of each item before the first purchase: nothing sells out by accident."""
BORN_MS = 1_767_225_600_000
"""The time inside the UUIDv7 ids of seed 0; a later seed's ids are an hour younger each."""


@dataclass(frozen=True)
class Workload:
    """How many commands, over how many goods and users, and what makes them hard. Shares are 0 to 1."""

    commands: int = 100_000
    goods: int = 1_000
    users: int = 1_000
    zipf: float = 0.0
    """The exponent of the goods' popularity; 0 is uniform."""
    hot: float = 0.0
    """The share of the purchases that go to one single goods."""
    duplicates: float = 0.0
    """The share of the deliveries that repeat an earlier one, any of them as likely."""
    rejections: float = 0.0
    """The share of the purchases whose goods are sold out."""
    registrations: float = 0.0
    """The share of the commands that register a new user instead."""
    id_version: int = 7
    """The version of the UUIDs: 7 begins with the time, 4 is random."""
    seed: int = 7

    def deliveries(self) -> Iterator[tuple[MessageKey, AnyCommand, str]]:
        """Message key, command and outcome, in order."""
        choose = random.Random(self.seed)
        pick_goods = _picker(self, choose)
        sent: list[tuple[MessageKey, AnyCommand]] = []
        for n in range(self.commands):
            if sent and choose.random() < self.duplicates:
                yield *choose.choice(sent), "duplicate"
                continue
            key = MessageKey(SOURCE, self._id(n, choose))
            if choose.random() < self.registrations:
                command: AnyCommand = RegisterUser(user_id=f"new-{self.seed}-{n}")
                outcome = "applied"
            else:
                sold_out = choose.random() < self.rejections
                goods = f"gone{choose.randrange(100):07}" if sold_out else f"sku{pick_goods():07}"
                user = f"user{choose.randrange(self.users):07}"
                command = PurchaseGoods(user_id=user, goods_id=goods, quantity=choose.randint(1, 9))
                outcome = "rejected" if sold_out else "applied"
            if self.duplicates:
                sent.append((key, command))
            yield key, command, outcome

    def _id(self, n: int, choose: random.Random) -> str:
        bits = f"{choose.getrandbits(76):019x}"
        if self.id_version == 4:
            head = f"{choose.getrandbits(48):012x}"
        else:
            head = f"{BORN_MS + self.seed * 3_600_000 + n // 20:012x}"  # 20 commands a millisecond
            bits = f"{n % 20:03x}{bits[3:]}"  # and those rise, too (RFC 9562, 6.2, method 1)
        variant = "89ab"[int(bits[3], 16) & 3]
        return f"{head[:8]}-{head[8:]}-{self.id_version}{bits[:3]}-{variant}{bits[4:7]}-{bits[7:]}"


def _picker(workload: Workload, choose: random.Random) -> Callable[[], int]:
    """A function that picks the number of an item: the hot one, or by popularity."""
    ranks = range(1, workload.goods + 1) if workload.zipf else ()
    weights = list(accumulate(rank**-workload.zipf for rank in ranks))

    def pick() -> int:
        if workload.hot and choose.random() < workload.hot:
            return 0
        if weights:
            return bisect(weights, choose.random() * weights[-1])
        return choose.randrange(workload.goods)

    return pick


class Record(NamedTuple):
    """A Kafka record, encoded."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes | None]]

    def lane(self, partitions: int) -> int:
        """The partition of its key. Which one it is doesn't matter: only that one item keeps to one."""
        return zlib.crc32(self.key) % partitions


def put(
    producer: Producer,
    topic: str,
    record: Record,
    lane: int,
    on_delivery: Callable[[Any, Any], None] | None = None,
) -> None:
    """Queue the record for this lane; waits while the client's queue is full."""
    headers: Any = record.headers
    while True:
        with suppress(BufferError):
            producer.produce(topic, record.value, record.key, lane, headers=headers, on_delivery=on_delivery)
            return
        producer.poll(FULL_POLL_S)


@dataclass(frozen=True)
class Load:
    """The records of a workload, what each must come to, and how many pieces it takes from the stock."""

    records: list[Record]
    outcomes: list[str]
    pieces: list[int]

    def __len__(self) -> int:
        return len(self.records)

    def head(self, commands: int) -> "Load":
        """The first so many."""
        return Load(self.records[:commands], self.outcomes[:commands], self.pieces[:commands])

    @property
    def expected(self) -> Counter[str]:
        """How many come to each outcome."""
        return Counter(self.outcomes)


@lru_cache(maxsize=2)
def encoded(workload: Workload) -> Load:
    """The workload as records; the same bytes each time."""
    same: dict[tuple[str, bytes | None], tuple[str, bytes | None]] = {}  # headers repeat: keep one of each
    load = Load([], [], [])
    for key, command, outcome in workload.deliveries():
        subject = record_key(command)
        headers, value = envelope.encode(key, command, time=TIME, subject=subject)
        shared = [same.setdefault(h, h) if h[0] != "ce_id" else h for h in headers]
        load.records.append(Record(subject.encode(), value, shared))
        load.outcomes.append(outcome)
        sold = command.quantity if isinstance(command, PurchaseGoods) and outcome == "applied" else 0
        load.pieces.append(sold)
    return load


def commands(workload: Workload) -> Iterator[tuple[MessageKey, AnyCommand]]:
    """Message keys and commands, for whoever encodes them himself."""
    return ((key, command) for key, command, _ in workload.deliveries())
