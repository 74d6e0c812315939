"""The relay on a real broker: each entry once for readers of committed records, wherever it was killed."""

import json
from collections import Counter
from itertools import pairwise
from signal import SIGKILL
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

from ledger import failpoints
from producer.relay.outputs import Outputs
from stockledger.relay_topics import make
from stockledger.settings import load
from tests.support import contract
from tests.support.environment import inherited
from tests.support.publish import buys, says, shop
from tests.support.workers import Process, wait_for

pytestmark = pytest.mark.real_kafka
PARTITIONS = 3
PATIENCE_S = 60
BATCH = 7
GOODS = ("tea", "cup", "größe/ü")


CUT = """SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'stockledger/relay'"""
SMALL_STEPS = (
    "-c",
    "from producer.relay import relay; from stockledger.__main__ import main; relay.RECORDS = 20; main()",
)
"""`stockledger relay` with a few entries a step, so that there are many."""


class Relayed:
    """A ledger with a relay's topics, and what readers of committed records find in them."""

    def __init__(self, group, sender):
        self.group = group
        self.sender = sender
        self.outputs = Outputs.of(group.topic)
        self.processes = []
        self.admin = AdminClient({"bootstrap.servers": group.kafka["bootstrap.servers"], "log_level": 0})

    def make_topics(self):
        servers = self.group.kafka["bootstrap.servers"]
        make(load({}, [f"bootstrap.servers={servers}"]), self.group.topic, PARTITIONS)

    def sell(self, name, count=60):
        """So many purchases, a repeat and a dead record, applied."""
        for number in range(count):
            self.sender.send(buys(f"{name}-{number}", goods=GOODS[number % 3]), partition=number % 2)
        self.sender.send(buys(f"{name}-0"), says("PurchaseGoods", name, user_id="anna"), partition=0)
        self.sender.flush()
        self.group.catch_up(batch_size_max=BATCH)

    def start(self, *words, armed="", dsn="", **kafka):
        properties = {"bootstrap.servers": self.group.kafka["bootstrap.servers"], **kafka}
        options = [part for name, value in properties.items() for part in ("-X", f"{name}={value}")]
        environment = inherited() | {
            "STOCKLEDGER_DSN": dsn or self.group.dsn,
            "STOCKLEDGER_FAILPOINTS": armed,
        }
        given = ["--topic", self.group.topic, *options, *words]
        self.processes.append(Process(given, environment, verb="relay", program=SMALL_STEPS))
        return self.processes[-1]

    def catches_up(self, *words, **named):
        """Relay all that is there; what it answered."""
        process = self.start("--until-caught-up", *words, **named)
        code = process.ended()
        assert code == 0, (code, process.logged)
        return process.result()

    def read(self, topic):
        """All committed records, lane by lane."""
        partitions = self.admin.list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions
        reader = Consumer(
            {
                "bootstrap.servers": self.group.kafka["bootstrap.servers"],
                "group.id": "reader",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
            }
        )
        found: dict[int, list[Any]] = {number: [] for number in partitions}
        try:
            reader.assign([TopicPartition(topic, number, 0) for number in partitions])
            ends = 0
            while ends < len(partitions):
                record = reader.poll(PATIENCE_S)
                assert record is not None, "the broker doesn't answer"
                if error := record.error():
                    assert error.code() == KafkaError._PARTITION_EOF
                    ends += 1
                else:
                    found[lane_of(record)].append(record)
        finally:
            reader.close()
        return found

    def records(self, topic):
        return [record for lane in self.read(topic).values() for record in lane]

    def proves(self):
        """Each event and each outcome is there once, in order, as the contract has it; so is the stock."""
        self.proves_events()
        self.proves_outcomes()
        levels = {record.key().decode(): json.loads(record.value()) for record in self.latest_stock()}
        rows = self.group.ask("SELECT goods_id, on_hand, version FROM ledger.stock_levels")
        assert {name: (each["on_hand"], each["version"]) for name, each in levels.items()} == {
            name: rest for name, *rest in rows for rest in [tuple(rest)]
        }

    def proves_events(self):
        rows = self.group.ask(
            "SELECT position, ordinal, stream, version, type, data, source, id FROM ledger.events"
        )
        expected = {f"{row[0]}.{row[1]}": row for row in rows}
        lanes = self.read(self.outputs.events)
        seen = Counter(headers(each)["ce_id"] for lane in lanes.values() for each in lane)
        assert seen == Counter(expected.keys())
        tokens = dict(self.group.ask("SELECT position, left(encode(hash, 'hex'), 16) FROM ledger.journal"))
        for lane in lanes.values():
            for before, after in pairwise(map(place, lane)):
                assert before < after
            for each in lane:
                contract.judge_record(each)
                said = headers(each)
                position, _, stream, version, type_, payload, source, id_ = expected[said["ce_id"]]
                assert each.key().decode() == stream == said["ce_subject"]
                assert json.loads(each.value()) == payload
                assert said["ce_type"] == f"stockledger.{type_}.v1"
                assert (int(said["ce_version"]), said["ce_causationsource"], said["ce_causationid"]) == (
                    version, source, id_,
                )  # fmt: skip
                assert said["ce_token"] == f"{position}-{tokens[position]}"

    def proves_outcomes(self):
        rows = self.group.ask("SELECT source, id, outcome, reason, position FROM ledger.outcomes")
        lanes = self.read(self.outputs.outcomes)
        for each in (each for lane in lanes.values() for each in lane):
            contract.judge_record(each)
        told = [json.loads(each.value()) for lane in lanes.values() for each in lane]
        names = ("source", "id", "outcome", "reason", "position")
        assert Counter(tuple(each[name] for name in names) for each in told) == Counter(map(tuple, rows))
        for lane in lanes.values():
            assert all(each.key().decode() == json.loads(each.value())["id"] for each in lane)
            for before, after in pairwise(map(place, lane)):
                assert before < after

    def latest_stock(self):
        """The last record of each key, as compaction leaves it; versions never fall."""
        latest: dict[bytes, Any] = {}
        for lane in self.read(self.outputs.stock).values():
            for each in lane:
                contract.judge_record(each, "RelayedStock")
                before = latest.get(each.key())
                if before is not None:
                    assert json.loads(before.value())["version"] <= json.loads(each.value())["version"]
                latest[each.key()] = each
        return latest.values()

    def close(self):
        for process in self.processes:
            process.close()
        for future in self.admin.delete_topics(list(self.outputs)).values():
            future.exception(PATIENCE_S)


