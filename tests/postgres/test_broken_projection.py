"""A projection of one's own that can't work is named with a code; the others, and the shipped ones, go on."""

import sys
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from examples.own_projection import BestCustomers
from ledger.errors import (
    ProjectionBroken,
    ProjectionFault,
    ProjectionRefused,
    ProjectionUnknown,
)
from ledger.projections import registry
from ledger.projections.projection import Projection
from ledger.projections.purchases_by_user import PurchasesByUser
from ledger.projections.registry import SHIPPED
from ledger.projections.sales_by_day import SalesByDay
from ledger.rebuilding.projector import Projector, Told
from ledger.rebuilding.rebuild import rebuild, roll_back
from ledger.rebuilding.retire import drop_projection
from ledger.store.connection import database
from tests.support import roles
from tests.support.projections import compared, connector, follow, is_right, purchases, rows, shop

RELATIONS = """
SELECT relname FROM pg_class WHERE relnamespace = 'ledger'::regnamespace AND starts_with(relname, 'best')
"""


class Own(Projection):
    """One that works: counts events. Each test breaks something of it."""

    name, table, key = "own", "own_rows", ("one",)
    ddl = """CREATE TABLE ledger.own_rows (generation integer NOT NULL, one boolean NOT NULL,
             events bigint NOT NULL, PRIMARY KEY (generation, one)) PARTITION BY LIST (generation)"""

    def apply(self, conn, generation, events):
        conn.execute(
            """INSERT INTO ledger.own_rows AS o VALUES (%s, true, %s)
               ON CONFLICT (generation, one) DO UPDATE SET events = o.events + excluded.events""",
            [generation, events.events],
        )
        return events.events


class Faults(Told):
    """Keeps the faults that a projector told, and what it waited for."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.waited: list[Any] = []

    def waiting(self, cause, name=""):
        self.waited.append((name, cause.sqlstate))

    def fault(self, fault):
        self.told.append(fault)


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        yield conn


@pytest.fixture
def lanes(conn, seed):
    """Two entries."""
    lanes = shop(conn)
    lanes.apply(1, *purchases(seed, "p", 20))
    return lanes


def goes_on(conn, dsn, own, code, *words):
    """Whatever `own` does, the others follow to the end, and its fault has this code and these words."""
    faults = Faults()
    projector = Projector(connector(dsn), [own, *SHIPPED, BestCustomers()], until_caught_up=True, told=faults)
    with pytest.raises(code) as caught:
        projector.run()
    assert faults.told == [caught.value]
    for word in (own.name, f"{type(own).__module__}:{type(own).__qualname__}", *words):
        assert word in caught.value.message
    assert caught.value.remedy
    assert is_right(conn, "purchases_by_user")
    assert rows(conn, "SELECT name FROM ledger.projections WHERE lag > 0 AND name <> 'own'") == []


def raises(error):
    def apply(*_):
        raise error

    return apply


def executes(statement):
    def apply(_, conn, generation, events):
        conn.execute(statement)
        return events.events

    return apply


@pytest.mark.parametrize(
    ("attribute", "value", "code", "word"),
    [
        ("ddl", "CREATE TABEL ledger.own_rows (generation integer)", ProjectionBroken, "42601"),
        ("ddl", "SELECT 1", ProjectionBroken, "42P01"),
        ("ddl", "CREATE TABLE ledger.own_rows (generation integer)", ProjectionBroken, "own_rows"),
        ("key", ("two",), ProjectionRefused, "two"),
        ("table", "stock", ProjectionRefused, "stock already"),
        ("apply", executes("UPDATE ledger.own_rows SET evnets = 1"), ProjectionBroken, "evnets"),
        ("apply", executes("UPDATE ledger.nowhere SET events = 1"), ProjectionBroken, "42P01"),
        ("apply", executes("SELECT ledger.nothing()"), ProjectionBroken, "42883"),
        ("apply", executes("COMMIT"), ProjectionBroken, "ended the transaction"),
        ("apply", executes("INSERT INTO ledger.own_rows VALUES (1, NULL, 1)"), ProjectionBroken, "23502"),
        ("apply", executes("INSERT INTO ledger.own_rows VALUES (9, true, 1)"), ProjectionBroken, "23514"),
        ("apply", raises(SystemExit(3)), ProjectionFault, "position 1"),
        ("apply", raises(KeyError("x")), ProjectionFault, "position 1"),
        ("apply", lambda *_: None, ProjectionFault, "position 1"),
    ],
)
def test_a_broken_one_harms_no_other(attribute, value, code, word, conn, lanes, ledger_dsn, monkeypatch):
    """Bad DDL, a table that is another's, a misspelt column, code that raises, exits or commits: told with
    its class and a code, while the others are brought to the end."""
    monkeypatch.setattr(Own, attribute, value)
    goes_on(conn, ledger_dsn, Own(), code, word)


def test_a_tables_fault_is_not_an_events(conn, lanes, ledger_dsn):
    """55000, no right, a table that is locked for good: the server's words, and no event is named."""
    follow(ledger_dsn, PurchasesByUser())
    conn.execute("ALTER TABLE ledger.purchases_by_user_rows_1 REPLICA IDENTITY NOTHING")
    conn.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    lanes.apply(1, *purchases(0, "q", 5))
    with pytest.raises(ProjectionBroken, match="55000") as caught:
        follow(ledger_dsn, PurchasesByUser())
    assert "No event is at fault" in caught.value.message
    with pytest.raises(ProjectionBroken, match="55000"):
        rebuild(connector(ledger_dsn), PurchasesByUser())


