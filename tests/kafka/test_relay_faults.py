"""The relay among rare faults: a transaction that timed out, and a ledger that was restored."""

import signal

import pytest
from psycopg.conninfo import conninfo_to_dict

from consumer import admin
from ledger.store.connection.database import connect
from ledger.store.tables import identity
from tests.conftest import database
from tests.support.relayed import BATCH, SHORT_TRANSACTIONS
from tests.support.workers import Group, wait_for

pytestmark = pytest.mark.real_kafka


@pytest.mark.slow
def test_a_transaction_that_timed_out_is_begun_again(relayed):
    """It stood still for so long that the broker undid what it had begun: it says so and goes on."""
    relayed.catches_up()
    relayed.sell("second")
    process = relayed.start(
        armed="relay.placed=stop", program=SHORT_TRANSACTIONS, **{"message.timeout.ms": "1000"}
    )

    def is_open():
        lanes = admin.inspect(relayed.group.kafka, relayed.outputs.outcomes).lanes
        return any(
            each.stable < each.end for each in admin.watermarks(relayed.group.kafka, lanes).all().values()
        )

    process.frozen()
    assert is_open()
    wait_for("the broker ends it", lambda: not is_open())
    process.send(signal.SIGCONT)
    process.says("waiting")
    process.says("ready", times=2)
    process.terminates()
    relayed.catches_up()
    relayed.proves()


@pytest.fixture
def restored(relayed, services):
    """The ledger as it was before the last sales, which are relayed: its DSN."""
    name = conninfo_to_dict(relayed.group.dsn)["dbname"]
    relayed.catches_up()
    with database(services, "restored", name) as copy:
        relayed.sell("lost")
        relayed.catches_up()
        yield services.postgres.dsn(copy)


@pytest.mark.slow
def test_a_restored_ledger_is_not_published_over_what_others_read(relayed, restored):
    """First positions are missing, then they have other entries: it stops, and what others have read stays.

    `status` and `doctor` name the relay that can't go on.
    """
    before = len(relayed.records(relayed.outputs.events))
    stops(relayed, restored)
    with connect(restored, purpose="test") as conn:
        identity.adopt(conn)
    copy = Group(restored, relayed.group.kafka, relayed.group.topic)
    copy.catch_up(batch_size_max=BATCH)
    stops(relayed, restored)
    assert len(relayed.records(relayed.outputs.events)) == before
    [relay] = copy.cli("status")["relays"]
    assert relay["lag"] is None
    assert "another history" in relay["why"]
    [found] = [each for each in copy.cli("doctor", exits=1)["findings"] if each["what"] == "relay"]
    assert found["level"] == "fail"
    relayed.catches_up()
    relayed.proves()


def stops(relayed, dsn):
    process = relayed.start("--until-caught-up", dsn=dsn)
    assert process.ended() == 4, process.logged
    assert process.result()["error"]["code"] == "SL-HIST-001"
