"""A group that can't be joined: named, with the remedy, where Kafka's client tries in silence for ever."""

from contextlib import contextmanager

import pytest

from consumer.group import assignor
from ledger.errors import BadSettings, GroupUnavailable
from tests.support.java_kafka import VERSION, JavaKafka, NotUsable
from tests.support.publish import Publisher, shop
from tests.support.services import Kafka
from tests.support.workers import Group

pytestmark = pytest.mark.real_kafka
OLD = int(VERSION.partition(".")[0]) < 4


@pytest.fixture
def group(new_group):
    return new_group(partitions=1)


@contextmanager
def lone_broker(**changes):
    """A broker of one's own, with these properties instead of ours."""
    try:
        server = JavaKafka(changes={name.replace("_", "."): value for name, value in changes.items()})
    except NotUsable as why:
        pytest.skip(str(why))
    server.start()
    try:
        broker = Kafka(f"127.0.0.1:{server.port}", "a lone broker")
        broker.wait_ready()
        yield broker
    finally:
        server.stop()


@pytest.fixture
def uncoordinated():
    """A lone broker whose offsets topic wants three; it doesn't know the newer group protocol either."""
    with lone_broker(offsets_topic_replication_factor="3") as broker:
        yield broker


@pytest.fixture
def late():
    """A new broker that takes several seconds to make its offsets topic."""
    with lone_broker(offsets_topic_num_partitions="100") as broker:
        yield broker


@pytest.mark.slow
def test_a_coordinator_that_never_comes_is_named(uncoordinated, ledger_dsn, monkeypatch):
    """`run` waits and says why; with a goal it ends with exit 3; `doctor` finds it."""
    uncoordinated.create_topic("commands", 1)
    group = Group(ledger_dsn, {"bootstrap.servers": uncoordinated.bootstrap_servers}, "commands")
    with group.running() as running:
        [said] = running.says("waiting", code="SL-GRP-005")
    assert "needs 3 brokers (offsets.topic.replication.factor), the cluster has 1" in said["cause"]
    assert said["next"].startswith("set offsets.topic.replication.factor=1")
    sender = Publisher(group.kafka, group.topic)
    sender.send(*shop())
    sender.flush()
    monkeypatch.setattr("consumer.worker.PATIENCE_S", 3)
    monkeypatch.setattr("consumer.worker.SAY_AFTER_S", 60)
    with pytest.raises(GroupUnavailable, match="no broker coordinates the group"):
        group.catch_up()
    findings = {each["what"]: each for each in group.cli("doctor", exits=3)["findings"]}
    assert "offsets.topic.replication.factor" in findings["group"]["found"]


@pytest.mark.slow
def test_a_coordinator_that_comes_late_is_waited_for(late, ledger_dsn):
    """The first group that a broker ever sees: its topic is still being made when `doctor` asks."""
    late.create_topic("commands", 1)
    group = Group(ledger_dsn, {"bootstrap.servers": late.bootstrap_servers}, "commands")
    findings = {each["what"]: each for each in group.cli("doctor")["findings"]}
    assert findings["group"]["level"] == "ok"


@pytest.fixture
def classic():
    """A lone broker that doesn't speak the newer group protocol."""
    with lone_broker(group_coordinator_rebalance_protocols="classic") as broker:
        yield broker


def test_a_broker_without_the_newer_protocol_is_named(classic, ledger_dsn):
    """Kafka 4 that has it switched off refuses the member. Kafka 3 has an older version of it than the client
    speaks, which it keeps to itself: the coordinator answers, and its group doesn't have the member."""
    classic.create_topic("commands", 1)
    properties = {"bootstrap.servers": classic.bootstrap_servers, "group.protocol": "consumer"}
    group = Group(ledger_dsn, properties, "commands")
    with group.running() as running:
        if OLD:
            [said] = running.says("waiting", code="SL-GRP-005")
            cause, remedy = said["cause"], said["next"]
        else:
            fault = running.halts()
            assert isinstance(fault, BadSettings)
            cause, remedy = fault.message, fault.remedy
    assert "group.protocol=consumer" in cause
    assert remedy.startswith("leave group.protocol out")
    doctor = group.cli("doctor", "-X", "group.protocol=consumer", exits=3 if OLD else 1)
    [found] = [each for each in doctor["findings"] if each["what"] == "group"]
    assert (found["found"], found["fix"]) == (f"{'SL-GRP-005' if OLD else 'SL-CONF-001'}: {cause}", remedy)


@pytest.mark.skipif(OLD, reason="the newer protocol needs Kafka 4")
def test_a_member_that_stands_by_is_not_left_out(new_group, monkeypatch):
    """It has no lane, but it is in the group: however often it asks, there is nothing to say."""
    group = new_group(partitions=1, group_protocol="consumer")
    assignor(group.kafka, group.name)  # a new broker makes the group's topic first
    monkeypatch.setattr("consumer.group.ASK_AFTER_S", 0)
    monkeypatch.setattr("consumer.group.INTERVAL_S", 0)
    with group.running(status_interval_s=0.1) as one, group.running(status_interval_s=0.1) as other:
        for each in (one, other):  # whichever has the lane
            each.says("status", times=30)
    assert [] in [each.said("status")[-1]["lanes"] for each in (one, other)]
    assert not one.said("waiting") + other.said("waiting")


def test_members_with_other_assignors_are_named(group, sender, monkeypatch):
    """Whoever comes second can't join: it waits, names both assignors, and how to use the first one's."""
    one = group.start(partition_assignment_strategy="range")
    one.says("assigned")
    strategy = {"partition.assignment.strategy": "cooperative-sticky"}
    with group.running(kafka=strategy) as running:
        [said] = running.says("waiting", code="SL-GRP-005")
        assert "theirs is range, ours cooperative-sticky" in said["cause"]
        assert said["next"].endswith("-X partition.assignment.strategy=range")
    findings = {each["what"]: each for each in group.cli("doctor", exits=3)["findings"]}
    assert "theirs is range" in findings["group"]["found"]
    one.terminates()


def test_a_session_timeout_that_the_broker_refuses_is_a_setting(group, sender):
    """Not a broker that reports something for ever."""
    wrong = {"session.timeout.ms": "100", "heartbeat.interval.ms": "50"}
    with group.running(kafka=wrong) as running:
        fault = running.halts()
    assert isinstance(fault, BadSettings)
    assert "session.timeout.ms=100" in fault.message
    doctor = ("doctor", "-X", "session.timeout.ms=100", "-X", "heartbeat.interval.ms=50")
    findings = {each["what"]: each for each in group.cli(*doctor, exits=1)["findings"]}
    assert "session.timeout.ms=100" in findings["group"]["found"]


@pytest.mark.skipif(OLD, reason="the newer protocol needs Kafka 4")
def test_doctor_tries_what_a_member_would_be(group, sender):
    """In a group of its own, which it removes."""
    findings = {
        each["what"]: each for each in group.cli("doctor", "-X", "group.protocol=consumer")["findings"]
    }
    assert findings["group"]["level"] == "ok"
