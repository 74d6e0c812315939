"""Deliveries and batches from a few words, applied through one connection.

    lanes = Lanes(conn)
    lanes.apply(0, says("u1", RegisterUser(user_id="anna")), Record(None, b"no JSON", None), Hole(3))

Each lane keeps what was delivered (`delivered`), as Kafka would, so a test can hand it to `verify`.
"""

from collections.abc import Iterator
from typing import NamedTuple

from ledger import codec
from ledger.batch import Applied, apply_batch
from ledger.domain.commands import AnyCommand, MessageKey, record_key
from ledger.domain.delivery import Batch, Delivery, Gap, Lane, Record
from ledger.domain.envelope import encode
from ledger.store.connection.database import Connection, transaction
from ledger.store.tables import lane as lanes_table
from ledger.store.tables.lane import Claim, Owner

SOURCE = "shop"
TOPIC = "purchase-commands"


class Hole(NamedTuple):
    """The next `size` offsets hold no record."""

    size: int
    cause: str = "log_hole"
    accepted_by: str = ""


def says(id: str, command: AnyCommand, *, source: str = SOURCE) -> Record:
    """The record that brings the command (`source`, `id`)."""
    headers, value = encode(MessageKey(source, id), command)
    return Record(record_key(command).encode(), value, headers)


def read(offset: int, record: Record) -> Delivery:
    """The record as it is read at `offset`: a request, or a bad one."""
    return codec.in_use.delivery(offset, record.key, record.value, record.headers, -1, -1)


def deliver(offset: int, key: MessageKey, command: AnyCommand) -> Delivery:
    """The delivery of the command `key` at `offset`."""
    return read(offset, says(key.id, command, source=key.source))


class Lanes:
    """The partitions of one topic, each claimed at first use, with batches applied one after the other."""

    def __init__(self, conn: Connection, topic: str = TOPIC) -> None:
        self.conn = conn
        self.topic = topic
        self.claims: dict[int, Claim] = {}
        self.delivered: dict[Lane, dict[int, Delivery]] = {}

    def claim(self, partition: int) -> Claim:
        """Begin the lane if need be, and take it over: its epoch rises."""
        lane = Lane(self.topic, partition)
        with transaction(self.conn):
            lanes_table.begin(self.conn, lane, "topic-id")
            claimed = lanes_table.claim(self.conn, lane, Owner("test", 1))
        self.claims[partition] = claimed
        return claimed

    def batch(self, partition: int, *items: Record | Hole) -> Batch:
        """The items from the lane's next offset on, not yet applied."""
        first = offset = (self.claims.get(partition) or self.claim(partition)).next_offset
        deliveries, gaps = [], []
        for item in items:
            if isinstance(item, Hole):
                gaps.append(Gap(offset, offset + item.size, item.cause, item.accepted_by))
                offset += item.size
            else:
                deliveries.append(read(offset, item))
                offset += 1
        return Batch(Lane(self.topic, partition), first, offset, deliveries, gaps)

    def apply(self, partition: int, *items: Record | Hole) -> Applied:
        """Apply the items as one batch, and move on."""
        batch = self.batch(partition, *items)
        self.delivered.setdefault(batch.lane, {}).update({d.offset: d for d in batch.deliveries})
        applied = apply_batch(self.conn, batch, self.claims[partition].epoch)
        self.claims[partition] = self.claims[partition]._replace(next_offset=batch.next_offset)
        return applied

    def deliveries(self, lane: Lane, first_offset: int, next_offset: int) -> Iterator[Delivery]:
        """What Kafka would still have of [`first_offset`, `next_offset`)."""
        kept = self.delivered.get(lane, {})
        return (kept[offset] for offset in range(first_offset, next_offset) if offset in kept)
