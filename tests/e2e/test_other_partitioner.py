"""The promise doesn't depend on where a record lands: other partitioners, one item on several lanes."""

import random
from collections import Counter
from contextlib import closing
from signal import SIGTERM
from zlib import crc32

import pytest

from tests.support import retail
from tests.support.publish import Publisher
from tests.support.workers import Group, wait_for

PARTITIONS = 4
BATCH_SIZE = "50"
"""Small, so that the lanes' batches interleave."""
OWNERS = "SELECT count(DISTINCT owner_pid) FROM ledger.lane"
IN_JOURNAL_ORDER = 'SELECT source, id FROM ledger.outcomes ORDER BY position, "offset"'


def by_user(line, choose):
    """All of a user's commands in one partition, whatever the goods."""
    return crc32(line.get("user_id", "").encode()) % PARTITIONS


def by_chance(line, choose):
    """Anywhere, and a repeat elsewhere."""
    return choose.randrange(PARTITIONS)


@pytest.mark.real_kafka
@pytest.mark.parametrize("prepared", [True, False], ids=["after_setup", "with_setup"])
@pytest.mark.parametrize("partition_of", [by_user, by_chance])
def test_any_partitioner_leaves_one_order(
    partition_of, prepared, services, ledger_dsn, topic, seed, tmp_path
):
    """A day's commands, half of them twice, spread over the partitions by another producer, two workers:
    replayed in the journal's order through a sequential model, the commands give the recorded outcome of
    every id and the stock; also where the set-up itself comes in between, so that many purchases meet users
    and goods that aren't there yet."""
    kafka = {"bootstrap.servers": services.kafka.bootstrap_servers}
    group = Group(ledger_dsn, kafka | {"heartbeat.interval.ms": "500"}, topic(PARTITIONS))
    publisher = Publisher(kafka, group.topic)
    setup, purchases = map(retail.read_lines, retail.write_files(retail.DAY, tmp_path))
    if prepared:
        publisher.send(*setup)
        publisher.flush()
        group.catch_up()
    choose = random.Random(seed)
    lines = purchases if prepared else [*setup, *purchases]
    deliveries = [*lines, *choose.sample(lines, len(lines) // 2)]
    choose.shuffle(deliveries)
    with closing(group):
        workers = [group.start("--batch", BATCH_SIZE) for _ in range(2)]
        wait_for("both own lanes", lambda: group.ask(OWNERS) == [(2,)])
        for line in deliveries:
            publisher.send(line, partition=partition_of(line, choose))
        publisher.flush()
        group.applies(publisher)
        for worker in workers:
            worker.send(SIGTERM)
        assert [worker.ended() for worker in workers] == [0, 0]
    done = [sum(worker.result()["deliveries"].values()) for worker in workers]
    assert all(done), f"one worker did all the work: {done}"

    commands = {(line["source"], line["id"]): line for line in [*setup, *purchases]}
    replayed = retail.model_of(commands[key] for key in group.ask(IN_JOURNAL_ORDER))
    assert len(replayed.outcomes) == len(commands)
    assert group.prove(publisher).outcomes == replayed.outcomes
    retries = sum(len(worker.said("batch is tried again")) for worker in workers)
    print(f"{len(deliveries)} deliveries, {done} by each worker, {retries} lost races")
    print(f"{Counter(replayed.outcomes.values())}")
