"""`replay --commands --check`, on deliveries at hand: agrees with the ledger, and finds what was changed."""

import pytest

from ledger.domain.commands import ListGoods
from ledger.domain.delivery import Delivery
from ledger.domain.outcome import Outcome
from ledger.errors import NotProvable
from ledger.history.decisions import redecide
from ledger.store.connection import database
from ledger.store.reads import outcomes
from tests.support.batches import Hole, Lanes, says
from tests.support.history import buys
from tests.support.history import history as story


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        yield conn


@pytest.mark.parametrize("page", [1, 10_000])
def test_what_the_ledger_wrote_agrees(conn, monkeypatch, page):
    """All outcomes, gaps, dead letters, conflicts and cancellations across lanes are decided again alike."""
    monkeypatch.setattr(outcomes, "RANGE_DELIVERIES", page)
    lanes = story(conn)
    done = redecide(conn, lanes.deliveries)
    assert (done.position, done.difference) == (7, None)
    assert [done.counts[outcome] for outcome in Outcome] == [14, 9, 3, 2, 3]
    assert redecide(conn, lanes.deliveries, last=3).position == 3


def test_an_empty_ledger_agrees(conn):
    """There is nothing to be wrong."""
    assert redecide(conn, Lanes(conn).deliveries).difference is None


FORGERIES = {
    "a rejection flipped": (
        "UPDATE ledger.processed_message SET reason = NULL, version = 7 WHERE id = 'p3'",
        "message shop p3 at position 3 (purchase-commands[1]@14): a sequential run gives rejected "
        "insufficient_stock, recorded is applied as version 7",
    ),
    "another reason": (
        "UPDATE ledger.processed_message SET reason = 'user_not_found' WHERE id = 'p2'",
        "gives rejected user_closed, recorded is rejected user_not_found",
    ),
    "an application flipped": (
        "UPDATE ledger.processed_message SET reason = 'user_closed', version = NULL WHERE id = 'p5'",
        "gives applied as version 9, recorded is rejected user_closed",
    ),
    "another version": (
        "UPDATE ledger.processed_message SET version = 99 WHERE id = 'r1'",
        "message shop r1 at position 2",
    ),
    "another fingerprint": (
        "UPDATE ledger.processed_message SET fingerprint = sha256('x') WHERE id = 'c3'",
        "message shop c3 at position 3 (purchase-commands[1]@17): a sequential run gives fingerprint",
    ),
    "a row deleted": (
        "DELETE FROM ledger.processed_message WHERE id = 'a2'",
        "message shop a2 at position 2",
    ),
    "the first delivery moved": (
        """UPDATE ledger.processed_message SET "offset" = 11 WHERE id = 'p1' AND source = 'shop'""",
        "message shop p1 at position 3 (purchase-commands[1]@10)",
    ),
    "an event's payload": (
        "UPDATE ledger.event SET payload = replace(payload::text, '250', '1')::json WHERE id = 'p1'",
        "message shop p1 at position 3",
    ),
    "an event deleted": ("DELETE FROM ledger.event WHERE id = 'u2'", "message shop u2 at position 1"),
    "a cancellation deleted": ("DELETE FROM ledger.processed_message WHERE id = 'c1'", "message shop c1"),
    "a count": (
        "UPDATE ledger.journal SET duplicate = duplicate - 1, conflict = conflict + 1 WHERE position = 3",
        "the entry at position 3 (purchase-commands[1])",
    ),
    "a dead letter's value": (
        """UPDATE ledger.dead_letter SET value = value || ' '::bytea WHERE value = 'no JSON'""",
        "a sequential run gives dead, byte for byte, recorded is dead, with other bytes",
    ),
    "a dead letter's headers": (
        """UPDATE ledger.dead_letter SET header_values[1] = 'x' WHERE "offset" = 7""",
        "the record at position 4 (purchase-commands[0]@7): a sequential run gives dead, byte for byte",
    ),
    "a dead letter deleted": ('DELETE FROM ledger.dead_letter WHERE "offset" = 7', "dead (tombstone)"),
}


@pytest.mark.parametrize("page", [1, 10_000])
@pytest.mark.parametrize("name", FORGERIES)
def test_what_was_changed_is_named(conn, monkeypatch, name, page):
    """The first outcome, event or count that isn't what a sequential run gives is named, with both."""
    monkeypatch.setattr(outcomes, "RANGE_DELIVERIES", page)
    lanes = story(conn)
    forgery, sentence = FORGERIES[name]
    for table in ("processed_message", "event", "journal", "dead_letter", "cancellation"):
        conn.execute(f"ALTER TABLE ledger.{table} DISABLE TRIGGER ALL")
    conn.execute(forgery)
    assert sentence in str(redecide(conn, lanes.deliveries).difference)


def test_a_cancellation_of_an_earlier_page(conn, monkeypatch):
    """A purchase that was made, or cancelled, pages ago is known as it was then; one of the future isn't."""
    monkeypatch.setattr(outcomes, "RANGE_DELIVERIES", 1)
    lanes = story(conn)
    conn.execute("ALTER TABLE ledger.cancellation DISABLE TRIGGER ALL")
    lanes.apply(2, buys("late", "anna", 1))
    assert redecide(conn, lanes.deliveries).difference is None
    assert redecide(conn, lanes.deliveries, last=3).difference is None


def test_records_that_are_gone(conn):
    """Where Kafka has lost a record nothing can be proved, which is neither a yes nor a traceback."""
    lanes = story(conn)
    for lane, offsets in lanes.delivered.items():
        if lane.partition == 1:
            for offset in [o for o in offsets if o < 5]:
                del offsets[offset]
    with pytest.raises(
        NotProvable, match=r"purchase-commands\[1\]: position 2 took 7 records .* still has 3"
    ):
        redecide(conn, lanes.deliveries)


def test_skipped_records_may_still_be_there(conn):
    """What a gap skipped isn't decided, whether Kafka still has it (a start at the latest offset) or not."""
    lanes = Lanes(conn)
    lanes.apply(0, Hole(2, "before_start"))
    lanes.apply(0, says("g1", ListGoods(goods_id="tea")))
    [kept] = lanes.delivered.values()
    kept |= {n: Delivery(n, kept[2].content, kept[2].packed) for n in (0, 1)}
    done = redecide(conn, lanes.deliveries)
    assert (done.difference, done.counts[Outcome.APPLIED]) == (None, 1)
