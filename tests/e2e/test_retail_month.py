"""The main job: a month of a real shop through real Kafka and Postgres."""

from contextlib import closing
from signal import SIGTERM

import pytest

from producer.publisher import Publisher
from tests.support import retail
from tests.support.cli import Cli
from tests.support.workers import Group, wait_for

PARTITIONS = 4
SESSION = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "1000"}
OWNERS = "SELECT count(DISTINCT owner_pid) FROM ledger.lane"


@pytest.mark.real_kafka
@pytest.mark.slow
@pytest.mark.parametrize("csv", [retail.MONTH], ids=lambda csv: csv.stem)
def test_a_month_ends_as_one_command_after_the_other(csv, services, ledger_dsn, topic, seed, tmp_path):
    """Every purchase published 1 to 3 times in a shuffled order, two workers: each id's outcome and reason,
    the stock and the purchases are exactly those of a sequential model, every repeat is a duplicate, nothing
    is dead, and `verify` finds every record of the topic accounted for."""
    kafka = {"bootstrap.servers": services.kafka.bootstrap_servers}
    setup_file, purchases_file = retail.write_files(csv, tmp_path)
    setup, purchases = retail.read_lines(setup_file), retail.read_lines(purchases_file)
    deliveries = retail.shuffled_deliveries(purchases, seed)
    total = len(setup) + len(deliveries)
    print(f"{csv.name}: {len(setup)} + {len(purchases)} commands, {total} deliveries")

    group = Group(ledger_dsn, kafka | SESSION, topic(PARTITIONS))
    stockledger = Cli(ledger_dsn, services.kafka.bootstrap_servers, group.topic, GROUP=group.name)
    with closing(group), closing(group.connect()) as conn:
        run = group.start("--workers", "2")
        wait_for("both workers own lanes", lambda: group.ask(OWNERS) == [(2,)])
        assert stockledger("publish", setup_file)["published"] == len(setup)
        retail.wait_for_deliveries(conn, len(setup))
        with Publisher(kafka, group.topic) as publisher:
            retail.send(publisher, deliveries)
        retail.wait_for_deliveries(conn, total)
        run.send(SIGTERM)
        assert run.ended() == 0
        retail.judge(conn, retail.model_of([*setup, *purchases]), total)

    said = run.result()["deliveries"]
    assert sum(said.values()) == total
    assert said["duplicate"] == len(deliveries) - len(purchases)
    assert stockledger("verify", "--topic")["checks"][-1]["name"] == "topic"
