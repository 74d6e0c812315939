"""A ledger with two topics, asked by the command line: each answer says which topic it speaks of."""

import json
import shlex

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.support.cli import Cli
from tests.support.parked import listing, park

pytestmark = [pytest.mark.real_kafka, pytest.mark.timeout(400)]
SET_UP = [
    {"type": "RegisterUser", "id": "u1", "user_id": "anna"},
    {"type": "ListGoods", "id": "g1", "goods_id": "cup"},
    {"type": "ReceiveStock", "id": "s1", "goods_id": "cup", "quantity": 10},
]
BUYS = {"type": "PurchaseGoods", "user_id": "anna", "goods_id": "cup", "quantity": 1}


def lines(*commands):
    return "".join(json.dumps({"source": "shop", **command}) + "\n" for command in commands)


@pytest.fixture
def names(topic):
    """The topics' names, in their order."""
    return tuple(sorted((topic(1), topic(1))))


@pytest.fixture
def stockledger(services, ledger_dsn, names):
    """The command line whose settings name both topics; the shop's set-up is applied from the first."""
    stockledger = Cli(ledger_dsn, services.kafka.bootstrap_servers, ",".join(names), GROUP=names[0])
    stockledger("publish", "-", "--topic", names[0], stdin=lines(*SET_UP))
    stockledger("run", "--until-caught-up")
    return stockledger


@pytest.fixture
def send(stockledger, services):
    """`send(topic, value)`: a record that may be no command."""

    def produce(topic, value):
        producer = Producer({"bootstrap.servers": services.kafka.bootstrap_servers})
        producer.produce(topic, value, partition=0)
        assert producer.flush(60) == 0

    return produce


def test_commands_go_through_two_topics_and_count_once(stockledger, names):
    """Published to one, then to the other: both deliveries are named, and the stock fell once.
    The whole ledger is proven and decided again."""
    main, hot = names
    for name in names:
        stockledger("publish", "-", "--topic", name, stdin=lines({**BUYS, "id": "p1"}))
        assert stockledger("status")["lag"] == 1
        assert stockledger("run", "--until-caught-up")["lag"] == 0
    assert stockledger("stock", "cup")["on_hand"] == 9
    history = stockledger("outcome", "p1", "--deliveries")["history"]
    assert [(each["topic"], each["became"]) for each in history] == [(main, "applied"), (hot, "duplicate")]
    assert history[1]["detail"] == f"of {main}[0]@3"
    assert {lane["topic"] for lane in stockledger("status")["lanes"]} == {*names}
    again = stockledger("run", "--until-caught-up", "--topic", main, "--topic", hot)
    assert again["next"] == f"stockledger status --topic {main} --topic {hot}"
    assert stockledger("verify", "--topic")["left_behind"] == []
    assert stockledger("replay", "--commands", "--check")["records"] == 5
    found = stockledger("doctor")["findings"]
    assert [each["found"].split(",")[0] for each in found if each["what"] == "topic"] == [main, hot]


def test_what_is_about_one_topic_asks_which(stockledger, names, tmp_path):
    """Its next step is that for the first, and works as printed."""
    (tmp_path / "orders.jsonl").write_text(lines({**BUYS, "id": "p1"}))
    refused = stockledger("publish", tmp_path / "orders.jsonl", exits=2)["error"]
    assert f"names 2 topics ({names[0]}, {names[1]})" in refused["message"]
    assert refused["remedy"] == f"stockledger publish --topic {names[0]} {tmp_path}/orders.jsonl"
    sent = stockledger(*shlex.split(refused["remedy"])[1:])
    assert (sent["published"], sent["topic"]) == (1, names[0])
    for verb in (("gap", "accept", 0), ("hot",), ("serve",)):
        refused = stockledger(*verb, exits=2)["error"]
        assert f" --topic {names[0]}" in refused["remedy"]


