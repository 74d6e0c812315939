"""Goods that are listed while a batch is between locking its rows and reading them."""

import pytest

from ledger.batch import apply_batch
from ledger.domain.commands import ListGoods, MessageKey, ReceiveStock
from ledger.domain.delivery import Batch, Lane
from ledger.domain.outcome import Outcome
from ledger.errors import Contended
from ledger.store import database, stock, together
from tests.support.batches import Lanes, deliver, says


def test_goods_listed_between_the_lock_and_the_read_are_not_taken_for_held(ledger_dsn, monkeypatch):
    """Their row is visible to the read but locked by nobody: the batch is decided anew, not on it."""
    with (
        database.connect(ledger_dsn, purpose="test") as ours,
        database.connect(ledger_dsn, purpose="test") as theirs,
    ):
        mine, other = Lanes(ours), Lanes(theirs)
        claim = mine.claim(0)
        exchange = together.exchange
        listed = []

        def list_first(conn, questions, *, begin=False):
            if conn is not ours or questions[0].statement != stock.LOCK:
                return exchange(conn, questions, begin=begin)
            locked = exchange(conn, questions[:1])
            if not listed:
                listed.append(other.apply(1, says("list", ListGoods(goods_id="cup"))))
            return [*locked, *exchange(conn, questions[1:])]

        monkeypatch.setattr(together, "exchange", list_first)
        command = ReceiveStock(goods_id="cup", quantity=5)
        batch = Batch(Lane(mine.topic, 0), 0, 1, [deliver(0, MessageKey("shop", "receive"), command)])
        with pytest.raises(Contended):
            apply_batch(ours, batch, claim.epoch)
        assert apply_batch(ours, batch, claim.epoch).outcomes == [Outcome.APPLIED]
        level = stock.level(ours, "cup")
        assert level is not None
        assert (level.on_hand, level.version) == (5, 2)
