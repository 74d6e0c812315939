"""Routing on a broker: what lands where, what is in order, and one effect however routing changes."""

import json
from collections import defaultdict
from contextlib import closing
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from ledger.domain.commands import ListGoods, PurchaseGoods, ReceiveStock, RegisterUser
from ledger.domain.outcome import Outcome
from ledger.domain.shares import share_of
from ledger.errors import BadSettings
from producer.publisher import Publisher
from tests.support import retail
from tests.support.publish import buys, shop
from tests.support.workers import Group, wait_for

USERS = 1000
HOT: dict[str, Any] = {"partition_by": "mixed", "hot_goods": ["tea"]}


@pytest.fixture
def kafka(services):
    return {"bootstrap.servers": services.kafka.bootstrap_servers}


@pytest.fixture
def group_of(kafka, ledger_dsn, topic):
    """`group_of(partitions)`: a group on a new topic of so many."""
    groups = []

    def make(partitions=4):
        groups.append(Group(ledger_dsn, kafka, topic(partitions)))
        return groups[-1]

    yield make
    for group in groups:
        group.close()


def records_of(kafka, topic, partitions):
    """All of the topic's records, lane by lane."""
    consumer = Consumer(kafka | {"group.id": "none", "enable.partition.eof": True})
    with closing(consumer):
        consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
        lanes, ends = defaultdict(list), 0
        while ends < partitions:
            record = consumer.poll(30)
            assert record is not None, "the broker doesn't answer"
            if error := record.error():
                assert error.code() == KafkaError._PARTITION_EOF
                ends += 1
            else:
                lanes[record.partition()].append(record)
    return lanes


def publish(kafka, group, lines, **routing):
    with Publisher(kafka, group.topic, **routing) as publisher:
        retail.send(publisher, lines)


def purchases(numbers, goods=("tea", "milk", "rum")):
    return [buys(f"b{n}", goods=goods[n % len(goods)], user=f"u{n % 7}") for n in numbers]


SETUP = shop(users=[f"u{n}" for n in range(7)], goods=["tea", "milk", "rum"])


def test_the_record_key_and_the_partitionkey_are_one(kafka, group_of):
    """By user, a purchase has its user for the key and says so in `ce_partitionkey`; where the
    key is the subject nothing is said. Kafka's own partitioner puts it where `share_of` says."""
    group = group_of()
    with Publisher(kafka, group.topic, "shop", partition_by="user") as publisher:
        publisher.send(RegisterUser(user_id="anna"))
        publisher.send(ListGoods(goods_id="茶"))
        receipt = publisher.send(PurchaseGoods(user_id="anna", goods_id="茶", quantity=1))
    records = [record for lane in records_of(kafka, group.topic, 4).values() for record in lane]
    found = {dict(record.headers())["ce_type"].decode(): record for record in records}
    register, listed, bought = (
        found[f"stockledger.{name}.v1"] for name in ("RegisterUser", "ListGoods", "PurchaseGoods")
    )
    assert (register.key(), listed.key(), bought.key()) == (b"anna", "茶".encode(), b"anna")
    heads = [dict(record.headers()) for record in (register, listed, bought)]
    assert [head.get("ce_partitionkey") for head in heads] == [None, None, b"anna"]
    assert [head["ce_subject"] for head in heads] == [b"anna", "茶".encode(), "茶".encode()]
    assert register.partition() == bought.partition() == receipt.partition == share_of("anna", 4)


def test_hot_goods_have_their_partition_to_themselves(kafka, group_of):
    """Isolated goods are alone on the last partition, with all their commands in order; spread ones are on
    all, a user's purchases on one, and each record's key says goods and share."""
    isolating, spreading = group_of(), group_of()
    goods = [f"g{number}" for number in range(50)]
    lines = [buys(f"{n}-{each}", goods=each, user=f"u{n}") for n in range(8) for each in (*goods, "tea")]
    publish(kafka, isolating, [*shop(goods=[*goods, "tea"]), *lines], **HOT)
    lanes = records_of(kafka, isolating.topic, 4)
    assert {record.key() for record in lanes[3]} == {b"tea"}
    assert len(lanes[3]) == 2 + 8
    assert all(record.key() != b"tea" for number in range(3) for record in lanes[number])

    publish(kafka, spreading, lines, **HOT, hot_by="spread")
    lanes = records_of(kafka, spreading.topic, 4)
    hot = [record for lane in lanes.values() for record in lane if record.key().startswith(b"tea/")]
    own = share_of("tea", 4)
    assert len(hot) == 8
    for record in hot:
        share = int(record.key().removeprefix(b"tea/"))
        assert record.partition() == (own + share) % 4
        assert dict(record.headers())["ce_partitionkey"] == record.key()
        assert dict(record.headers())["ce_subject"] == b"tea"