def test_a_topic_that_the_settings_do_not_name_is_shown(stockledger, names, services, ledger_dsn):
    """`status` has its lag and says that nobody applies it; the next step does. Once it is deleted it is only
    shown, while one in the settings is an error."""
    main, hot = names
    stockledger("publish", "-", "--topic", hot, stdin=lines({**BUYS, "id": "p1"}))
    stockledger("run", "--until-caught-up")
    stockledger("publish", "-", "--topic", hot, stdin=lines({**BUYS, "id": "p2"}))
    alone = Cli(ledger_dsn, services.kafka.bootstrap_servers, main, GROUP=main)
    assert alone("run", "--until-caught-up")["lag"] == 0
    found = alone("status")
    assert {lane["topic"]: lane["lag"] for lane in found["lanes"]} == {main: 0, hot: 1}
    assert (found["lag"], found["next"]) == (1, f"stockledger run --topic {hot}")
    alone(*shlex.split(found["next"])[1:], "--until-caught-up")
    assert alone("status")["lag"] == 0
    services.kafka.delete_topic(hot)
    found = alone("status")
    why = {lane["topic"]: lane["why"] for lane in found["lanes"]}
    assert (why[main], "was deleted" in why[hot]) == (None, True)
    refused = stockledger("status", exits=4)["error"]
    assert (refused["code"], hot in refused["message"]) == ("SL-GRP-004", True)
    services.kafka.create_topic(hot, 1)  # for the fixture to delete


def test_dead_letters_of_two_topics_are_told_apart(stockledger, names, send):
    """Both at the same partition and offset: the short form means nothing, in whichever settings."""
    main, hot = names
    for name in names:
        for n in range(4):
            send(name, f"no command {n}".encode())
    stockledger("run", "--until-caught-up")
    listed = stockledger("dlq", "list")
    at = {letter["topic"]: letter["offset"] for letter in listed["dead_letters"]}
    assert at == {main: 6, hot: 3}
    assert listed["next"] == f"stockledger dlq show '{main}[0]@3'"
    for name in names:
        assert stockledger("dlq", "show", f"{name}[0]@3")["topic"] == name
    for options in ((), ("--topic", hot)):  # whatever is set: the ledger has two
        refused = stockledger("dlq", "show", "0@3", *options, exits=2)["error"]
        assert f"several topics ({main}, {hot})" in refused["message"]
    done = stockledger("dlq", "discard", f"{hot}[0]@3", "--yes")["discarded"]
    assert [(letter["topic"], letter["offset"]) for letter in done] == [(hot, 3)]
    assert stockledger("dlq", "show", f"{main}[0]@3")["status"] == "parked"


def test_a_letter_is_redriven_to_the_topic_that_it_came_from(stockledger, names):
    """Not to the first one of the settings; it is applied from there."""
    hot = names[1]
    park({**stockledger.environment, "STOCKLEDGER_TOPIC": hot}, listing("late", "pot"))
    done = stockledger("dlq", "redrive", f"{hot}[0]@0", "--yes")
    assert [(letter["topic"], letter["offset"]) for letter in done["redriven"]] == [(hot, 0)]
    stockledger("run", "--until-caught-up")
    [outcome] = stockledger("outcome", "late")["outcomes"]
    assert (outcome["topic"], outcome["offset"], outcome["outcome"]) == (hot, 1, "applied")
    assert stockledger("verify", "--topic")["ok"]


def test_a_loss_is_accepted_for_one_topic(stockledger, names, services, send):
    """Both topics are looked at; what waits is named with the command that accepts it."""
    hot = names[1]
    send(hot, b"read by nobody")
    lost = TopicPartition(hot, 0, -1)
    admin = AdminClient({"bootstrap.servers": services.kafka.bootstrap_servers})
    admin.delete_records([lost])[lost].result(30)
    refused = stockledger("run", "--until-caught-up", exits=4)["error"]
    assert (refused["code"], refused["remedy"]) == ("SL-GRP-002", f"stockledger gap accept 0 --topic {hot}")
    listed = stockledger("gap", "list")
    assert [(gap["topic"], gap["first_offset"]) for gap in listed["waiting"]] == [(hot, 0)]
    assert listed["next"] == refused["remedy"]
    stockledger(*shlex.split(listed["next"])[1:], "--yes")
    assert stockledger("run", "--until-caught-up")["caught_up"]
    assert [gap["topic"] for gap in stockledger("gap", "list")["gaps"]] == [hot]
