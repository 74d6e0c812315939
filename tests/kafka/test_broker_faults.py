"""The broker dies, freezes and comes back: it is waited for, and nothing is lost or doubled."""

from threading import Timer

import pytest
from confluent_kafka import KafkaError

from consumer import clients
from consumer.group import TIMEOUT_S, assignor
from consumer.source import Source
from ledger.errors import BrokerUnavailable, TopicUnfit
from tests.support.publish import buys, shop
from tests.support.watching import Watcher
from tests.support.workers import wait_for

pytestmark = pytest.mark.real_kafka
CLASSIC = ("session.timeout.ms", "heartbeat.interval.ms")
PROTOCOL_RETRIABLE = """
    LEADER_NOT_AVAILABLE NOT_LEADER_FOR_PARTITION REQUEST_TIMED_OUT REPLICA_NOT_AVAILABLE NETWORK_EXCEPTION
    COORDINATOR_LOAD_IN_PROGRESS COORDINATOR_NOT_AVAILABLE NOT_COORDINATOR NOT_ENOUGH_REPLICAS
    NOT_ENOUGH_REPLICAS_AFTER_APPEND NOT_CONTROLLER CONCURRENT_TRANSACTIONS KAFKA_STORAGE_ERROR
    FETCH_SESSION_ID_NOT_FOUND INVALID_FETCH_SESSION_EPOCH LISTENER_NOT_FOUND FENCED_LEADER_EPOCH
    UNKNOWN_LEADER_EPOCH OFFSET_NOT_AVAILABLE PREFERRED_LEADER_NOT_AVAILABLE ELIGIBLE_LEADERS_NOT_AVAILABLE
    UNSTABLE_OFFSET_COMMIT THROTTLING_QUOTA_EXCEEDED UNKNOWN_TOPIC_ID INCONSISTENT_TOPIC_ID
"""
"""Kafka's protocol guide calls these retriable. A missing topic is said as such, and a torn record, too."""
CLIENT_PASSES = """
    _DESTROY_BROKER _INTR _IN_PROGRESS _NOENT _OUTDATED _PREV_IN_PROGRESS _RETRY _TIMED_OUT _TIMED_OUT_QUEUE
    _WAIT_CACHE _WAIT_COORD _PARTIAL _TRANSPORT _ALL_BROKERS_DOWN _RESOLVE
"""
"""The client's own: it takes another connection, or the answer comes later."""
DOWN, UP = "no broker answers; waiting for one", "a broker answers again"


@pytest.fixture
def group(new_group):
    return new_group(partitions=3)


def load(sender, name, count):
    for partition in range(3):
        sender.send(*(buys(f"{name}-{partition}-{n}") for n in range(count)), partition=partition)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_broker_killed_under_load_is_waited_for(group, sender, services, supported, protocol):
    """SIGKILL while records are published and applied: both go on by themselves where they were."""
    if protocol == "consumer":
        group.kafka = {n: v for n, v in group.kafka.items() if n not in CLASSIC} | {
            "group.protocol": protocol
        }
    worker = group.start("--batch", "5")
    worker.says("assigned")
    load(sender, "a", 200)
    with supported():
        services.kafka.kill()
    load(sender, "b", 200)
    worker.says(DOWN)
    services.kafka.start()
    sender.flush()
    group.applies(sender)
    worker.says(UP)
    changes = [line["event"] for line in worker.logged if line.get("event") in (DOWN, UP)]
    assert changes == [DOWN, UP] * (len(changes) // 2), "one line a change of state"
    worker.terminates()
    group.prove(sender, tally={"applied": 3 + 1200})


@pytest.mark.slow
def test_a_frozen_broker_is_waited_for(group, sender, services, supported):
    """Connections stay open and nothing answers, past the session: then the group forms anew."""
    worker = group.start("--batch", "5", socket_timeout_ms="2000")
    worker.says("assigned")
    load(sender, "a", 50)
    sender.flush()
    wait_for("progress", lambda: sum(group.next_offsets().values()) > 20)
    with supported():
        services.kafka.pause()
    try:
        load(sender, "b", 50)
        worker.says(DOWN)
    finally:
        services.kafka.resume()
    sender.flush()
    group.applies(sender)
    worker.terminates()
    group.prove(sender, tally={"applied": 303})


@pytest.mark.slow
def test_while_the_broker_is_down_starting_waits_and_ending_works(group, sender, services, supported):
    """One line says what is waited for, however often it is tried; SIGTERM needs no broker."""
    running = group.start()
    running.says("assigned")
    with supported():
        services.kafka.kill()
    try:
        starting, given_up = group.start(), group.start()
        running.says(DOWN)
        running.terminates()
        given_up.says("waiting", code="SL-KAFKA-001")
        given_up.terminates()
        starting.says("waiting")
    finally:
        services.kafka.start()
    starting.says("ready")
    load(sender, "a", 5)
    sender.flush()
    group.applies(sender)
    starting.terminates()
    assert len(starting.said("waiting")) == 1
    group.prove(sender, tally={"applied": 18})


@pytest.mark.slow
def test_a_relay_without_its_broker_is_live_and_not_ready(relayed, services, supported):
    """It says which fault it waits for, and goes on once Kafka is back; each entry is there once."""
    relay = relayed.start("--http", "0")
    watcher = Watcher.of(relay)
    wait_for("readiness", lambda: watcher.ready)
    relayed.settles()  # or Kafka, killed while it ends a transaction, may leave it open for ever
    with supported():
        services.kafka.kill()
    try:
        wait_for("no readiness", lambda: not watcher.ready)
        assert "SL-KAFKA-001" in watcher.get("/readyz").body["detail"]
        assert watcher.live
    finally:
        services.kafka.start()
    wait_for("readiness", lambda: watcher.ready)
    relayed.sell("then")
    relay.terminates()
    relayed.catches_up()
    relayed.proves()


@pytest.mark.parametrize("name", [*PROTOCOL_RETRIABLE.split(), *CLIENT_PASSES.split()])
def test_what_passes_by_itself_is_waited_for(name):
    """What the protocol calls retriable (an election, a start) is no reason to halt."""
    code = getattr(KafkaError, name)
    assert isinstance(clients.fault(KafkaError(code), "ask"), BrokerUnavailable)


def test_a_reader_without_rights_halts(new_group, publisher, services, monkeypatch):
    """An ACL error is said once by the client and then never again: halting is all that shows it."""
    group = new_group()
    sender = publisher(group)
    sender.send(*shop(), partition=0)
    sender.flush()
    poll = Source.poll

    def refused(self, *args):
        self._on_error(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
        poll(self, *args)

    monkeypatch.setattr(Source, "poll", refused)
    with pytest.raises(TopicUnfit, match="not allowed"):
        group.catch_up()
    monkeypatch.undo()
    group.catch_up()
    group.prove(sender, tally={"applied": 3})


def test_a_broker_that_misses_answers_is_waited_for(group, services):
    """A busy one is late with any: with where the group's coordinator is, and with why there is none."""
    services.kafka.pause()
    resumes = Timer(3 * TIMEOUT_S, services.kafka.resume)
    resumes.start()
    try:
        assert assignor(group.kafka, group.name) == ""
    finally:
        resumes.join()