def ways(planned):
    """The plans of a dry run's answer, by the way of routing."""
    return {each["partition_by"]: each for each in planned["plan"]["ways"]}


OPTIONS = [
    [],
    ["--partition-by", "user"],
    ["--partition-by", "mixed", "--hot-goods", "tea", "--hot-goods", "g1", "--hot-partitions", "2"],
    ["--partition-by", "mixed", "--hot-goods", "tea", "--hot-by", "spread"],
]


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_what_a_dry_run_says_is_where_commands_go(options, kafka, group_of, tmp_path):
    """It asks the broker for the partitions and sends nothing; then publishing by the same options puts each
    command where it was said, under the key that was said."""
    group, file = group_of(), tmp_path / "orders.jsonl"
    goods = [*(f"g{number}" for number in range(12)), "tea", "tea", "tea"]
    lines = [buys(f"{n}-{at}", goods=each, user=f"u{n}") for n in range(3) for at, each in enumerate(goods)]
    file.write_text("\n".join(map(json.dumps, [*shop(), *lines])))
    planned = group.cli("publish", file, "--dry-run", *options)
    assert not records_of(kafka, group.topic, 4)
    assert (planned["partitions"], planned["published"], planned["plan"]["unknown"]) == (4, 0, "")
    group.cli("publish", file, *options)
    landed = records_of(kafka, group.topic, 4)
    plan = ways(planned)[planned["plan"]["partition_by"]]
    assert {each["partition"]: each["commands"] for each in plan["lanes"]} == {
        number: len(lane) for number, lane in landed.items()
    }
    where = {
        dict(record.headers())["ce_id"].decode(): (record.key().decode(), number)
        for number, lane in landed.items()
        for record in lane
    }
    shown = plan["commands"]
    assert len(shown) == 20
    assert [where[each["id"]] for each in shown] == [(each["key"], each["partition"]) for each in shown]


def test_a_dry_run_needs_no_broker(group_of, tmp_path):
    """Where none answers, or none is named, the partitions aren't known and it says why; with another
    partitioner than Kafka's nobody but the client knows."""
    file, cli = tmp_path / "orders.jsonl", group_of().cli
    file.write_text(json.dumps(buys("1")))
    for options, why in (
        (["-X", "bootstrap.servers=127.0.0.1:1"], "nothing was published"),
        (["-X", "partitioner=consistent"], "partitioner isn't Kafka's own"),
        (["--topic", "no-such-topic"], "no-such-topic doesn't exist"),
    ):
        planned = cli("publish", file, "--dry-run", *options)
        assert planned["partitions"] == 0
        assert why in planned["plan"]["unknown"]
        for way, key in (("goods", "tea"), ("user", "anna")):
            plan = ways(planned)[way]
            [command] = plan["commands"]
            assert (plan["lanes"], command["partition"]) == ([], None)
            assert (command["key"], command["why"]) == (key, way)
    del cli.environment["STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS"]
    assert cli("publish", file, "--dry-run")["plan"]["unknown"] == "no broker is named"


def test_a_dry_run_refuses_what_could_not_be_published(group_of, tmp_path):
    """More isolated partitions than the topic leaves, an id that can't be one: the errors of publishing."""
    file, cli = tmp_path / "orders.jsonl", group_of().cli
    file.write_text(json.dumps(buys("1")))
    mixed = ["publish", file, "--dry-run", "--partition-by", "mixed", "--hot-goods"]
    refused = cli(*mixed, "tea", "--hot-partitions", 4, exits=2)["error"]
    assert "can't set 4 aside" in refused["message"]
    assert "number 1 can't be" in cli(*mixed, " tea", exits=2)["error"]["message"]
    assert "no hot goods are named" in cli(*mixed[:-1], exits=2)["error"]["message"]


