"""A topic that never was, one that was deleted, one that was made again: each verb tells them apart."""

import json
import shlex
import uuid

import pytest

from tests.support.cli import Cli
from tests.support.workers import wait_for

pytestmark = [pytest.mark.real_kafka, pytest.mark.timeout(400)]
SET_UP = [
    {"type": "RegisterUser", "id": "u1", "user_id": "anna"},
    {"type": "ListGoods", "id": "g1", "goods_id": "cup"},
    {"type": "ReceiveStock", "id": "s1", "goods_id": "cup", "quantity": 10},
    {"type": "PurchaseGoods", "id": "p1", "user_id": "anna", "goods_id": "cup", "quantity": 4},
]


def lines(commands):
    return "".join(json.dumps({"source": "shop", **command}) + "\n" for command in commands)


@pytest.fixture
def name(topic):
    return topic(1)


@pytest.fixture
def stockledger(services, ledger_dsn, name):
    """The command line, with a ledger that has applied the shop's set-up from the topic."""
    stockledger = Cli(ledger_dsn, services.kafka.bootstrap_servers, name)
    stockledger("publish", "-", stdin=lines(SET_UP))
    stockledger("run", "--until-caught-up")
    return stockledger


@pytest.fixture
def deleted(services, stockledger, name):
    """The topic's name, once it is gone; made again in the end for the fixture that deletes it."""
    services.kafka.delete_topic(name)
    admin = services.kafka._admin()
    wait_for("it is gone", lambda: name not in admin.list_topics(timeout=60).topics)
    yield name
    if name not in admin.list_topics(timeout=60).topics:
        services.kafka.create_topic(name, 1)


READERS = [
    ("status",),
    ("run", "--until-caught-up"),
    ("publish", "-"),
    ("gap", "list"),
    ("gap", "accept", "0"),
    ("verify", "--topic"),
    ("replay", "--commands", "--check"),
]


def refused(stockledger, name):
    """All of them name the same fault and the same way on."""
    for verb in READERS:
        found = stockledger(*verb, stdin=lines(SET_UP), exits=4)
        assert found["error"]["code"] == "SL-GRP-004", (verb, found)
        assert found["error"]["remedy"] == f"stockledger migrate --topic {name}-2 --partitions 1", verb
    findings = stockledger("doctor", exits=1)["findings"]
    [topic] = [finding for finding in findings if finding["what"] in ("topic", "lanes")]
    assert (topic["level"], topic["fix"]) == ("fail", f"stockledger migrate --topic {name}-2 --partitions 1")
    again = stockledger("migrate", "--topic", name, "--partitions", 1, exits=4)
    assert again["error"]["remedy"] == f"stockledger migrate --topic {name}-2 --partitions 1"
    return again["error"]["remedy"]


def goes_on(services, stockledger, remedy, name):
    """The remedy as it is printed, then the verbs by `--topic`: what was applied stays applied once."""
    stockledger(*shlex.split(remedy)[1:])
    try:
        there = ("--topic", f"{name}-2")
        more = [
            *SET_UP,
            {"type": "PurchaseGoods", "id": "p2", "user_id": "anna", "goods_id": "cup", "quantity": 1},
        ]
        sent = stockledger("publish", "-", *there, stdin=lines(more))
        assert sent["next"] == f"stockledger run --until-caught-up --topic {name}-2"
        stockledger(*shlex.split(sent["next"])[1:])
        found = stockledger("status", *there)
        assert (found["lag"], found["deliveries"]["applied"], found["deliveries"]["duplicate"]) == (0, 5, 4)
        assert stockledger("stock", "cup")["on_hand"] == 5
        assert stockledger("doctor", *there)["ok"]
        proof = stockledger("verify", "--topic")
        assert [(lane["topic"], lane["partition"]) for lane in proof["left_behind"]] == [(name, 0)]
    finally:
        services.kafka.delete_topic(f"{name}-2")


def test_a_topic_that_was_deleted_is_never_made_again_by_a_remedy(services, stockledger, deleted):
    """It would be another log: the way on is another name, and it works as printed."""
    remedy = refused(stockledger, deleted)
    goes_on(services, stockledger, remedy, deleted)


def test_a_topic_that_was_made_again_is_refused_by_every_verb(services, stockledger, deleted):
    """With fewer records than were applied: no negative lag, nothing is published where nobody reads."""
    services.kafka.create_topic(deleted, 1)
    remedy = refused(stockledger, deleted)
    found = stockledger("status", exits=4)
    assert found["lag"] is None
    assert [(lane["lag"], lane["log_end_offset"]) for lane in found["lanes"]] == [(None, None)]
    goes_on(services, stockledger, remedy, deleted)


def test_a_topic_that_never_was_is_to_be_made(services, stockledger):
    """The ledger has no lanes there."""
    never = f"never-{uuid.uuid4().hex[:12]}"
    remedy = f"stockledger migrate --topic {never} --partitions 12"
    for verb in (("status",), ("run", "--until-caught-up"), ("gap", "list")):
        error = stockledger(*verb, "--topic", never, exits=4)["error"]
        assert (error["code"], error["remedy"]) == ("SL-KAFKA-005", remedy), verb
    findings = stockledger("doctor", "--topic", never, exits=1)["findings"]
    assert [finding["fix"] for finding in findings if finding["what"] == "topic"] == [remedy]
    made = stockledger(*shlex.split(remedy)[1:])
    assert made["topics"][0]["partitions"] == 12
    assert stockledger("status", "--topic", never)["lag"] == 0
    services.kafka.delete_topic(never)


def test_who_publishes_need_not_have_the_ledger_at_hand(services, stockledger, deleted):
    """Without a database in the settings, or with one that doesn't answer, commands are published as ever."""
    services.kafka.create_topic(deleted, 1)
    alone = Cli("postgresql://nobody@127.0.0.1:1/nothing", services.kafka.bootstrap_servers, deleted)
    assert alone("publish", "-", stdin=lines(SET_UP))["published"] == 4
    del alone.environment["STOCKLEDGER_DSN"]
    for libpq in [name for name in alone.environment if name.startswith("PG")]:
        del alone.environment[libpq]
    assert alone("publish", "-", stdin=lines(SET_UP))["published"] == 4
