"""`replay --commands --check` on a real topic: a shop's day on four lanes, with repeats and conflicts."""

import json
import random
import time

import psycopg
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from tests.support import retail
from tests.support.cli import Cli

pytestmark = pytest.mark.real_kafka

PARTITIONS = 4
LAST_REJECTED = """
SELECT source, id, reason, position FROM ledger.outcomes
WHERE reason = 'insufficient_stock' ORDER BY position DESC, "offset" DESC LIMIT 1
"""


@pytest.fixture
def day(new_group, publisher, services, seed, tmp_path):
    """The day applied: each purchase 1 to 3 times, some changed, on any lane."""
    group = new_group(PARTITIONS)
    setup, purchases = map(retail.read_lines, retail.write_files(retail.DAY, tmp_path))
    sender, choose = publisher(group), random.Random(seed)
    sender.send(*setup)
    sender.flush()
    group.catch_up()
    for line in retail.shuffled_deliveries(purchases, seed):
        changed = choose.random() < 0.05 and "quantity" in line
        sender.send(
            line | {"quantity": line["quantity"] + 1} if changed else line, partition=choose.randrange(4)
        )
    sender.send_raw(b"no JSON", partition=1)
    sender.flush()
    group.catch_up(batch_size_max=700)
    stockledger = Cli(group.dsn, services.kafka.bootstrap_servers, group.topic, GROUP=group.name)
    return group, sender, stockledger


def check(stockledger, **options):
    return stockledger("replay", "--commands", "--check", **options)


def test_a_day_agrees_and_a_flipped_outcome_is_named(day):
    """All outcomes are those of a sequential run in journal order; with one flipped by hand it says which."""
    group, sender, stockledger = day
    start = time.monotonic()
    answer = check(stockledger)
    print(f"{answer['records']} records in {time.monotonic() - start:.1f} s: {answer['deliveries']}")
    assert answer["agrees"]
    assert answer["records"] == len(sender.sent)
    assert all(
        answer["deliveries"][word] for word in ("applied", "rejected", "duplicate", "conflict", "dead")
    )
    [(source, id_, reason, position)] = group.ask(LAST_REJECTED)
    with psycopg.connect(group.dsn, autocommit=True) as owner:
        owner.execute("ALTER TABLE ledger.processed_message DISABLE TRIGGER no_update")
        owner.execute(
            "UPDATE ledger.processed_message SET reason = NULL, version = 9 WHERE source = %s AND id = %s",
            (source, id_),
        )
        owner.execute("ALTER TABLE ledger.processed_message ENABLE ALWAYS TRIGGER no_update")
    answer = check(stockledger, exits=4)
    found = answer["difference"]
    assert (found["source"], found["id"], found["position"]) == (source, id_, position)
    assert (found["expected"], found["recorded"]) == (f"rejected {reason}", "applied as version 9")
    assert answer["error"]["code"] == "SL-VER-001"
    assert json.dumps(id_)[1:-1] in answer["error"]["message"]


def test_it_is_right_while_workers_run(day):
    """It is bounded by the head at its start: what is applied meanwhile changes nothing."""
    group, sender, stockledger = day
    worker = group.start()
    [(before,)] = group.ask("SELECT position FROM ledger.head")
    sender.send(
        *({**line.line, "id": f"again-{n}"} for n, line in enumerate([*sender.sent.values()]) if line.line)
    )
    answer = check(stockledger)
    assert answer["agrees"]
    assert answer["position"] >= before
    sender.flush()
    assert worker.alive


def test_records_that_kafka_deleted(day):
    """Without its first records a lane can't be proved: exit 4, and it says from which offset on."""
    group, _, stockledger = day
    admin = AdminClient({"bootstrap.servers": group.kafka["bootstrap.servers"]})
    kept = TopicPartition(group.topic, 2, 10)
    admin.delete_records([kept])[kept].result(30)
    error = check(stockledger, exits=4)["error"]
    assert error["code"] == "SL-VER-002"
    assert f"{group.topic}[2]" in error["message"]
    assert "offset 10" in error["message"]
