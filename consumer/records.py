"""A topic's raw records, each with what it says. Nothing here joins a group or moves an offset.

Raises the ledger's faults: BrokerUnavailable where nobody answers in time, TopicUnfit where the topic can't
be used.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumer.admin import Marks
from consumer.clients import (
    PATIENT_TIMEOUT_S,
    RAW_READS,
    REQUEST_TIMEOUT_S,
    KafkaProperties,
    fault,
    open_consumer,
)
from consumer.raw_headers import RawReader
from ledger import codec
from ledger.domain.delivery import Bad, Delivery, Headers, Lane, Unread, pack
from ledger.errors import BrokerUnavailable

READ_SIZE = 1000
LAST_READ, LAST_READ_GROWTH = 100, 10
"""The last record is looked for in so many offsets, then in more: markers of transactions take some, too."""


def deliveries(kafka: KafkaProperties, lane: Lane, first_offset: int, next_offset: int) -> Iterator[Delivery]:
    """The lane's committed records in [`first_offset`, `next_offset`), as far as Kafka still has them.

    Raises BrokerUnavailable or TopicUnfit.
    """
    with closing(RawReader(kafka)) as raw:
        for message in messages(kafka, lane, first_offset, next_offset):
            yield raw.complete(lane, delivery(message))


def last_committed(kafka: KafkaProperties, lane: Lane, marks: Marks) -> bytes | None:
    """The value of the lane's last record between the marks, whatever a transaction that is open may add.

    None if there is none. Raises BrokerUnavailable or TopicUnfit.
    """
    end, size, found = marks.stable, LAST_READ, None
    while found is None and end > marks.first:
        begin = max(end - size, marks.first)
        for message in messages(kafka, lane, begin, end):
            found = message.value()
        end, size = begin, size * LAST_READ_GROWTH
    return found


def times(kafka: KafkaProperties, offsets: Mapping[Lane, int]) -> dict[Lane, datetime]:
    """When the records at these offsets were made, as far as Kafka hands them out in time.

    Also those of a transaction that is open. Raises BrokerUnavailable or TopicUnfit.
    """
    found: dict[Lane, datetime] = {}
    if not offsets:
        return found
    consumer = open_consumer(kafka, group=RAW_READS, isolation="read_uncommitted")
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    try:
        consumer.assign([TopicPartition(*lane, offset) for lane, offset in offsets.items()])
        while len(found) < len(offsets) and (left_s := deadline - time.monotonic()) > 0:
            message = consumer.poll(left_s)
            if message is None or message.error():
                continue
            lane = Lane(str(message.topic()), message.partition() or 0)
            found.setdefault(lane, datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC))
    except KafkaException as error:
        raise fault(error.args[0], "read a record's time") from error
    finally:
        consumer.close()
    return found


def messages(kafka: KafkaProperties, lane: Lane, first_offset: int, next_offset: int) -> Iterator[Message]:
    """The same as Kafka's client has them."""
    consumer = open_consumer(kafka, group=RAW_READS)
    try:
        position = max(first_offset, _kept_from(consumer, lane))
        consumer.assign([TopicPartition(lane.topic, lane.partition, position)])
        while position < next_offset:
            messages = available(consumer, READ_SIZE, PATIENT_TIMEOUT_S)
            if not messages:
                raise BrokerUnavailable(f"read {lane}: no answer", remedy="stockledger doctor")
            for message in messages:
                error = message.error()
                if error and error.code() != KafkaError._PARTITION_EOF:
                    raise fault(error, f"read {lane}")
                position = offset_of(message) + (0 if error else 1)
                if error and position < next_offset:
                    return  # the log ends before the range does
                if not error and position <= next_offset:
                    yield message
    finally:
        consumer.close()


def _kept_from(consumer: Consumer, lane: Lane) -> int:
    try:
        marks = consumer.get_watermark_offsets(TopicPartition(*lane), timeout=PATIENT_TIMEOUT_S)
    except KafkaException as error:
        raise fault(error.args[0], f"read {lane}") from error
    return int(marks[0])


def available(consumer: Consumer, size_max: int, timeout_s: float) -> list[Message]:
    """Wait for a first message, then take whatever else is there: never wait to fill a batch."""
    first = consumer.poll(timeout_s)
    return [] if first is None else [first, *consumer.consume(size_max - 1, timeout=0)]


def offset_of(message: Message) -> int:
    """The message's offset, which every consumed message has."""
    offset = message.offset()
    assert offset is not None
    return offset


NOTHING = iter(())


def delivery(message: Message) -> Delivery:
    """The record and what it says; Unread where that isn't known yet."""
    offset, key, value = offset_of(message), message.key(), message.value()
    epoch, (_, time_ms) = message.leader_epoch(), message.timestamp()
    epoch = -1 if epoch is None else epoch
    try:
        headers = cast("Headers | None", message.headers())
        next(
            NOTHING, None
        )  # raises what the binding may have left pending; its list then isn't to be touched
    except Exception:  # noqa: BLE001 (the binding fails in several ways on header names that aren't UTF-8)
        bad = Bad("headers", "a header's name isn't UTF-8; the headers couldn't be read")
        return Unread(offset, bad, pack(key, value, None, epoch, time_ms))
    return codec.in_use.delivery(offset, key, value, headers, epoch, time_ms)
