"""What the demo and the fast tests need of the embedded broker, which librdkafka calls EXPERIMENTAL."""

import os
import signal

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from stockledger.embedded.kafka import EmbeddedKafka


@pytest.fixture
def broker():
    with EmbeddedKafka({"commands": 4}) as broker:
        yield broker


@pytest.fixture
def producer(broker):
    return Producer({"bootstrap.servers": broker.bootstrap_servers, "enable.idempotence": True})


def deliver(producer, count, **record):
    """Send `count` records and return the offsets that the broker acknowledged."""
    offsets = []

    def acknowledged(error, message):
        assert error is None
        offsets.append(message.offset())

    for _ in range(count):
        producer.produce("commands", on_delivery=acknowledged, **record)
    assert producer.flush(20) == 0
    return offsets


def read(broker, group, count):
    """Read `count` records as the group, advance its offsets, leave."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 2000,
        }
    )
    consumer.subscribe(["commands"])
    try:
        messages = consumer.consume(count, timeout=20)
        assert [message.error() for message in messages] == [None] * count
        consumer.commit(message=messages[-1], asynchronous=False)
    finally:
        consumer.close()
    return messages


def topic_id(broker):
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    [described] = admin.describe_topics(TopicCollection(["commands"])).values()
    return str(described.result(60).topic_id)


def watermarks(broker, partition):
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": "watermarks"})
    try:
        return consumer.get_watermark_offsets(TopicPartition("commands", partition), timeout=60)
    finally:
        consumer.close()


def test_records_arrive_with_key_headers_and_bytes(broker, producer):
    """Key, value and headers come out byte for byte, repeated headers too."""
    headers = [("ce_id", b"1"), ("ce_id", b"2"), ("none", None)]
    deliver(producer, 1, key=b"k\x00", value=b"\xff", headers=headers, partition=2)
    [message] = read(broker, "g", 1)
    assert (message.key(), message.value(), message.headers()) == (b"k\x00", b"\xff", headers)
    assert (message.partition(), message.offset()) == (2, 0)


def test_a_group_goes_on_where_it_stopped(broker, producer):
    """Advanced offsets are kept for the group's next member."""
    deliver(producer, 10, value=b"v", partition=0)
    assert [m.offset() for m in read(broker, "g", 4)] == [0, 1, 2, 3]
    assert [m.offset() for m in read(broker, "g", 6)] == [4, 5, 6, 7, 8, 9]


def test_a_topic_made_again_has_another_id(broker):
    """The id that the ledger stores tells a re-created topic from the old one."""
    before = topic_id(broker)
    assert topic_id(broker) == before
    broker.delete_topic("commands")
    broker.create_topic("commands", 4)
    assert topic_id(broker) != before


def test_records_can_be_deleted_from_the_head(broker, producer):
    """The low watermark moves, as under retention."""
    deliver(producer, 10, value=b"v", partition=1)
    broker.delete_records("commands", 1, before_offset=3)
    assert watermarks(broker, 1) == (3, 10)


def test_faults_delay_a_delivery_and_lose_nothing(broker, producer):
    """A cut connection, a refused request, a broker that was down: retries get through, once."""
    broker.push_request_errors(0, KafkaError._TRANSPORT, KafkaError.NOT_LEADER_FOR_PARTITION)
    assert deliver(producer, 1, value=b"v", partition=3) == [0]
    broker.set_down()
    broker.set_up()
    broker.set_rtt(20)
    assert deliver(producer, 1, value=b"v", partition=3) == [1]


def test_a_signal_does_not_end_the_broker(broker, producer):
    """It lives on when signals strike while the main thread has them blocked, as in making a client."""
    deliver(producer, 1, value=b"v", partition=0)
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        for _ in range(200):  # some of them while the broker waits for a request
            os.kill(os.getpid(), signal.SIGUSR1)
        assert deliver(producer, 1, value=b"v", partition=0) == [1]
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        signal.signal(signal.SIGUSR1, before)
    assert heard
