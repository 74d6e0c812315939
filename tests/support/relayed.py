"""A ledger with a relay's topics, and what readers of committed records find in them."""

import json
from collections import Counter
from itertools import pairwise
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.admin import watermarks
from consumer.hidden import hidden
from ledger.domain.delivery import Lane
from producer.relay.outputs import Outputs
from stockledger.relay_topics import make
from stockledger.settings import load
from tests.support import contract
from tests.support.environment import inherited
from tests.support.publish import buys, says
from tests.support.workers import Process, wait_for

PARTITIONS = 3
PATIENCE_S = 90
BATCH = 7
GOODS = ("tea", "cup", "größe/ü")
SMALL_STEPS = (
    "-c",
    "from producer.relay import steps; from stockledger.__main__ import main; steps.RECORDS = 20; main()",
)
"""`stockledger relay` with a few entries a step, so that there are many."""
SHORT_TRANSACTIONS = (
    "-c",
    """
from producer.relay import transactions
from stockledger.__main__ import main

send = transactions.Transactions.send

def acknowledged(self, records):
    sent = send(self, records)
    self._producer.flush()
    return sent

transactions.TRANSACTION_TIMEOUT_MS = 1_000
transactions.Transactions.send = acknowledged
main()
""",
)
"""The same where the broker undoes a transaction after a second, and gets all at each step."""


class RelayedLedger:
    """Journal entries of a few purchases each, and the processes that relay them."""

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
        """So many purchases of less than there is, a repeat and a dead record, applied."""
        for goods in GOODS:
            self.sender.send(
                says("ReceiveStock", f"{name}-{goods}", goods_id=goods, quantity=count // 4), partition=0
            )
        for number in range(count):
            self.sender.send(buys(f"{name}-{number}", goods=GOODS[number % 3]), partition=number % 2)
        self.sender.send(buys(f"{name}-0"), says("PurchaseGoods", name, user_id="anna"), partition=0)
        self.sender.flush()
        self.group.catch_up(batch_size_max=BATCH)

    def start(self, *words, armed="", dsn="", program=SMALL_STEPS, **kafka):
        properties = {"bootstrap.servers": self.group.kafka["bootstrap.servers"], **kafka}
        options = [part for name, value in properties.items() for part in ("-X", f"{name}={value}")]
        environment = inherited() | {
            "STOCKLEDGER_DSN": dsn or self.group.dsn,
            "STOCKLEDGER_FAILPOINTS": armed,
        }
        given = ["--topic", self.group.topic, *options, *words]
        self.processes.append(Process(given, environment, verb="relay", program=program))
        return self.processes[-1]

    def catches_up(self, *words, **named):
        """Relay all that is there; what it answered."""
        process = self.start("--until-caught-up", *words, **named)
        code = process.ended()
        assert code == 0, (code, process.logged)
        return process.result()

    def settles(self):
        """Kafka has marked the end of each transaction in every lane."""
        there = self.admin.list_topics(timeout=PATIENCE_S).topics
        lanes = [Lane(topic, number) for topic in self.outputs for number in there[topic].partitions]
        kafka = {"bootstrap.servers": self.group.kafka["bootstrap.servers"]}
        wait_for("the transactions' ends", lambda: not hidden(kafka, watermarks(kafka, lanes).all()))

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
        tokens = self.tokens()
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
                assert said["ce_token"] == tokens[position]

    def proves_outcomes(self):
        rows = self.group.ask("SELECT source, id, outcome, reason, position FROM ledger.outcomes")
        lanes = self.read(self.outputs.outcomes)
        for each in (each for lane in lanes.values() for each in lane):
            contract.judge_record(each)
        told = [json.loads(each.value()) for lane in lanes.values() for each in lane]
        names = ("source", "id", "outcome", "reason", "position")
        tokens = self.tokens()
        assert Counter(tuple(each[name] for name in names) for each in told) == Counter(map(tuple, rows))
        assert all(each["token"] == tokens[each["position"]] for each in told)
        for lane in lanes.values():
            assert all(each.key().decode() == json.loads(each.value())["id"] for each in lane)
            for before, after in pairwise(map(place, lane)):
                assert before < after

    def tokens(self):
        """The token of each position of the one history that there is."""
        return dict(
            self.group.ask(
                "SELECT position, position || '-' || left(encode(hash, 'hex'), 16) FROM ledger.journal"
            )
        )

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
