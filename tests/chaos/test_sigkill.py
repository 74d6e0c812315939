"""The promise against sudden death: workers killed at random moments, whatever they were doing."""

import time
from contextlib import closing

import pytest

from producer.publisher import Publisher
from tests.support import retail
from tests.support.cli import Cli
from tests.support.crew import Crew, short_session
from tests.support.workers import Group

PARTITIONS = 4
STRIKES = 30
BATCH_PARTS = (800, 1_600, 3_200, 8_000)
"""Small batches: so a worker is in a transaction most of the time, and the work outlasts the strikes."""
KILLS_MIN = 20
IN_TRANSACTION_MIN = 5

# A transaction takes its entry's number in its fence, and a number is never given back: each hole is a
# transaction that ended behind its fence and before its commit.
HOLES = "SELECT (SELECT last_value FROM ledger.entry_number) - (SELECT count(*) FROM ledger.journal)"


@pytest.mark.real_kafka
@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@pytest.mark.parametrize("csv", [retail.MONTH], ids=lambda csv: csv.stem)
def test_workers_killed_at_random_moments_change_nothing(
    csv, protocol, services, ledger_dsn, topic, seed, tmp_path
):
    """The month, every purchase delivered 1 to 3 times, while both workers are killed (SIGKILL) at least 20
    times, several of them inside a transaction, under either protocol of consumer groups: each id's outcome
    and reason, the stock and the purchases are exactly those of a sequential model, nothing is lost, doubled
    or dead."""
    kafka = {"bootstrap.servers": services.kafka.bootstrap_servers}
    setup_file, purchases_file = retail.write_files(csv, tmp_path)
    setup, purchases = retail.read_lines(setup_file), retail.read_lines(purchases_file)
    deliveries = retail.shuffled_deliveries(purchases, seed)
    total, step = len(setup) + len(deliveries), len(deliveries) // STRIKES + 1

    group = Group(ledger_dsn, kafka, topic(PARTITIONS))
    group.kafka |= short_session(group, protocol)
    stockledger = Cli(ledger_dsn, services.kafka.bootstrap_servers, group.topic, GROUP=group.name)
    assert stockledger("publish", setup_file)["published"] == len(setup)
    group.catch_up()
    with closing(group), closing(group.connect()) as conn, Publisher(kafka, group.topic) as publisher:
        begun = time.monotonic()
        crew = Crew(group, conn, seed, [max(1, len(deliveries) // part) for part in BATCH_PARTS])
        for first in range(0, len(deliveries), step):
            retail.send(publisher, deliveries[first : first + step])
            crew.strike(step, len(setup) + first + step)
        kills, took_s = crew.phases.total(), time.monotonic() - begun
        print(f"{csv.name}: {kills} kills in {took_s:.0f} s")
        print(f"{retail.delivered(conn)} of {total} deliveries were applied by then")
        print(f"what they hit: {dict(crew.phases.most_common())}")
        retail.wait_for_deliveries(conn, total)
        crew.stop()
        print(f"all delivered after {time.monotonic() - begun:.0f} s")
        retail.judge(conn, retail.model_of([*setup, *purchases]), total)
        [(holes,)] = conn.execute(HOLES)

    retries = sum(len(process.said("batch is tried again")) for process in group.processes)
    print(f"{holes} transactions ended without a commit, {retries} of them were given up and tried again")
    assert kills >= KILLS_MIN
    assert holes - retries >= IN_TRANSACTION_MIN, "too few kills hit an open transaction to prove anything"
    assert stockledger("verify", "--topic")["checks"][-1]["name"] == "topic"