def lane_of(record):
    return record.partition()


def headers(record):
    return {name: value.decode() for name, value in record.headers()}


def place(record):
    """The place in the journal that its id names."""
    return tuple(map(int, headers(record)["ce_id"].split(".")))


@pytest.fixture
def relayed(new_group, publisher):
    """Journal entries of a few purchases each, some refused, and the relay's topics."""
    group = new_group(partitions=2)
    sender = publisher(group)
    sender.send(*shop(goods=GOODS, stock=40), partition=0)
    sender.flush()
    group.catch_up(batch_size_max=BATCH)
    made = Relayed(group, sender)
    made.make_topics()
    made.sell("first")
    yield made
    made.close()


def test_all_that_the_journal_says_is_there_once(relayed):
    """Events, outcomes and stock; a second run has nothing to add, and a later one adds what came since."""
    first = relayed.catches_up()
    relayed.proves()
    assert (first["events"], first["outcomes"]) == (
        len(relayed.records(relayed.outputs.events)), len(relayed.records(relayed.outputs.outcomes)),
    )  # fmt: skip
    again = relayed.catches_up()
    assert (again["events"], again["outcomes"], again["token"]) == (0, 0, first["token"])
    relayed.sell("second")
    assert relayed.catches_up()["events"] > 0
    relayed.proves()


@pytest.mark.slow
@pytest.mark.parametrize("step", failpoints.RELAY_STEPS)
def test_it_may_be_killed_at_any_point(relayed, step):
    """After each SIGKILL the next relay goes on exactly where the last commit was."""
    for hit in (1, 2):
        relayed.sell(f"before-{hit}")
        process = relayed.start(
            "--until-caught-up", armed=f"{step}=kill@{1 if step == 'relay.fenced' else hit}"
        )
        assert process.ended() in (-SIGKILL, 0)
    relayed.catches_up()
    relayed.proves()


def test_of_two_relays_the_later_one_works(relayed):
    """It fences the other, which says so and ends with a code; nothing is there twice."""
    first = relayed.start()
    first.says("ready")
    wait_for("it relays", lambda: relayed.records(relayed.outputs.positions))
    second = relayed.start()
    second.says("ready")
    relayed.sell("then")
    assert first.ended() == 4, first.logged
    error = first.result()["error"]
    assert error["code"] == "SL-RLY-001", error
    second.terminates()
    relayed.catches_up()
    relayed.proves()


