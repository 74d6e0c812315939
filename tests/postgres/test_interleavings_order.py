"""One order: positions become visible one after the other, and locks are taken in one order by all."""

from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import pytest

from ledger.domain.commands import ListGoods, ReceiveStock, RegisterUser
from ledger.domain.delivery import Record
from ledger.domain.outcome import Outcome
from ledger.errors import Contended
from ledger.store.connection import roundtrip
from ledger.store.connection.database import Connection
from ledger.store.tables import journal, lane
from tests.support.batches import Hole, says
from tests.support.stepper import Session, Stepper

SNAPSHOT = """
SELECT position, (SELECT array_agg(position ORDER BY position) FROM ledger.journal) FROM ledger.head
"""
FOLLOW = "SELECT position FROM ledger.journal WHERE position > %s ORDER BY position"
SLOW_SEAL = journal.SEAL_AND_COMMIT.replace(journal.SEAL, journal.SEAL + ", pg_sleep(0.002)")
WRITERS, BATCHES = 4, 25


@pytest.fixture
def stepper(ledger_dsn):
    with Stepper(ledger_dsn) as stepper:
        yield stepper
        stepper.judge()


def list_goods(n: int) -> Record:
    return says(f"list{n}", ListGoods(goods_id=f"goods{n}"))


def test_nobody_seals_while_another_is_between_its_seal_and_its_commit(stepper):
    """The position that was taken first becomes visible first, however long its COMMIT takes."""
    slow, writers = stepper.session(), [stepper.session() for _ in range(3)]
    batch = slow.batch(9, Hole(1))
    slow.conn.execute("BEGIN")
    entry = roundtrip.execute(slow.conn, lane.advance_statement(batch, 1))
    slow.conn.execute(
        "INSERT INTO ledger.gap VALUES (%s, %s, %s, 0, 1, 'log_hole', '')", (entry, *batch.lane)
    )
    counts = (0, 0, 0, 0, 0, 1)
    slow.conn.execute(journal.SEAL, (entry, *batch.lane, 1, 0, 1, *counts, bytes(32), None, False, 1))
    runs = [writer.start(n, list_goods(n)) for n, writer in enumerate(writers)]
    assert [run.stands() for run in runs] == ["blocked"] * 3
    assert stepper.ask(SNAPSHOT) == [(0, None)]
    slow.conn.execute("COMMIT")
    assert sorted(run.result().position for run in runs) == [2, 3, 4]


def test_a_position_is_never_visible_before_a_lower_one(stepper):
    """Readers page by position: every snapshot holds exactly 1 to the head's position, and who asks for
    what is behind its checkpoint misses nothing."""
    sessions = [stepper.session() for _ in range(WRITERS)]

    def write(n: int) -> None:
        for turn in range(BATCHES):
            sessions[n].do(n, list_goods(n * BATCHES + turn))

    followed: list[int] = []
    with patch.object(journal, "SEAL_AND_COMMIT", SLOW_SEAL), ThreadPoolExecutor(WRITERS) as pool:
        writing = [pool.submit(write, n) for n in range(WRITERS)]
        while not all(task.done() for task in writing):
            ((position, seen),) = stepper.ask(SNAPSHOT)
            assert (seen or []) == list(range(1, position + 1))
            followed += [row[0] for row in stepper.ask(FOLLOW, len(followed))]
            assert followed == list(range(1, len(followed) + 1))
        for task in writing:
            task.result()
    assert len(followed) > 1
    total = WRITERS * BATCHES
    assert stepper.ask(SNAPSHOT) == [(total, list(range(1, total + 1)))]


def test_goods_are_locked_in_one_order_whatever_the_plan(stepper):
    """A batch that reads the table in another order than its rival still locks the goods in theirs."""
    one, other, holder = stepper.session(), stepper.session(), stepper.connect()
    for n in (3, 2, 1):  # a batch each, so that they lie in this order in the table
        one.do(9, list_goods(n))
    one.conn.execute("SET enable_seqscan = off")
    for plan in ("indexscan", "bitmapscan", "indexonlyscan"):
        other.conn.execute(f"SET enable_{plan} = off")
    holder.execute("BEGIN")
    holder.execute("SELECT FROM ledger.stock WHERE goods_id = 'goods2' FOR UPDATE")
    receive = [says(f"r{n}", ReceiveStock(goods_id=f"goods{n}", quantity=1)) for n in (1, 2, 3)]
    again = [says(f"s{n}", ReceiveStock(goods_id=f"goods{n}", quantity=1)) for n in (3, 2, 1)]
    overlap(one, other, holder, receive, again)


@pytest.mark.parametrize(
    "held",
    [
        "INSERT INTO ledger.processed_message VALUES (0, 0, 1, NULL, '', 'shop', 'r2')",
        "INSERT INTO ledger.event VALUES (0, 0, 'user-u2', 1, 'x', '{}', 0, NULL, 'x', 'x')",
    ],
    ids=["register", "event"],
)
def test_rows_are_appended_in_the_order_of_their_primary_key(stepper, held):
    """Two batches that bring the same new ids, or the same new users, in opposite orders don't deadlock:
    the later one waits at the first of them and loses the race."""
    one, other, holder = stepper.session(), stepper.session(), stepper.connect()
    holder.execute("BEGIN")
    holder.execute(held)
    mine = [says(f"r{n}", RegisterUser(user_id=f"u{n}")) for n in (1, 2, 3)]
    prefix = "r" if "processed_message" in held else "s"
    theirs = [says(f"{prefix}{n}", RegisterUser(user_id=f"u{n}")) for n in (3, 2, 1)]
    lost = overlap(one, other, holder, mine, theirs)
    assert isinstance(lost, Contended)
    assert lost.sqlstate == "23505"


def overlap(one: Session, other: Session, holder: Connection, *records: list[Record]) -> object:
    """Both run into what the holder holds in the middle; the second must wait for the first, before it."""
    first = one.start(0, *records[0])
    assert first.stands() == "blocked"
    second = other.start(1, *records[1])
    assert second.stands() == "blocked"
    assert second.blockers() == [one.pid]
    holder.execute("ROLLBACK")
    assert first.result().outcomes == [Outcome.APPLIED] * 3
    return second.end()
