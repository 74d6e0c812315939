"""`seal` believes its caller nothing that it can know; nobody builds on rows that were written past it."""

from typing import LiteralString

import pytest

from ledger.domain.commands import MessageKey
from ledger.domain.delivery import Lane, Record, Request
from ledger.errors import Contradiction, LedgerError
from ledger.store.connection import database
from ledger.store.tables import journal, lane, processed_message
from ledger.store.tables.processed_message import Processed
from ledger.verify.run import BUDGETS
from tests.postgres.test_verify import differences
from tests.support.batches import TOPIC, Hole, read
from tests.support.history import buys, history


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test", budgets=BUDGETS) as conn:
        yield conn


CALL = """
SELECT ledger.seal(%(entry)s, %(topic)s, %(partition)s, %(epoch)s, %(first)s, %(next)s, %(applied)s, 0,
                   %(duplicate)s, 0, 0, %(skipped)s, %(digest)s, NULL, false, 1)
"""
# What a session that has moved lane 1 from 21 to 1021 asks for instead of what it may: the change, and what
# the refusal says.
FORGED = {
    "a lane that isn't there": ({"topic": "elsewhere"}, "the lane is at <NULL>"),
    "another lane": ({"partition": 0}, "its entries end at 13"),
    "an offset below the first": ({"first": -5, "duplicate": 1026}, "no entry of"),
    "an offset again": ({"first": 19, "duplicate": 1002}, "its entries end at 21"),
    "offsets left out": ({"first": 22, "duplicate": 999}, "its entries end at 21"),
    "less than the lane moved": ({"next": 22, "duplicate": 1}, "the lane is at 1021"),
    "an epoch of the past": ({"epoch": 1}, "with epoch 2"),
    "an epoch of the future": ({"epoch": 2**63 - 1}, "with epoch 2"),
    "offsets skipped without a gap": ({"duplicate": 0, "skipped": 1000}, "cover 0"),
    "another session's number": ({"entry": 1}, "is not this session's last one"),
    "a digest that is none": ({"digest": b""}, "has not 32 bytes"),
    "a digest of many bytes": ({"digest": bytes(50_000)}, "has not 32 bytes"),
}


def seal(conn, changed) -> None:
    """Move the lane, take a number unless one is given, and seal."""
    call = {"topic": TOPIC, "partition": 1, "epoch": 2, "first": 21, "next": 1021}
    call |= {"applied": 0, "duplicate": 1000, "skipped": 0, "digest": bytes(32)} | changed
    with database.transaction(conn):
        conn.execute("UPDATE ledger.lane SET next_offset = 1021 WHERE partition = 1")
        if "entry" not in call:
            ((call["entry"],),) = conn.execute("SELECT nextval('ledger.entry_number')").fetchall()
        conn.execute(CALL, call)


@pytest.mark.parametrize("forgery", FORGED)
def test_an_entry_that_can_not_follow_is_refused(conn, forgery):
    """Whoever may call `seal` can't put an entry where none can be; the lane goes on as if nothing was."""
    lanes = history(conn)
    changed, words = FORGED[forgery]
    with pytest.raises(Contradiction, match=words) as refused:
        seal(conn, changed)
    assert (refused.value.code, refused.value.remedy) == ("SL-DB-020", "stockledger verify")
    assert lanes.apply(1, buys("p6", "anna", 1)).position == 8
    assert differences(conn, deliveries=lanes.deliveries) == {}


def test_a_session_without_a_number_is_refused(conn):
    """An entry's number is taken in the session that seals it."""
    history(conn)
    conn.execute("DISCARD SEQUENCES")
    with pytest.raises(LedgerError):
        seal(conn, {"entry": 8})
    assert journal.tip(conn).position == 7


@pytest.mark.parametrize("moved_to", [20, 22])
def test_a_lane_that_was_moved_alone_stands(conn, moved_to):
    """Where a lane was moved past the journal, either way, its worker halts with a code; verify is red."""
    lanes = history(conn)
    conn.execute("UPDATE ledger.lane SET next_offset = %s, last_offset = 19 WHERE partition = 1", (moved_to,))
    lanes.claim(1)
    with pytest.raises(Contradiction, match="its entries end at 21"):
        lanes.apply(1, buys("p6", "anna", 1))
    assert differences(conn).keys() == {"lanes"}
    conn.execute("UPDATE ledger.lane SET next_offset = 21 WHERE partition = 1")  # the owner's repair
    lanes.claim(1)
    assert lanes.apply(1, buys("p6", "anna", 1)).position == 8
    assert differences(conn) == {}


