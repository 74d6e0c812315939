"""A share of a cache is the partition that a publisher's record goes to, among as many."""

import pytest
from confluent_kafka import Producer

from ledger.domain.shares import share_of

SHARES = 7


@pytest.mark.real_kafka
def test_librdkafka_chooses_the_same(services, topic):
    """Of each id, whatever its length and its characters, as `Publisher` has it: `murmur2_random`."""
    ids = ["a", "85123A", "BANK CHARGES", "Größe", "茶", "x" * 64, *(f"{n * 37}-{n}" for n in range(200))]
    chosen = {}
    name = topic(SHARES)
    producer = Producer(
        {"bootstrap.servers": services.kafka.bootstrap_servers, "partitioner": "murmur2_random"}
    )

    def note(error, record):
        chosen[record.key().decode()] = record.partition()

    for goods_id in ids:
        producer.produce(name, key=goods_id.encode(), on_delivery=note)
    assert producer.flush(30) == 0
    assert chosen == {goods_id: share_of(goods_id, SHARES) for goods_id in ids}