@pytest.mark.parametrize(
    "name",
    [
        "stock_levels",
        "events",
        "seal",
        "write_stock",
        "entry_number",
        "projection",
        "select",
        "stock_7",
        "event",
    ],
)
def test_a_name_that_the_schema_has_is_refused(name, conn, lanes, ledger_dsn, monkeypatch):
    """Views, tables, functions, sequences and types of the ledger, what a generation may be called, and
    reserved words: nothing shipped is replaced, whether it is the view's name or the table's."""
    before = rows(conn, "SELECT * FROM ledger.stock_levels ORDER BY 1")
    ddl = Own.ddl.replace("own_rows", name)
    for taken in ({"name": name}, {"table": name, "ddl": ddl}):
        with monkeypatch.context() as patched:
            for attribute, value in taken.items():
                patched.setattr(Own, attribute, value)
            with pytest.raises(ProjectionRefused, match="already"):
                follow(ledger_dsn, Own())
    assert rows(conn, "SELECT * FROM ledger.stock_levels ORDER BY 1") == before


def test_a_package_that_cant_be_loaded_is_set_aside_by_name(monkeypatch, tmp_path):
    """A missing module, one that exits when it is imported, an object that is no projection: each is named
    with its entry point; the others are there, and a shipped one doesn't even load them."""
    (tmp_path / "exits_at_import.py").write_text("raise SystemExit(1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    values = {
        "gone": "no_such_package.module:Projection",
        "exits": "exits_at_import:Projection",
        "absent": "examples.own_projection:Nothing",
        "no": "ledger.errors:Stop",
        "best": "examples.own_projection:BestCustomers",
        "twice": "examples.own_projection:BestCustomers",
    }
    entries = [EntryPoint(name, value, registry.GROUP) for name, value in values.items()]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    projections, faults = registry.installed()
    assert set(projections) == {"stock", "purchases_by_user", "sales_by_day", "user_events", "best_customers"}
    assert {name: fault.code for name, fault in faults.items()} == {
        "gone": "SL-PRJ-006", "exits": "SL-PRJ-006", "absent": "SL-PRJ-006", "no": "SL-PRJ-006",
        "twice": "SL-PRJ-005",
    }  # fmt: skip
    for name, fault in faults.items():
        assert f"{name} ({values[name]}" in fault.message
    with pytest.raises(ProjectionBroken, match="no_such_package"):
        registry.find("gone")
    with pytest.raises(ProjectionUnknown, match="gone"):
        registry.find("nothing")
    monkeypatch.setattr(registry, "entry_points", lambda group: sys.exit("it was loaded"))
    assert registry.find("stock").name == "stock"


class Renewed(BestCustomers):
    """The next version: a column more, a column less, in another order."""

    version = 2
    ddl = """CREATE TABLE ledger.best_customers_rows (
                 generation integer NOT NULL, orders bigint NOT NULL DEFAULT 0,
                 user_id text COLLATE "C" NOT NULL, pieces bigint NOT NULL,
                 PRIMARY KEY (generation, user_id)) PARTITION BY LIST (generation);
             CREATE INDEX best_orders ON ledger.best_customers_rows (orders)"""

    def apply(self, conn, generation, events):
        understood = super().apply(conn, generation, events)
        conn.execute(
            """UPDATE ledger.best_customers_rows b SET orders = (
                   SELECT count(*) FROM ledger.event e JOIN ledger.journal j USING (entry)
                   WHERE e.type = 'GoodsPurchased' AND e.user_id = b.user_id AND j.position <= %(last)s)
               WHERE generation = %(generation)s""",
            events.parameters(generation),
        )
        return understood