def test_a_claim_raises_the_epoch_by_one_and_names_its_own_session(conn):
    """An epoch can't be used up, and a lane names no other session than the one that took it."""
    history(conn)
    for statement in (
        "UPDATE ledger.lane SET epoch = 9223372036854775807",
        "UPDATE ledger.lane SET epoch = epoch",
        "UPDATE ledger.lane SET backend_pid = 1",
        "UPDATE ledger.lane SET owner_host = 'x', epoch = epoch - 1",
    ):
        with pytest.raises(Contradiction, match="by raising its epoch by one"), database.transaction(conn):
            conn.execute(statement)
    conn.execute("UPDATE ledger.lane SET epoch = epoch + 1, backend_pid = 1, backend_start = now()")
    assert {row.backend_pid for row in lane.read_all(conn)} == {conn.info.backend_pid}


def test_only_a_session_of_this_program_is_ended(conn, ledger_dsn):
    """Whatever a lane's row names, a session of another program isn't ended for it."""
    history(conn)
    with database.connect(ledger_dsn, purpose="test") as other:
        other.execute("SET application_name = 'psql'")
        lane.claim(other, Lane(TOPIC, 0), lane.Owner("test", 1))
        assert not lane.terminate_owner(conn, Lane(TOPIC, 0))
        other.execute("SET application_name = 'stockledger/run'")
        assert lane.terminate_owner(conn, Lane(TOPIC, 0))


FORGED_MESSAGES = {
    "of no entry": (77, 0, {"orphans"}),
    "of an entry, outside of its offsets": (1, 77, {"entries", "offsets", "outcomes", "chain"}),
}


@pytest.mark.parametrize("forgery", FORGED_MESSAGES)
@pytest.mark.parametrize("same", [True, False])
def test_a_message_that_was_registered_past_the_journal_answers_nothing(conn, forgery, same):
    """A forged row of the register is neither a first delivery nor another payload of a command: the lane
    halts with a code, and verify names the row."""
    entry, offset, red = FORGED_MESSAGES[forgery]
    lanes = history(conn)
    request = read(0, buys("p6", "anna", 1)).content
    assert isinstance(request, Request)
    fingerprint = request.fingerprint if same else bytes(16)
    line = processed_message.line(MessageKey("shop", "p6"), Processed(fingerprint, None, 10, entry, offset))
    with conn.cursor() as cursor, cursor.copy(processed_message.COPY) as copy:
        copy.write(line)
    with pytest.raises(Contradiction, match="message shop p6 is registered in entry") as halted:
        lanes.apply(1, buys("p6", "anna", 1))
    assert halted.value.remedy == "stockledger verify"
    assert differences(conn).keys() == red


FORGED_ROWS: dict[str, tuple[Record | Hole, LiteralString, set[str]]] = {
    "dead_letter_pkey": (
        Record(None, b"", None),
        "INSERT INTO ledger.dead_letter VALUES (77, 'purchase-commands', 1, 21, 'json', 'no JSON')",
        {"orphans"},
    ),
    "gap_pkey": (
        Hole(1),
        "INSERT INTO ledger.gap VALUES (77, 'purchase-commands', 1, 21, 22, 'log_hole', '')",
        {"orphans"},
    ),
    "event_pkey": (
        buys("p7", "anna", 1),
        """INSERT INTO ledger.event SELECT 77, 0, stream, 10, type, payload, delta, user_id, source, 'p6'
           FROM ledger.event WHERE id = 'p5'""",
        {"orphans", "stock"},
    ),
}


@pytest.mark.parametrize("constraint", FORGED_ROWS)
def test_a_row_where_the_lane_is_to_write_is_no_race(conn, constraint):
    """Rows past the journal, where a batch writes next, halt it with a code; it isn't tried in vain."""
    item, statement, red = FORGED_ROWS[constraint]
    lanes = history(conn)
    assert conn.execute(statement).rowcount == 1
    with pytest.raises(Contradiction, match=constraint):
        lanes.apply(1, item)
    assert differences(conn).keys() == red
