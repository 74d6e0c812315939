"""`Ledger`: what a Python program is told about its commands, the stock, and how things stand."""

import threading
import time

import pytest

from ledger.api import Ledger
from ledger.domain.commands import MessageKey, PurchaseGoods
from ledger.domain.delivery import Gap, Lane
from ledger.domain.envelope import fingerprint, request
from ledger.domain.outcome import Outcome, Reason
from ledger.errors import SchemaMismatch, Stop, Unavailable
from ledger.store.connection import database
from ledger.store.tables.dead_letter import LetterStatus
from ledger.store.tables.stock import StockLevel
from tests.support.batches import TOPIC, Lanes
from tests.support.history import AWKWARD, CAFE, buys, history


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        yield conn


@pytest.fixture
def ledger(ledger_dsn, conn):
    history(conn)
    with Ledger(ledger_dsn) as ledger:
        yield ledger


def test_the_outcome_of_an_applied_command(ledger):
    """An applied command's outcome names its delivery, its event's place, and what conflicted with it."""
    [found] = ledger.outcome("p4")
    assert (found.source, found.id, found.outcome, found.reason) == ("shop", "p4", Outcome.APPLIED, None)
    assert (found.lane, found.offset, found.position) == (Lane(TOPIC, 1), 18, 3)
    assert (found.stream, found.version) == ("goods-tea", 6)
    assert found.recorded_at.tzinfo is not None
    [conflict] = found.conflicts
    assert (conflict.lane, conflict.offset, conflict.position) == (Lane(TOPIC, 0), 10, 4)
    assert conflict.first_fingerprint != conflict.second_fingerprint


def test_the_outcome_of_a_rejected_command(ledger):
    """A rejected command's outcome has a reason and no event."""
    [found] = ledger.outcome("p3")
    assert (found.outcome, found.reason) == (Outcome.REJECTED, Reason.INSUFFICIENT_STOCK)
    assert (found.stream, found.version, found.conflicts) == (None, None, ())


def test_sources_have_ids_of_their_own(ledger):
    """The same id from two sources is two commands; a source picks one of them."""
    assert [(o.source, o.version) for o in ledger.outcome("p1")] == [("shop", 4), ("web", 7)]
    assert [o.source for o in ledger.outcome("p1", "web")] == ["web"]
    assert ledger.outcome("p1", "nobody") == []


def test_an_unknown_command_has_no_outcome(ledger):
    """There is no outcome of a command that wasn't applied or rejected."""
    assert ledger.outcome("p99") == []


def test_stock_is_as_of_the_last_commit(ledger, conn):
    """Stock is what the events add up to, and the next commit changes it."""
    assert ledger.stock("tea") == StockLevel("tea", on_hand=86, version=9)
    assert ledger.stock(CAFE) == StockLevel(CAFE, on_hand=5, version=2)
    assert ledger.stock("Tea") is None
    Lanes(conn).apply(4, buys("p6", "anna", 6))
    assert ledger.stock("tea") == StockLevel("tea", on_hand=80, version=10)


def test_status(ledger):
    """The status counts every delivery once, every rejection by its reason, and names the lanes' owners."""
    status = ledger.status()
    assert status.position == 7
    assert [(row.partition, row.next_offset, row.epoch, row.owner_host) for row in status.lanes] == [
        (0, 13, 1, "test"),
        (1, 21, 2, "test"),
        (2, 7, 1, "test"),
        (3, 0, 1, "test"),
    ]
    assert status.deliveries == {
        "applied": 14,
        "rejected": 9,
        "duplicate": 3,
        "conflict": 2,
        "dead": 3,
        "skipped": 10,
    }
    assert sum(status.deliveries.values()) == sum(row.next_offset for row in status.lanes)
    assert sum(status.rejected.values()) == 9
    assert status.rejected[Reason.USER_CLOSED] == 2
    assert status.dead_letters == {
        LetterStatus.PARKED: 3,
        LetterStatus.REDRIVEN: 0,
        LetterStatus.DISCARDED: 0,
    }


def test_dead_letters_are_kept_byte_for_byte(ledger):
    """A dead letter gives back the record as it was: key, value and headers, null or not UTF-8."""
    assert [(letter.offset, letter.code) for letter in ledger.dead_letters()] == [
        (6, "attribute"),
        (7, "tombstone"),
        (8, "attribute"),
    ]
    letter = ledger.dead_letter(Lane(TOPIC, 0), 7)
    assert letter.record.key == b"k\x00\xff"
    assert letter.record.value is None
    assert letter.record.headers == [("ce_id", b"x\x00\n"), ("none", None), ("", b""), ("\udcff", b"\\x")]
    assert ledger.dead_letter(Lane(TOPIC, 0), 6).record.headers is None
    assert ledger.dead_letter(Lane(TOPIC, 0), 8).record.headers == []
    assert ledger.dead_letter(Lane(TOPIC, 0), 5) is None
    assert [letter.offset for letter in ledger.dead_letters(code="tombstone")] == [7]


