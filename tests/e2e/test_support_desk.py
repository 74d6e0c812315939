"""`outcome ID --deliveries`: each delivery of an id with what became of it, whatever became of it."""

import json

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from ledger.domain.commands import ListGoods, MessageKey, RegisterUser
from ledger.domain.envelope import encode
from tests.support.cli import Cli
from tests.support.publish import Publisher


def test_every_delivery_of_an_id(services, ledger_dsn, topic, kafka_settings):
    """The first one, a repeat on another partition, another payload, dead ones that name it, one that waits;
    each once, with its place; and what is somebody else's is left out."""
    name = topic(2)
    stockledger = Cli(ledger_dsn, services.kafka.bootstrap_servers, name, GROUP=name, **kafka_settings)
    to = Publisher({"bootstrap.servers": services.kafka.bootstrap_servers}, name)

    def send(partition, command, id="a/1", source="shop"):
        headers, value = encode(MessageKey(source, id), command)
        to.send_raw(value, headers, partition=partition)
        to.flush()

    send(0, RegisterUser(user_id="anna"))
    send(0, RegisterUser(user_id="ben"), id="other")
    stockledger("run", "--until-caught-up")
    send(1, RegisterUser(user_id="anna"))
    send(0, ListGoods(goods_id="tea"))
    to.send_raw(b"{", [("ce_id", b"a/1"), ("ce_source", b"shop")], partition=1)
    to.send_raw(json.dumps({"type": "ListGoods", "id": "a/1", "goods_id": "x"}).encode(), [], partition=1)
    to.send_raw(json.dumps({"note": "a/1"}).encode(), [], partition=1)
    to.flush()
    stockledger("run", "--until-caught-up")
    send(0, RegisterUser(user_id="anna"))

    answer = stockledger("outcome", "shop/a/1", "--deliveries")
    assert [o["outcome"] for o in answer["outcomes"]] == ["applied"]
    found = [(d["partition"], d["offset"], d["became"], d["in_kafka"]) for d in answer["history"]]
    assert found == [
        (0, 0, "applied", True), (0, 2, "conflict", True), (0, 3, "waiting", True),
        (1, 0, "duplicate", True), (1, 1, "dead", True), (1, 2, "dead", True),
    ]  # fmt: skip
    assert all(d["published_at"] for d in answer["history"])
    assert answer["history"][4]["detail"].startswith("repaired: ")

    if not services.kafka.real:
        return
    kept = TopicPartition(name, 0, 3)
    admin = AdminClient({"bootstrap.servers": services.kafka.bootstrap_servers})
    admin.delete_records([kept])[kept].result(30)
    gone = stockledger("outcome", "a/1", "--deliveries")["history"]
    assert [d["in_kafka"] for d in gone] == [False, False, True, True, True, True]
    assert [d["became"] for d in gone] == [became for _, _, became, _ in found]

    away = Cli(ledger_dsn, "127.0.0.1:1", name, **kafka_settings)
    told = away("outcome", "a/1", "--deliveries", exits=3)
    assert [d["became"] for d in told["history"]] == ["applied", "conflict", "dead", "dead"]
