"""Goods that are listed while a batch is between locking its rows and reading them."""

import pytest

from ledger.batch import Applied, apply_batch
from ledger.domain.commands import ListGoods, MessageKey, ReceiveStock
from ledger.domain.delivery import Batch, Lane
from ledger.domain.outcome import Outcome
from ledger.errors import Contended
from ledger.store.connection import database, roundtrip
from ledger.store.tables import stock
from tests.support.batches import Lanes, deliver, says


def test_goods_listed_between_the_lock_and_the_read_are_not_taken_for_held(ledger_dsn, monkeypatch):
    """Their row is visible to the read but locked by nobody: the batch is decided anew, not on it."""
    with (
        database.connect(ledger_dsn, purpose="test") as ours,
        database.connect(ledger_dsn, purpose="test") as theirs,
    ):
        mine, other = Lanes(ours), Lanes(theirs)
        claim = mine.claim(0)
        exchange = roundtrip.exchange
        listed: list[Applied] = []

        def list_first(conn, statements, *, begin=False):
            if conn is not ours or statements[0].sql != stock.LOCK:
                return exchange(conn, statements, begin=begin)
            locked = exchange(conn, statements[:1])
            if not listed:
                listed.append(other.apply(1, says("list", ListGoods(goods_id="cup"))))
            return [*locked, *exchange(conn, statements[1:])]

        monkeypatch.setattr(roundtrip, "exchange", list_first)
        command = ReceiveStock(goods_id="cup", quantity=5)
        batch = Batch(Lane(mine.topic, 0), 0, 1, [deliver(0, MessageKey("shop", "receive"), command)])
        with pytest.raises(Contended):
            apply_batch(ours, batch, claim.epoch)
        assert apply_batch(ours, batch, claim.epoch).outcomes == [Outcome.APPLIED]
        level = stock.level(ours, "cup")
        assert level is not None
        assert (level.on_hand, level.version) == (5, 2)