def test_of_two_who_mark_a_dead_letter_one_does(ledger):
    """A dead letter's status moves by comparison, so it isn't redriven and discarded at the same time."""
    letter = ledger.dead_letter(Lane(TOPIC, 0), 7)
    assert ledger.mark(letter, LetterStatus.REDRIVEN)
    assert not ledger.mark(letter, LetterStatus.DISCARDED)
    assert [found.offset for found in ledger.dead_letters(status=LetterStatus.REDRIVEN)] == [7]
    assert [found.offset for found in ledger.dead_letters(status=LetterStatus.PARKED)] == [6, 8]
    assert ledger.status().dead_letters[LetterStatus.REDRIVEN] == 1


def test_gaps_say_who_accepted_them(ledger):
    """Every offset that was skipped is in a gap, with its cause and who accepted it."""
    assert [(found.lane.partition, found.gap, found.position) for found in ledger.gaps()] == [
        (0, Gap(11, 13, "records_deleted", "op\\erator\t"), 4),
        (1, Gap(4, 7, "log_hole", ""), 2),
        (2, Gap(0, 5, "before_start", "operator"), 6),
    ]


def test_waiting_ends_with_the_commit(ledger, conn, monkeypatch):
    """`wait` answers once the command is committed; until then it waits."""
    answers, waits = [], threading.Event()
    sleep = time.sleep

    def slept(seconds: float) -> None:
        waits.set()
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", slept)
    key = MessageKey("shop", "p6")
    waiting = threading.Thread(target=lambda: answers.append(ledger.wait(key, timeout_s=30)))
    waiting.start()
    assert waits.wait(30)
    assert answers == []
    Lanes(conn).apply(4, buys("p6", "anna", 6))
    waiting.join()
    assert [(found.id, found.outcome, found.version) for found in answers] == [("p6", Outcome.APPLIED, 10)]


def test_waiting_ends_with_the_timeout(ledger):
    """`wait` gives up at its deadline and says for what it waited."""
    with pytest.raises(TimeoutError, match=r"no outcome of shop p99 after 0\.2 s"):
        ledger.wait(MessageKey("shop", "p99"), timeout_s=0.2)


def test_who_waits_is_told_about_his_own_payload(ledger):
    """A key that was first used for another payload: `conflict`, both fingerprints, by receipt or command."""
    key = MessageKey("shop", "p1")
    mine, first = (
        PurchaseGoods(user_id="anna", goods_id="tea", quantity=n, unit_price_minor=250) for n in (4, 3)
    )
    for found in (ledger.wait(request(key, mine), 5), ledger.wait(key, 5, command=mine)):
        assert (found.outcome, found.reason) == (Outcome.CONFLICT, None)
        assert (found.fingerprint, found.asked) == (fingerprint(key, first), fingerprint(key, mine))
    for found in (ledger.wait(request(key, first), 5), ledger.wait(key, 5, command=first)):
        assert (found.outcome, found.asked) == (Outcome.APPLIED, None)
    assert ledger.wait(key, 5).fingerprint == fingerprint(key, first)
    other = MessageKey("shop", "p3")  # rejected: the other payload's reason isn't told either
    assert ledger.wait(other, 5, command=mine).reason is None


def test_awkward_texts_come_back_as_they_were(ledger, conn):
    """What a command said is in its event, character for character."""
    row = conn.execute("SELECT data->>'note' FROM ledger.events WHERE id = 'a1'").fetchone()
    assert row == (AWKWARD,)


def test_faults_say_what_to_do(services, ledger_dsn):
    """No server, no ledger in the database and an unreadable DSN are told apart, each with its remedy."""
    with pytest.raises(Unavailable, match=r"nothing listens at 127\.0\.0\.1:1") as unreachable:
        Ledger("host=127.0.0.1 port=1 user=x dbname=x")
    assert unreachable.value.remedy.startswith("start PostgreSQL at 127.0.0.1:1")
    with Ledger(services.postgres.dsn()) as empty, pytest.raises(SchemaMismatch) as missing:
        empty.status()
    assert missing.value.remedy == "stockledger migrate"
    with pytest.raises(Stop, match="DSN"):
        Ledger("not a dsn")
