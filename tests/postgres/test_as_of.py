"""Stock as of a position or a time: what was known then, for one item and for all."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from ledger.api import Ledger
from ledger.store.connection import database
from ledger.store.reads import history
from ledger.store.tables.stock import StockLevel
from stockledger import cli
from tests.support.environment import unset
from tests.support.history import CAFE
from tests.support.history import history as story

TEA = {0: None, 1: None, 2: (93, 3), 3: (88, 6), 4: (86, 7), 5: (86, 7), 6: (86, 7), 7: (86, 9)}
"""Pieces and version after each position."""


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        story(conn)
        yield conn


@pytest.fixture
def ledger(ledger_dsn, conn):
    with Ledger(ledger_dsn) as ledger:
        yield ledger


@pytest.fixture
def stockledger(ledger_dsn, conn, monkeypatch, capsys):
    """`stockledger("stock", ...)` -> (exit code, the object)."""
    unset(monkeypatch)
    monkeypatch.setenv("STOCKLEDGER_DSN", ledger_dsn)

    def run(*arguments):
        code = cli.execute([*map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize("position", TEA)
def test_as_of_a_position(ledger, position):
    """After each entry the stock is the sum of the events up to there; before the listing there is none."""
    then = TEA[position]
    level = then and StockLevel("tea", *then)
    assert ledger.stock("tea", as_of=position) == level
    assert [found for found in ledger.stock_levels(as_of=position) if found.goods_id == "tea"] == (
        [level] if level else []
    )


def test_as_of_the_end_is_the_live_stock(ledger, conn, monkeypatch):
    """As of the last position all goods have the live stock and version, however the journal is paged."""
    live = [StockLevel(*row) for row in conn.execute("SELECT * FROM ledger.stock_levels ORDER BY goods_id")]
    assert ledger.stock_levels(as_of=7) == live
    monkeypatch.setattr(history, "FOLD_EVENTS", 1)
    assert ledger.stock_levels(as_of=7) == live
    assert [ledger.stock(each.goods_id, as_of=7) for each in live] == live


def test_as_of_a_time_is_as_of_the_position_recorded_by_then(ledger, conn):
    """The last position recorded at or before the time counts; a moment earlier it is the one before."""
    for position, at in conn.execute("SELECT position, recorded_at FROM ledger.journal").fetchall():
        assert ledger.moment(at).position == position
        assert ledger.moment(at - timedelta(microseconds=1)).position == position - 1
        assert ledger.stock("tea", as_of=at) == ledger.stock("tea", as_of=position)
    assert ledger.moment(datetime.now(UTC) + timedelta(hours=1)).position == 7
    assert ledger.moment(datetime(2000, 1, 1, tzinfo=UTC))[:2] == (0, None)


@pytest.mark.parametrize("as_of", [8, -1, datetime(2030, 1, 1)])
def test_no_such_moment(ledger, as_of):
    """A position that isn't there yet, and a time that could be anywhere on earth, are refused."""
    with pytest.raises(ValueError, match=r"position|offset"):
        ledger.stock("tea", as_of=as_of)


def test_the_command_line(stockledger, conn):
    """`stock --as-of` says as of which position; all goods without an id; unknown then is exit 4."""
    code, answer = stockledger("stock", "tea", "--as-of", 3)
    assert (code, answer["on_hand"], answer["version"], answer["as_of"]["position"]) == (0, 88, 6, 3)
    [(at,)] = conn.execute("SELECT recorded_at FROM ledger.journal WHERE position = 2").fetchall()
    assert stockledger("stock", "tea", "--as-of", at.isoformat())[1]["on_hand"] == 93
    _, answer = stockledger("stock", "--as-of", 2)
    assert [(goods["goods_id"], goods["on_hand"]) for goods in answer["goods"]] == [(CAFE, 5), ("tea", 93)]
    assert stockledger("stock")[1]["as_of"]["position"] == 7
    assert stockledger("stock", "tea", "--as-of", 1)[0] == 4
    assert stockledger("stock", "tea", "--as-of", "2000-01-01")[0] == 4
    assert stockledger("stock", "tea", "--as-of", 99)[0] == 4
    assert stockledger("stock", "tea", "--as-of", "tomorrow")[0] == 2
    assert stockledger("stock", "tea", "--as-of", "2026-11-24T10:00:00")[0] == 2
