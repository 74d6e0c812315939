"""`hot` and `status`: which goods the lanes are busy with, and goods that come by several lanes."""

import shlex

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from ledger.domain.shares import share_of
from producer.publisher import Publisher
from tests.support import retail
from tests.support.publish import buys, shop
from tests.support.workers import Group

GOODS = [f"g{number}" for number in range(40)]
FLOOD, EACH = 300, 5


@pytest.fixture
def group(services, ledger_dsn, topic):
    kafka = {"bootstrap.servers": services.kafka.bootstrap_servers}
    made = Group(ledger_dsn, kafka, topic(4))
    yield made
    made.close()


def publish(group, lines, **routing):
    with Publisher(group.kafka, group.topic, **routing) as publisher:
        retail.send(publisher, lines)


def flood(name):
    """A sale: one item that is soon sold out, and others."""
    hot = [buys(f"{name}-tea-{n}", user=f"u{n % 9}") for n in range(FLOOD)]
    return [*hot, *(buys(f"{name}-{n}-{each}", goods=each, user="u1") for each in GOODS for n in range(EACH))]


@pytest.fixture
def busy(group):
    publish(group, shop(users=[f"u{n}" for n in range(9)], goods=[*GOODS, "tea"], stock=20))
    group.catch_up()
    publish(group, flood("first"))
    group.catch_up()
    return group


def test_hot_goods_are_found_and_the_line_that_isolates_them(busy):
    """Refused purchases count, so an item that is sold out is found. What isolating it would change comes
    true when the line that was shown is set and the same sale is published."""
    total = FLOOD + EACH * len(GOODS)
    found = busy.cli("hot", "--records", total)
    assert (found["deliveries"], found["missing"], found["partitions"]) == (total, 0, 4)
    assert found["goods"][0] == {
        "goods_id": "tea", "deliveries": FLOOD, "share": round(FLOOD / total, 4), "is_hot": True,
        "lanes": [{"partition": share_of("tea", 4), "deliveries": FLOOD}],
    }  # fmt: skip
    assert [each["is_hot"] for each in found["goods"][1:]] == [False] * 9
    beside = sum(share_of(each, 4) == share_of("tea", 4) for each in GOODS) * EACH
    assert found["waiting"] == round(beside / total, 4)
    assert found["busiest"] == {
        "partition": share_of("tea", 4), "share": round((FLOOD + beside) / total, 4)
    }  # fmt: skip

    word, *assigned = shlex.split(found["isolated"]["setting"])
    assert word == "export"
    named = {
        name.removeprefix("STOCKLEDGER_"): value for name, _, value in (a.partition("=") for a in assigned)
    }
    publish(busy, flood("second"), partition_by=named["PARTITION_BY"], hot_goods=["tea"])
    busy.catch_up()
    after = busy.cli("hot", "--records", total)
    assert after["busiest"] == {"partition": 3, "share": found["isolated"]["busiest"]}
    assert after["waiting"] == 0
    moved = sum(share_of(each, 4) == 3 for each in GOODS) * EACH
    assert found["isolated"]["moved"] == round(moved / total, 4)


def test_a_hot_item_that_was_never_listed_is_only_noted(busy):
    """Publishers don't know the ledger: the list may name anything. `hot` says what isn't there."""
    cli = busy.cli
    cli.environment |= {"STOCKLEDGER_PARTITION_BY": "mixed", "STOCKLEDGER_HOT_GOODS": '["tea", "no,tea"]'}
    assert cli("hot")["unlisted"] == ["no,tea"]
    assert "no,tea are on the list of hot goods, and were never listed" in cli.said


@pytest.mark.real_kafka
def test_doctor_looks_at_the_routing(busy):
    """It names a hot item that was never listed, and refuses what the topic has too few partitions for."""
    cli = busy.cli
    cli.environment |= {"STOCKLEDGER_PARTITION_BY": "mixed", "STOCKLEDGER_HOT_GOODS": '["tea", "no,tea"]'}
    [found] = [each for each in cli("doctor")["findings"] if each["what"] == "routing"]
    assert (found["level"], "no,tea was never listed" in found["found"]) == ("warn", True)
    cli.environment["STOCKLEDGER_HOT_PARTITIONS"] = "4"
    [found] = [each for each in cli("doctor", exits=1)["findings"] if each["what"] == "routing"]
    assert "can't set 4 aside" in found["found"]


def test_where_nothing_is_hot_nothing_is_set(group):
    """Set-up of many goods alone: no line to copy. An empty ledger says what is to be done first."""
    assert group.cli("hot", exits=4)["error"]["code"] == "SL-CLI-002"
    publish(group, shop(goods=GOODS))
    group.catch_up()
    found = group.cli("hot")
    assert found["isolated"] is None
    assert not any(each["is_hot"] for each in found["goods"])


@pytest.mark.real_kafka
def test_what_kafka_has_no_more_is_said(busy):
    """Records that retention removed are counted as missing, and the rest is still told."""
    before = busy.cli("hot")
    lane = TopicPartition(busy.topic, share_of("tea", 4), 200)
    admin = AdminClient(busy.kafka)
    admin.delete_records([lane])[lane].result(30)
    found = busy.cli("hot")
    assert (found["missing"], found["deliveries"]) == (200, before["deliveries"] - 200)


def test_goods_on_several_lanes_are_seen_in_status(busy):
    """By goods each item has one lane. After a producer that routes by user, or that has another list of hot
    goods, it has several: how many, of how many, and examples with their lanes."""
    several = busy.cli("status")["several_lanes"]
    assert (several["goods"], several["of"], several["examples"]) == (0, len(GOODS) + 1, [])
    publish(busy, [buys(f"late-{n}", goods="g1", user=f"u{n}") for n in range(9)], partition_by="user")
    busy.catch_up()
    several = busy.cli("status")["several_lanes"]
    assert several["goods"] == 1
    [example] = several["examples"]
    lanes = {share_of(f"u{n}", 4) for n in range(9)} | {share_of("g1", 4)}
    assert example["goods_id"] == "g1"
    assert example["lanes"] == [{"topic": busy.topic, "partition": at} for at in sorted(lanes)]

    other = next(each for each in GOODS if each != "g1" and share_of(each, 4) != 3)
    publish(busy, [buys("isolated", goods=other, user="u1")], partition_by="mixed", hot_goods=[other])
    busy.catch_up()
    several = busy.cli("status")["several_lanes"]
    assert several["goods"] == 2
    found = {each["goods_id"]: [lane["partition"] for lane in each["lanes"]] for each in several["examples"]}
    assert found == {"g1": sorted(lanes), other: [share_of(other, 4), 3]}