class Elsewhere(Renewed):
    """A version that has a table of its own."""

    version, table = 3, "better_customers_rows"
    ddl = Renewed.ddl.replace("best_customers_rows", "better_customers_rows")

    def apply(self, conn, generation, events):
        conn.execute(
            "INSERT INTO ledger.better_customers_rows VALUES (%s, 0, 'all', %s) ON CONFLICT DO NOTHING",
            [generation, events.events],
        )
        return events.events


def shown(conn):
    return [column.name for column in conn.execute("SELECT * FROM ledger.best_customers").description]


def test_a_version_with_other_columns_is_a_new_generation_with_its_own_view(conn, lanes, ledger_dsn):
    """Rebuilt, the view shows the new columns; the release that has the old ones leads back to them, and both
    go on following. Until it is rebuilt, who wanted it followed is told so."""
    old = ["user_id", "pieces", "last_bought_at"]
    follow(ledger_dsn, BestCustomers())
    with pytest.raises(ProjectionRefused, match="version 1"):
        follow(ledger_dsn, Renewed())
    assert shown(conn) == old
    rebuild(connector(ledger_dsn), Renewed())
    assert shown(conn) == ["orders", "user_id", "pieces"]
    assert rows(conn, "SELECT sum(orders) FROM ledger.best_customers") == rows(
        conn, "SELECT count(*) FROM ledger.purchases"
    )
    conn.execute(f'SET ROLE "{roles.reader(conn)}"')
    assert rows(conn, "SELECT * FROM ledger.best_customers")
    conn.execute("RESET ROLE")
    lanes.apply(1, *purchases(0, "q", 5))
    follow(ledger_dsn, Renewed())
    roll_back(connector(ledger_dsn), BestCustomers())
    assert shown(conn) == old
    follow(ledger_dsn, BestCustomers())
    assert rows(conn, "SELECT sum(pieces) FROM ledger.best_customers") == rows(
        conn, "SELECT sum(quantity) FROM ledger.purchases WHERE NOT cancelled"
    )


def test_a_version_with_another_table_is_swapped_in_too(conn, lanes, ledger_dsn):
    """What can't share the old table names its own; the old generation is dropped from where it is."""
    follow(ledger_dsn, BestCustomers())
    rebuild(connector(ledger_dsn), Elsewhere())
    assert rows(conn, "SELECT user_id FROM ledger.best_customers") == [("all",)]
    assert drop_projection(conn, "best_customers") == [1, 2]
    assert rows(conn, RELATIONS) == rows(conn, "SELECT to_regclass('ledger.better_customers_rows')")[1:]


def test_a_column_of_another_type_is_refused(conn, lanes, ledger_dsn, monkeypatch):
    """A table can't hold two types under one name: said before anything is built."""
    follow(ledger_dsn, BestCustomers())
    monkeypatch.setattr(Renewed, "ddl", Renewed.ddl.replace("pieces bigint", "pieces numeric"))
    with pytest.raises(ProjectionRefused, match="pieces is bigint there, not numeric"):
        rebuild(connector(ledger_dsn), Renewed())
    assert rows(conn, "SELECT status FROM ledger.projection WHERE name = 'best_customers'") == [("live",)]


def test_what_an_uninstalled_package_left_is_dropped(conn, lanes, ledger_dsn):
    """By name alone: its row and its lag, its view and its tables are gone; a shipped one stays; installed
    again it begins anew."""
    follow(ledger_dsn, BestCustomers())
    rebuild(connector(ledger_dsn), BestCustomers())
    assert drop_projection(conn, "best_customers") == [1, 2]
    assert rows(conn, RELATIONS) == []
    assert rows(conn, "SELECT * FROM ledger.projections WHERE name = 'best_customers'") == []
    with pytest.raises(ProjectionUnknown):
        drop_projection(conn, "best_customers")
    for name in ("stock", "purchases_by_user", "sales_by_day", "user_events"):
        with pytest.raises(ProjectionRefused):
            drop_projection(conn, name)
    follow(ledger_dsn, BestCustomers())
    assert rows(conn, "SELECT generation, lag FROM ledger.projections WHERE name = 'best_customers'") == [
        (3, 0)
    ]


