"""Nothing that somebody plants in `public` runs as a worker or as the owner (the kind of CVE-2018-1058)."""

import os
import subprocess
import sys
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from examples.own_projection import BestCustomers
from ledger.api import Ledger
from ledger.projections.purchases_by_user import PurchasesByUser
from ledger.projections.sales_by_day import SalesByDay
from ledger.projections.stock import Stock
from ledger.rebuilding.rebuild import rebuild, roll_back
from ledger.store.connection import database
from ledger.store.schema import migrate
from ledger.verify.run import verify
from stockledger.doctor import postgres
from stockledger.settings import load
from tests.conftest import database as fresh_database
from tests.support import traps
from tests.support.cli import Cli
from tests.support.history import history, on_hand
from tests.support.projections import compared, connector, follow

PATHS = {"the default": '"$user", public', "public first": "public, pg_catalog"}
PASSWORD = "only for this test"


@contextmanager
def login(admin_dsn: str, dsn: str):
    """The DSN of a user who may do nothing but make things in `public` of this database."""
    name = f"test_{os.getpid()}_planter"
    user = sql.Identifier(name)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(user, sql.Literal(PASSWORD)))
        admin.execute(sql.SQL("GRANT USAGE, CREATE ON SCHEMA public TO {}").format(user))
    yield make_conninfo(dsn, user=name, password=PASSWORD)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("SET search_path = pg_catalog")
        admin.execute(sql.SQL("DROP OWNED BY {}").format(user))
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP ROLE {}").format(user))


@pytest.fixture(scope="module")
def garden(services):
    """A database in whose `public` all that we call is planted."""
    with fresh_database(services, "garden") as name:
        dsn = services.postgres.dsn(name)
        with login(services.postgres.dsn(), dsn) as theirs:
            assert traps.plant(theirs) > 3_000
            yield name


@pytest.fixture(params=PATHS)
def dsn(request, services, garden):
    """A copy of it, in which an ordinary session looks where the parameter says."""
    with fresh_database(services, "planted", garden) as name:
        traps.put_first(services.postgres.dsn(), name, PATHS[request.param])
        yield services.postgres.dsn(name)


def test_what_was_planted_runs_in_a_session_that_pins_nothing(dsn):
    """The control: an ordinary session is caught, so the traps are what they should be."""
    with psycopg.connect(dsn, autocommit=True) as conn, pytest.raises(psycopg.Error, match="planted ran"):
        conn.execute("SELECT hashtextextended('a'::pg_catalog.text, 0), nextval('public.spy')")
    assert traps.ran(dsn)


def test_nothing_that_was_planted_runs(dsn):
    """migrate, workers, projectors, verify, rebuild, rollback, the answers and doctor: not one call."""
    with database.connect(dsn, purpose="test") as conn:
        migrate.migrate(conn)
        lanes = history(conn)
        follow(dsn, PurchasesByUser(), SalesByDay(), BestCustomers())
        assert [found for found in verify(conn, deliveries=lanes.deliveries) if not found.ok] == []
    for projection in (Stock(), PurchasesByUser(), BestCustomers()):
        assert compared(rebuild(connector(dsn), projection)).differences == []
        roll_back(connector(dsn), projection)
    with Ledger(dsn) as ledger:
        assert ledger.status().position == 7
        assert ledger.outcome("p4")[0].version == 6
        assert on_hand(ledger, "tea", 7) == 86
        assert ledger.why("tea", 10)[0].sum == 86
        assert len(ledger.gaps()) == len(ledger.dead_letters()) == 3
    settings = load({"dsn": dsn}, ())
    assert [f for f in postgres.examine(settings, []) if f.level == "fail"] == []
    cli = Cli(dsn, "127.0.0.1:1", "commands")
    assert cli("verify")["ok"]
    assert cli("why", "tea")["ok"]
    assert not traps.ran(dsn)


def test_the_printed_migrations_pin_it_too(dsn):
    """`migrate --print` is run by psql or by another tool, in a session that isn't ours."""
    call = Cli(dsn, "127.0.0.1:1", "commands")
    printed = subprocess.run(
        [sys.executable, "-m", "stockledger", "migrate", "--print"],
        env=call.environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(printed.encode())
    assert not traps.ran(dsn)


def test_every_function_of_the_ledger_pins_its_own(dsn):
    """Whoever calls one, with whatever search_path: it looks in pg_catalog and nowhere else."""
    with database.connect(dsn, purpose="test") as conn:
        migrate.migrate(conn)
        functions = conn.execute(
            "SELECT proname, proconfig FROM pg_proc WHERE pronamespace = 'ledger'::regnamespace"
        ).fetchall()
    assert functions
    assert [
        name for name, config in functions if "search_path=pg_catalog, pg_temp" not in (config or [])
    ] == []
