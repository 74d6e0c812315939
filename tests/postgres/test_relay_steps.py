"""What the relay reads and writes in one piece is what the records of the journal say one by one."""

from itertools import chain

import pytest
from msgspec.json import encode

from ledger.domain.events import payload
from ledger.domain.token import Token
from ledger.errors import HistoryChanged, UnreadableEvent
from ledger.history import events
from ledger.store.connection.database import connect
from ledger.store.reads import history as past
from ledger.store.reads.history import Wanted
from ledger.store.tables import journal, processed_message
from producer.relay import steps
from producer.relay.outputs import CommandDecided, Outputs
from tests.support.history import history

SOURCE = "/stockledger/here/stock"
OUTPUTS = Outputs.of("to")
GENESIS = Token.at(0, journal.GENESIS)


@pytest.fixture
def conn(ledger_dsn):
    with connect(ledger_dsn, purpose="test") as conn:
        history(conn)
        yield conn


def walked(conn, at=GENESIS):
    """The steps from there to the end."""
    while step := steps.following(conn, at):
        yield step
        at = step.reached


def headers(attributes):
    """As the CloudEvents' binding for Kafka has them."""
    names = {"datacontenttype": "content-type"}
    return [(names.get(name, f"ce_{name}"), str(value).encode()) for name, value in attributes.items()]


def one_by_one(conn):
    """The records of all events and outcomes, each made from what the ledger's own readers say of it."""
    tokens = {each.position: str(Token.at(each.position, each.hash)) for each in journal.rows(conn, 1, 99)}
    for stored in chain.from_iterable(piece.events for piece in past.events(conn, 1, 99, Wanted())):
        happened = events.event(stored)
        attributes = events.attributes(stored, happened, SOURCE) | {"token": tokens[stored.position]}
        yield OUTPUTS.events, stored.stream.encode(), payload(happened), headers(attributes)
    for each in processed_message.between(conn, None, 1, 99, 1_000):
        attributes = {
            "specversion": "1.0", "id": f"{each.position}.{each.offset}", "source": f"{SOURCE}/outcomes",
            "type": "stockledger.CommandDecided.v1", "subject": each.key.id,
            "time": events.attribute_time(each.recorded_at), "position": each.position,
            "token": tokens[each.position], "datacontenttype": "application/json",
        }  # fmt: skip
        data = CommandDecided(
            *each.key, each.outcome, each.reason, *each.lane, each.offset, each.position,
            tokens[each.position], each.fingerprint.hex(),
        )  # fmt: skip
        yield OUTPUTS.outcomes, each.key.id.encode(), encode(data), headers(attributes)


@pytest.mark.parametrize("records", [1, 15, 10_000])
def test_a_step_says_what_each_record_does(conn, monkeypatch, records):
    """The same topics, keys, values and headers in the same order, however much is read at a time."""
    monkeypatch.setattr(steps, "RECORDS", records)
    expected = list(one_by_one(conn))
    assert len({value for *_, value, _ in expected}) > 20
    walk = list(walked(conn))
    assert [step.is_last for step in walk] == [False] * (len(walk) - 1) + [True]
    found = [tuple(record) for step in walk for record in step.records(OUTPUTS, SOURCE)]
    assert (sum(step.happened for step in walk), sum(step.decided for step in walk)) == tuple(
        sum(record[0] == topic for record in expected) for topic in (OUTPUTS.events, OUTPUTS.outcomes)
    )
    for topic in (OUTPUTS.events, OUTPUTS.outcomes):
        assert [each for each in found if each[0] == topic] == [each for each in expected if each[0] == topic]


def test_a_payload_that_nobody_wrote_is_refused(conn):
    """Also where it lies between good ones of its type; it is named."""
    conn.execute("ALTER TABLE ledger.event DISABLE TRIGGER no_update")
    conn.execute('UPDATE ledger.event SET payload = \'{"goods_id":"tea","quantity":0}\' WHERE id = \'r1\'')
    with pytest.raises(UnreadableEvent, match=r"position 2, ordinal 2 .*quantity"):
        [record for step in walked(conn) for record in step.records(OUTPUTS, SOURCE)]


def test_another_history_is_refused(conn):
    """The place that was published last has to be in it."""
    with pytest.raises(HistoryChanged):
        steps.following(conn, Token(1, "0" * 16))