def test_another_history_is_not_published_over_what_others_read(relayed):
    """A journal that was restored to an earlier state has other entries at the same positions: it stops."""
    relayed.catches_up()
    before = relayed.records(relayed.outputs.events)
    relayed.group.do("UPDATE ledger.head SET hash = sha256('another')")
    relayed.group.do("ALTER TABLE ledger.journal DISABLE TRIGGER ALL")
    relayed.group.do(
        "UPDATE ledger.journal SET hash = sha256('another') "
        "WHERE position = (SELECT max(position) FROM ledger.journal)"
    )
    process = relayed.start("--until-caught-up")
    assert process.ended() == 4
    assert process.result()["error"]["code"] == "SL-HIST-001"
    assert len(relayed.records(relayed.outputs.events)) == len(before)


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        ("events missing", "SL-KAFKA-005", "migrate"),
        ("events compacted", "SL-KAFKA-005", "cleanup.policy"),
        ("stock not compacted", "SL-KAFKA-005", "cleanup.policy"),
        ("too few replicas", "SL-KAFKA-005", "replicas"),
        ("events made again", "SL-GRP-004", "--to"),
        ("positions spoilt", "SL-KAFKA-005", "--to"),
    ],
)
def test_topics_that_cant_do_it_are_named_before_anything_is_written(relayed, spoil, code, words):
    """Exit 4 with the topic and the next step."""
    relayed.catches_up()
    before = len(relayed.records(relayed.outputs.outcomes))
    relayed.sell("then")
    events, stock = relayed.outputs.events, relayed.outputs.stock
    if spoil.startswith("events m"):
        relayed.admin.delete_topics([events])[events].result(PATIENCE_S)
        there = lambda: events in relayed.admin.list_topics(timeout=PATIENCE_S).topics  # noqa: E731
        wait_for("it is gone", lambda: not there())
        if spoil == "events made again":
            relayed.admin.create_topics([NewTopic(events, PARTITIONS, 1)])[events].result(PATIENCE_S)
            wait_for("it is back", there)
    elif spoil == "positions spoilt":
        stranger = Producer({"bootstrap.servers": relayed.group.kafka["bootstrap.servers"]})
        stranger.produce(relayed.outputs.positions, b"hello", b"x")
        stranger.flush(PATIENCE_S)
    else:
        name, setting, value = {
            "events compacted": (events, "cleanup.policy", "compact"),
            "stock not compacted": (stock, "cleanup.policy", "delete"),
            "too few replicas": (events, "min.insync.replicas", "2"),
        }[spoil]
        change = ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[change])
        relayed.admin.incremental_alter_configs([resource])[resource].result(PATIENCE_S)
    process = relayed.start("--until-caught-up")
    assert process.ended() == 4, process.logged
    error = process.result()["error"]
    assert error["code"] == code, error
    assert words in error["remedy"] or words in error["message"], error
    assert len(relayed.records(relayed.outputs.outcomes)) == before


def test_what_is_away_is_waited_for(relayed):
    """Its connection to the database is cut over and over: it goes on, each entry once."""
    process = relayed.start()
    process.says("ready")
    for number in range(3):
        relayed.sell(f"cut-{number}")
        wait_for("it is cut off", lambda: relayed.group.ask(CUT))
        process.says("ready", times=number + 2)
    process.terminates()
    relayed.catches_up()
    relayed.proves()


def test_a_topic_that_is_deleted_under_it_ends_it(relayed):
    """Exit 4, and the topic is named; what the journal has is not lost."""
    process = relayed.start()
    process.says("ready")
    events = relayed.outputs.events
    wait_for("it relays", lambda: relayed.records(events))
    relayed.admin.delete_topics([events])[events].result(PATIENCE_S)
    relayed.sell("then")
    assert process.ended() == 4, process.logged
    error = process.result()["error"]
    assert error["code"] == "SL-KAFKA-005", error


def test_it_begins_where_it_is_told_to_the_first_time_alone(relayed):
    """`--from latest` leaves out what was there; later runs go on, whatever they are told."""
    begun = relayed.catches_up("--from", "latest")
    assert begun["events"] == 0
    relayed.sell("then")
    assert relayed.catches_up("--from", "0")["events"] > 0
    last = int(begun["token"].partition("-")[0])
    assert {place(each)[0] for each in relayed.records(relayed.outputs.events)} == {
        position
        for (position,) in relayed.group.ask("SELECT position FROM ledger.events WHERE position > %s", last)
    }