@pytest.mark.parametrize(
    ("routing", "partitions"),
    [(HOT, 1), (HOT | {"hot_partitions": 4}, 4), (HOT | {"hot_by": "spread", "hot_partitions": 5}, 4)],
)
def test_too_few_partitions_are_told_before_anything_is_sent(kafka, group_of, routing, partitions):
    """Only the broker knows how many there are: at the first send, with nothing in the topic."""
    group = group_of(partitions)
    with Publisher(kafka, group.topic, "shop", **routing) as publisher:
        for _ in range(2):
            with pytest.raises(BadSettings, match="nothing was sent"):
                publisher.send(ReceiveStock(goods_id="tea", quantity=1))
    assert not records_of(kafka, group.topic, partitions)


def test_registrations_come_before_their_users_purchases(kafka, group_of):
    """By user, set-up and purchases may be published together: of 1,000 users each is registered before he
    buys, though the lanes are applied side by side. The goods, which have lanes of their own, come first."""
    group = group_of()
    goods = shop(users=[], goods=["tea", "milk"], stock=10_000)
    publish(kafka, group, goods)
    group.catch_up()
    registers = shop(users=[f"u{n}" for n in range(USERS)], goods=[])
    buying = [buys(f"{n}-{each}", user=f"u{n}", goods=each) for n in range(USERS) for each in ("tea", "milk")]
    lines = [line for n in range(USERS) for line in (registers[n], *buying[2 * n : 2 * n + 2])]
    publish(kafka, group, lines, partition_by="user")
    assert len(records_of(kafka, group.topic, 4)) == 4
    assert group.catch_up(batch_size_max=100).counts[Outcome.REJECTED] == 0
    with closing(group.connect()) as conn:
        retail.judge(conn, retail.model_of([*goods, *lines]), len(goods) + len(lines))


STEPS: list[dict[str, Any]] = [
    {},
    {"partition_by": "user"},
    HOT,
    HOT | {"hot_partitions": 2, "hot_goods": ["milk", "tea"]},
    HOT | {"hot_by": "spread", "hot_partitions": 3},
    {},
]


@pytest.mark.real_kafka
def test_a_change_of_routing_changes_no_effect(kafka, group_of):
    """From goods to user, isolate, spread and back while a worker runs, with repeats of what was sent before
    under each other way: every command has one effect, the topic and the order of decisions are proven."""
    group = group_of()
    publish(kafka, group, SETUP)
    group.catch_up()
    sent = len(SETUP)
    every: list[retail.Line] = []
    with group.running(), closing(group.connect()) as conn:
        for step, routing in enumerate(STEPS):
            fresh = purchases(range(100 * step, 100 * step + 100))
            lines = [*fresh, *fresh[::2], *every[::3]]  # repeats on this side, and of all sides before
            publish(kafka, group, lines, **routing)
            every += fresh
            sent += len(lines)
        retail.wait_for_deliveries(conn, sent)
        retail.judge(conn, retail.model_of([*SETUP, *every]), sent)
    assert group.cli("verify", "--topic")["checks"][-1]["name"] == "topic"
    group.cli("replay", "--commands", "--check")


@pytest.mark.real_kafka
def test_partitions_may_be_added_while_goods_are_isolated(kafka, group_of):
    """A publisher keeps to the number that it met, also where its client has heard of more; a new one
    isolates at the new end. Between the two the order isn't kept, and each command counts once."""
    group = group_of(3)
    publish(kafka, group, SETUP)
    group.catch_up()
    lines = purchases(range(300))
    admin = AdminClient(kafka)
    with Publisher(kafka | {"topic.metadata.refresh.interval.ms": "100"}, group.topic, **HOT) as before:
        retail.send(before, lines[:100])
        admin.create_partitions([NewPartitions(group.topic, 5)])[group.topic].result(30)
        wait_for(
            "five partitions are known",
            lambda: len(admin.list_topics(group.topic, timeout=60).topics[group.topic].partitions) == 5,
        )
        retail.send(before, lines[100:200])
    publish(kafka, group, lines[150:], **HOT)  # some once more
    lanes = records_of(kafka, group.topic, 5)
    keys = {number: {record.key() for record in lane} for number, lane in lanes.items()}
    assert keys[4] == {b"tea"}
    told = {dict(record.headers())["ce_id"] for record in lanes[2] if record.key() == b"tea"}
    assert told >= {line["id"].encode() for line in lines[:200] if line["goods_id"] == "tea"}
    group.catch_up()
    with closing(group.connect()) as conn:
        retail.judge(conn, retail.model_of([*SETUP, *lines]), len(SETUP) + 350)
    assert group.cli("verify", "--topic")["checks"][-1]["name"] == "topic"
