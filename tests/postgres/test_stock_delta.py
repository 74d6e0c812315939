"""What caches follow: each entry's changes of stock, in one snapshot, as far back as the horizon."""

from datetime import timedelta

import pytest

from ledger.api import Ledger
from ledger.domain.commands import ListGoods, ReceiveStock
from ledger.store.connection import database
from ledger.store.tables import journal, stock_delta
from ledger.store.tables.stock import StockLevel
from ledger.verify.run import verify
from tests.support.batches import Lanes, says
from tests.support.history import history

AGES = timedelta(days=1)


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        yield conn


def stands(conn):
    """The numbers of verify's check of the deltas, which is green."""
    [found] = [check for check in verify(conn) if check.name == "deltas"]
    assert found.ok, found.difference
    return found.figure


def test_each_entry_says_what_it_made_of_the_stock(conn, ledger_dsn):
    """Added up from the first entry on, the changes are the stock as of every position, and no more."""
    history(conn)
    poll = stock_delta.poll(conn, 0, 100)
    assert (poll.proof, poll.horizon, poll.standby) == (journal.GENESIS, 0, False)
    assert [entry.position for entry in poll.entries] == [1, 2, 3, 4, 5, 6, 7]
    assert [entry.hash for entry in poll.entries] == [row.hash for row in journal.rows(conn, 1, 7)]
    levels: dict[str, StockLevel] = {}
    with Ledger(ledger_dsn) as ledger:
        for entry in poll.entries:
            changed = {level.goods_id: level for level in entry.levels}
            assert all(level != levels.get(goods_id) for goods_id, level in changed.items())
            levels |= changed
            assert sorted(levels.values()) == ledger.stock_levels(as_of=entry.position)


def test_a_checkpoint_proves_itself_and_the_rest_follows(conn):
    """From any position on: its hash, what came after it, and no more than was asked for."""
    history(conn)
    tip = journal.tip(conn)
    for at, row in enumerate(journal.rows(conn, 1, 7), 1):
        poll = stock_delta.poll(conn, at, 2)
        assert (poll.tip, poll.proof) == (tip, row.hash)
        assert [entry.position for entry in poll.entries] == [n for n in (at + 1, at + 2) if n <= 7]
    assert stock_delta.poll(conn, 8, 2).proof is None


def test_pages_hold_the_live_stock(conn):
    """Page after page, the live stock by goods id and where the head was; the last page is empty."""
    history(conn)
    live, after = [], ""
    while (page := stock_delta.page(conn, after, 1)).levels:
        assert page.tip == journal.tip(conn)
        live += page.levels
        after = page.levels[-1].goods_id
    assert [level._asdict() for level in live] == [
        {"goods_id": goods_id, "on_hand": on_hand, "version": version}
        for goods_id, on_hand, version in conn.execute(
            'SELECT goods_id, on_hand, version FROM ledger.stock_levels ORDER BY goods_id COLLATE "C"'
        )
    ]


def test_what_is_old_goes_with_the_horizon(conn):
    """Deltas go as far as the horizon moves, neither more nor less, and what is left is still true."""
    history(conn)
    lanes = Lanes(conn, "more")
    assert stock_delta.prune(conn, AGES) == 0
    assert stands(conn) == "5 changes"
    assert stock_delta.prune(conn, timedelta(0)) == 7
    assert stock_delta.prune(conn, timedelta(0)) == 0
    assert conn.execute("SELECT count(*) FROM ledger.stock_delta").fetchone() == (0,)
    assert stands(conn) == "0 changes"
    lanes.apply(0, says("a", ListGoods(goods_id="milk")), says("b", ReceiveStock(goods_id="tea", quantity=1)))
    poll = stock_delta.poll(conn, 7, 5)
    assert poll.horizon == 7
    assert [level for entry in poll.entries for level in entry.levels] == [
        StockLevel("milk", 0, 1),
        StockLevel("tea", 87, 10),
    ]
    assert stands(conn) == "2 changes"


def test_two_who_forget_at_once_do_not_wait(conn, ledger_dsn):
    """The second one leaves it to the first, who holds the horizon."""
    history(conn)
    with database.connect(ledger_dsn, purpose="test") as other, other.transaction():
        assert stock_delta.prune(other, timedelta(0)) == 7
        assert stock_delta.prune(conn, timedelta(0)) == 0
        assert stock_delta.poll(conn, 0, 1).horizon == 0
    assert stock_delta.poll(conn, 0, 1).horizon == 7