@pytest.mark.parametrize("projection", SHIPPED, ids=lambda each: each.name)
def test_a_pointer_that_was_lost_is_found_again(projection, conn, lanes, ledger_dsn):
    """Its row deleted, `rebuild` says to project it, and that works: the stock by the head's word, a follower
    from the beginning; then it can be rebuilt."""
    follow(ledger_dsn, *SHIPPED)
    conn.execute("DELETE FROM ledger.projection WHERE name = %s", [projection.name])
    with pytest.raises(ProjectionRefused) as caught:
        rebuild(connector(ledger_dsn), projection)
    assert caught.value.remedy == f"stockledger project {projection.name} --until-caught-up"
    follow(ledger_dsn, projection)
    lanes.apply(1, *purchases(0, "q", 5))
    follow(ledger_dsn, projection)
    if projection.name != "sales_by_day":
        assert is_right(conn, projection.name)
    assert compared(rebuild(connector(ledger_dsn), projection)).differences == []


def test_a_view_built_upon_one_is_named(conn, lanes, ledger_dsn):
    """A person's view over it stops a change of columns with the server's word; nothing was swapped."""
    follow(ledger_dsn, BestCustomers())
    conn.execute("CREATE VIEW public.mine AS SELECT last_bought_at FROM ledger.best_customers")
    with pytest.raises(ProjectionBroken) as caught:
        rebuild(connector(ledger_dsn), Renewed())
    assert "depend" in str(caught.value)
    assert shown(conn) == ["user_id", "pieces", "last_bought_at"]


class Slow(Own):
    """Takes its time, for each entry or for each range."""

    seconds = "0.2 * %(entries)s"

    def apply(self, conn, generation, events):
        conn.execute(f"SELECT pg_sleep({self.seconds})", {"entries": events.last - events.first + 1})
        return super().apply(conn, generation, events)


def test_a_fold_that_takes_too_long_gets_smaller_ranges(conn, lanes, ledger_dsn):
    """Slower than its statement may be, it is said, and the range is made smaller until it fits."""
    for n in range(4):
        lanes.apply(1, *purchases(0, f"q{n}", 3))
    budgets = database.Budgets(statement_timeout_ms=700)
    told = Faults()
    Projector(
        lambda: database.connect(ledger_dsn, purpose="test", budgets=budgets),
        [Slow(), SalesByDay()], until_caught_up=True, told=told,
    ).run()  # fmt: skip
    assert told.waited[0] == ("own", "57014")
    [(events,)] = rows(conn, "SELECT count(*) FROM ledger.event")
    assert rows(conn, "SELECT events FROM ledger.own") == [(events,)]


def test_a_fold_that_can_never_be_in_time_is_given_up(conn, lanes, ledger_dsn, monkeypatch):
    """One entry alone takes too long: tried a few times, then told with its class; the others go on."""
    monkeypatch.setattr(Slow, "seconds", "9 + 0 * %(entries)s")
    budgets = database.Budgets(statement_timeout_ms=300)
    with pytest.raises(ProjectionBroken, match="longer to apply one entry than its statement may"):
        Projector(
            lambda: database.connect(ledger_dsn, purpose="test", budgets=budgets),
            [Slow(), SalesByDay(), PurchasesByUser()], until_caught_up=True,
        ).run()  # fmt: skip
    assert is_right(conn, "purchases_by_user")


def test_one_that_was_never_built_needs_the_owner_once(conn, lanes, ledger_dsn):
    """A writer that finds it missing says who can make it, and follows the others; later this one, too."""

    def writer():
        made = connector(ledger_dsn)()
        made.execute(f'SET ROLE "{roles.writer(made)}"')
        return made

    with pytest.raises(ProjectionRefused, match="only the database's owner can make it"):
        Projector(writer, [BestCustomers(), PurchasesByUser()], until_caught_up=True).run()
    assert is_right(conn, "purchases_by_user")
    follow(ledger_dsn, BestCustomers())
    lanes.apply(1, *purchases(0, "q", 5))
    Projector(writer, [BestCustomers()], until_caught_up=True).run()
    assert rows(conn, "SELECT lag FROM ledger.projections WHERE name = 'best_customers'") == [(0,)]
