"""A projection of one's own, from one module and an entry point, is treated like the shipped ones."""

from importlib.metadata import EntryPoint

import pytest

from examples.own_projection import BestCustomers
from ledger.errors import ProjectionRefused
from ledger.projections import registry
from ledger.rebuilding.rebuild import RebuildOptions, rebuild, roll_back
from ledger.store.connection import database
from tests.support import roles
from tests.support.projections import compared, connector, follow, purchases, rows, shop

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
    done = rebuild(connector(ledger_dsn), BestCustomers(), RebuildOptions(jobs=2))
    assert compared(done).differences == []
    lanes.apply(1, *purchases(seed, "more", 10))
    follow(ledger_dsn, BestCustomers())
    assert rows(conn, ACTUAL) == rows(conn, EXPECTED)
    roll_back(connector(ledger_dsn), BestCustomers())
    assert rows(conn, ACTUAL) == rows(conn, EXPECTED)
    conn.execute(f'SET ROLE "{roles.reader(conn)}"')
    assert rows(conn, ACTUAL)


def test_it_is_registered_by_entry_point(monkeypatch):
    """A class or an instance that a package names in its entry points is known by its name."""
    register(monkeypatch, "examples.own_projection:BestCustomers")
    assert set(registry.installed().projections) == {
        "stock", "purchases_by_user", "sales_by_day", "user_events", "best_customers",
    }  # fmt: skip
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
    projections, faults = registry.installed()
    assert set(projections) == {"stock", "purchases_by_user", "sales_by_day", "user_events"}
    assert isinstance(faults["entry0"], ProjectionRefused)
    assert "own_projection:BestCustomers" in faults["entry0"].message
    assert why in faults["entry0"].message
