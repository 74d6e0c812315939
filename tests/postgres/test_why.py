"""`why GOODS_ID`: the events behind the number, with request and delivery, and whether they add up."""

import json

import pytest

from ledger.store.connection import database
from stockledger import cli
from tests.support.environment import unset
from tests.support.history import history as story


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        story(conn)
        yield conn


@pytest.fixture
def stockledger(ledger_dsn, conn, monkeypatch, capsys):
    """`stockledger("why", "tea")` -> (exit code, stdout, stderr)."""
    unset(monkeypatch)
    monkeypatch.setenv("STOCKLEDGER_DSN", ledger_dsn)

    def run(*arguments):
        code = cli.execute([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def test_every_event_with_what_caused_it(stockledger):
    """Each event of the goods, its delta and the stock after it, the command, the delivery and the user."""
    code, out, _ = stockledger("why", "tea", "--json")
    answer = json.loads(out)
    assert (code, answer["agrees"], answer["on_hand"], answer["sum"], answer["version"]) == (
        0,
        True,
        86,
        86,
        9,
    )
    told = [
        (
            c["position"],
            c["type"],
            c["delta"],
            c["on_hand"],
            c["id"],
            c["partition"],
            c["offset"],
            c["user_id"],
        )
        for c in answer["changes"]
    ]
    assert told == [
        (2, "GoodsListed", 0, 0, "g1", 1, 0, None),
        (2, "StockReceived", 100, 100, "r1", 1, 3, None),
        (2, "StockAdjusted", -7, 93, "a1", 1, 7, None),
        (3, "GoodsPurchased", -3, 90, "p1", 1, 10, "anna"),
        (3, "PurchaseCancelled", 3, 93, "c1", 1, 15, "anna"),
        (3, "GoodsPurchased", -5, 88, "p4", 1, 18, "anna"),
        (4, "GoodsPurchased", -2, 86, "p1", 0, 9, "anna"),
        (7, "PurchaseCancelled", 5, 91, "c4", 2, 5, "anna"),
        (7, "GoodsPurchased", -5, 86, "p5", 2, 6, "anna"),
    ]


def test_the_last_ones(stockledger):
    """--limit shows the last events; the stock after each is right all the same, what is left out is said."""
    code, out, err = stockledger("why", "tea", "--limit", 2)
    assert code == 0
    assert [line.split()[2:5] for line in out.splitlines()[1:3]] == [
        ["PurchaseCancelled", "+5", "91"],
        ["GoodsPurchased", "-5", "86"],
    ]
    assert "shop/p5" in out
    assert "purchase-commands[2]@6" in out
    assert out.splitlines()[-1] == "tea  86 on hand  equals the sum of 9 events"
    assert "7 earlier events" in err


def test_goods_that_are_not_there(stockledger):
    """Unknown goods are exit 4."""
    code, out, _ = stockledger("why", "ghost", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (4, "SL-CLI-002")


@pytest.mark.parametrize(
    ("forgery", "says"),
    [
        ("UPDATE ledger.stock SET on_hand = 87 WHERE goods_id = 'tea'", "the stock says 87 at version 9"),
        ("DELETE FROM ledger.stock WHERE goods_id = 'tea'", "the stock has no row"),
        ("DELETE FROM ledger.event WHERE id = 'r1'", "8 events say -14 at version 9"),
    ],
)
def test_a_number_that_does_not_add_up(stockledger, conn, forgery, says):
    """Where the stock isn't the sum of its events it is exit 4, with both numbers."""
    conn.execute("ALTER TABLE ledger.event DISABLE TRIGGER ALL")
    conn.execute(forgery)
    code, out, _ = stockledger("why", "tea", "--json")
    answer = json.loads(out)
    assert (code, answer["agrees"], answer["error"]["code"]) == (4, False, "SL-VER-001")
    assert says in answer["error"]["message"]
