"""A projection of one's own, from one module and an entry point, is treated like the shipped ones."""

from importlib.metadata import EntryPoint

import pytest

from examples.own_projection import BestCustomers
from ledger.errors import ProjectionRefused
from ledger.projections import registry
from ledger.rebuild import Options, rebuild, roll_back
from ledger.store import database
from tests.support.projections import connector, follow, purchases, rows, shop

EXPECTED = """
    SELECT user_id, sum(CASE WHEN cancelled THEN 0 ELSE quantity END)::bigint, max(purchased_at)
    FROM ledger.purchases GROUP BY 1 ORDER BY 1
"""
ACTUAL = "SELECT * FROM ledger.best_customers ORDER BY 1"


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        yield conn


def register(monkeypatch, *values: str) -> None:
    """As if installed packages had these entry points."""
    entries = [EntryPoint(f"entry{n}", value, registry.GROUP) for n, value in enumerate(values)]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries if group == registry.GROUP else [])


def test_the_example_works(conn, ledger_dsn, seed):
    """examples/own_projection.py: built by following, read through its view, rebuilt by several jobs, rolled
    back; what it says is what the purchases say."""
    lanes = shop(conn)
    for n in range(10):
        lanes.apply(1, *purchases(seed, f"p{n}", 10))
    follow(ledger_dsn, BestCustomers())
    assert rows(conn, ACTUAL) == rows(conn, EXPECTED) != []
    done = rebuild(connector(ledger_dsn), BestCustomers(), Options(jobs=2))
    assert done.comparison.differences == []
    lanes.apply(1, *purchases(seed, "more", 10))
    follow(ledger_dsn, BestCustomers())
    assert rows(conn, ACTUAL) == rows(conn, EXPECTED)
    roll_back(connector(ledger_dsn), BestCustomers())
    assert rows(conn, ACTUAL) == rows(conn, EXPECTED)
    conn.execute("SET ROLE stockledger_reader")
    assert rows(conn, ACTUAL)


def test_it_is_registered_by_entry_point(monkeypatch):
    """A class or an instance that a package names in its entry points is known by its name."""
    register(monkeypatch, "examples.own_projection:BestCustomers")
    assert set(registry.registered()) == {"stock", "purchases_by_user", "sales_by_day", "best_customers"}
    assert isinstance(registry.find("best_customers"), BestCustomers)


@pytest.mark.parametrize(
    ("attribute", "value", "why"),
    [
        ("name", "stock", "already"),
        ("name", "Best", "small letters"),
        ("name", "best_customers_rows", "different"),
        ("table", 'rows"; DROP', "small letters"),
        ("key", (), "key"),
        ("inline", True, "inline"),
    ],
)
def test_what_cant_be_a_projection_is_refused(attribute, value, why, monkeypatch):
    """A name that is taken or no identifier, no key, a wish to be inline: refused, naming who brought it."""
    register(monkeypatch, "examples.own_projection:BestCustomers")
    monkeypatch.setattr(BestCustomers, attribute, value)
    with pytest.raises(ProjectionRefused, match="own_projection:BestCustomers") as caught:
        registry.registered()
    assert why in caught.value.message
