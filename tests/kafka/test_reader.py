"""What the client itself loses or gets wrong: found by the offsets alone, and read again."""

import gc
import random
from pathlib import Path

import pytest
from confluent_kafka import KafkaException

from consumer import admin, source
from consumer.clients import open_consumer
from consumer.records import available
from consumer.source import Source
from ledger.errors import BadSettings, BrokerUnavailable, TopicUnfit
from tests.support.publish import buys, shop
from tests.support.workers import wait_for


@pytest.fixture
def group(new_group):
    return new_group(partitions=3)


@pytest.fixture
def sender(group, publisher):
    """A producer of the group's topic; 3 lanes of 60 purchases wait, behind the set-up that is applied."""
    sender = publisher(group)
    sender.send(*shop(), partition=0)
    sender.flush()
    group.catch_up()
    for partition in range(3):
        sender.send(*(buys(f"p{partition}-{n}") for n in range(60)), partition=partition)
    sender.flush()
    return sender


def loses(monkeypatch, lost):
    """Between the client and us, `lost(messages)` are gone, each message at most once; returns which."""
    gone: set[tuple[int, int]] = set()

    def lossy(consumer, size_max, timeout_s):
        messages = available(consumer, size_max, timeout_s)
        records = [m for m in messages if not m.error() and (m.partition(), m.offset()) not in gone]
        dropped = {(m.partition(), m.offset()) for m in lost(records)}
        gone.update(dropped)
        return [m for m in messages if m.error() or (m.partition(), m.offset()) not in dropped]

    monkeypatch.setattr(source, "available", lossy)
    return gone


def test_records_that_the_client_lost_are_found_and_read_again(group, sender, monkeypatch, seed):
    """An exception inside `consume()` destroys what it had dequeued, while its position moves on."""
    chance = random.Random(seed)
    gone = loses(monkeypatch, lambda records: [m for m in records if chance.random() < 0.3])
    group.catch_up(batch_size_max=10)
    assert len(gone) > 20
    monkeypatch.undo()
    group.prove(sender, tally={"applied": 183})
    assert group.ask("SELECT count(*) FROM ledger.gaps") == [(0,)]


def test_whole_batches_that_the_client_lost_are_found_and_read_again(group, sender, monkeypatch):
    """Each first delivery of everything is lost, the last record of a lane, and the last applied one, too."""
    gone = loses(monkeypatch, lambda records: records)
    group.catch_up()
    assert len(gone) == 1 + 180
    monkeypatch.undo()
    group.prove(sender, tally={"applied": 183})
    assert group.ask("SELECT count(*) FROM ledger.gaps") == [(0,)]


def test_an_exception_out_of_the_client_loses_nothing(group, sender, monkeypatch):
    """Raised while it hands over records (a callback, a signal handler): the end of the session, no more."""

    def storm(consumer, size_max, timeout_s):
        if available(consumer, size_max, timeout_s):
            raise ZeroDivisionError
        return []

    for _ in range(3):
        monkeypatch.setattr(source, "available", storm)
        with pytest.raises(ZeroDivisionError):
            group.catch_up(batch_size_max=10)
        monkeypatch.undo()
    group.catch_up(batch_size_max=10)
    group.prove(sender, tally={"applied": 183})


def test_an_assignment_that_fails_is_begun_anew(group, sender, monkeypatch):
    """The client refuses the offsets, or no broker says where the log ends: nothing is read without them."""
    init = Source.__init__
    tries: list[int] = []

    def fails_once(self, *args):
        init(self, *args)
        if not tries:
            tries.append(1)
            claim = self._claim

            def unanswered(partitions):
                raise BrokerUnavailable(f"ask for the offsets of {len(claim(partitions))} lanes: no answer")

            self._claim = unanswered

    monkeypatch.setattr(Source, "__init__", fails_once)
    group.catch_up()
    assert tries
    group.prove(sender, tally={"applied": 183})


def test_group_offsets_that_cannot_be_handed_over_delay_nothing(group, sender, monkeypatch):
    """They are for lag tools: a refused commit of offsets is no fault."""
    refused = []

    class Refusing:
        def __init__(self, consumer):
            self._consumer = consumer

        def __getattr__(self, name):
            return getattr(self._consumer, name)

        def commit(self, **_):
            refused.append(1)
            raise KafkaException("no")

    monkeypatch.setattr(
        source, "open_consumer", lambda *args, **named: Refusing(open_consumer(*args, **named))
    )
    monkeypatch.setattr(source, "HAND_OVER_INTERVAL_S", 0)
    group.catch_up(batch_size_max=10)
    assert len(refused) >= 18
    group.prove(sender, tally={"applied": 183})


def test_a_batch_of_one_record_at_a_time(group, sender):
    """The smallest size works, too: one record, one entry."""
    group.catch_up(batch_size_max=1)
    group.prove(sender, tally={"applied": 183})
    assert group.ask("SELECT max(next_offset - first_offset) FROM ledger.journal WHERE position > 3") == [
        (1,)
    ]


def client_threads():
    """The threads of the Kafka clients in this process."""
    names = [(task / "comm") for task in Path("/proc/self/task").iterdir()]
    return sum(name.read_text().startswith("rdk:") for name in names if name.exists())


def test_a_request_that_fails_leaves_no_client_behind(group):
    """Retries for hours don't pile up threads and connections, not even without a garbage collector."""
    gc.collect()
    gc.disable()
    try:
        before = client_threads()
        for _ in range(5):
            with pytest.raises(TopicUnfit):
                admin.inspect(group.kafka, f"{group.topic}-misspelt")
            admin.inspect(group.kafka, group.topic)
        wait_for("they are gone", lambda: client_threads() <= before, 10)
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["auto.offset.reset", "enable.auto.commit", "isolation.level"])
def test_settings_that_would_break_the_promise_are_refused(group, name):
    """Nobody can configure the reader to skip records or to read aborted ones."""
    wrong = {
        "auto.offset.reset": "latest",
        "enable.auto.commit": "true",
        "isolation.level": "read_uncommitted",
    }
    with pytest.raises(BadSettings, match=name):
        group.catch_up(kafka={name: wrong[name]})


def test_an_unknown_property_is_refused(group):
    """A misspelt property isn't ignored."""
    with pytest.raises(BadSettings, match=r"fetch\.wait\.maxms"):
        group.catch_up(kafka={"fetch.wait.maxms": "1"})
