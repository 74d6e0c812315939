"""Who may do what: workers write batches and nothing besides, readers read, and nothing besides."""

import os

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ledger.api import Ledger
from ledger.domain.delivery import Lane
from ledger.errors import UnsafeSettings
from ledger.store.connection import database
from ledger.store.reads import history as past
from ledger.store.schema import rights
from ledger.store.tables import lane
from ledger.store.tables.dead_letter import LetterStatus
from ledger.verify.run import BUDGETS, verify
from tests.postgres.test_append_only import TABLES
from tests.support import roles
from tests.support.batches import TOPIC
from tests.support.history import buys, history, on_hand

VIEWS = (
    "events",
    "outcomes",
    "stock_levels",
    "purchases",
    "dead_letters",
    "conflicts",
    "gaps",
    "journal_entries",
)
PASSWORD = "only for this test"


@pytest.fixture
def login(services, ledger_dsn):
    """`login("writer") -> dsn` of a new user that is a member of that role; it is dropped after the test."""
    made = []

    def create(kind: str) -> str:
        name = f"test_{os.getpid()}_{kind}"
        with database.connect(ledger_dsn, purpose="test") as owner:
            role = {"writer": roles.writer(owner), "reader": roles.reader(owner)}.get(kind, kind)
            owner.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}").format(
                    sql.Identifier(name), sql.Literal(PASSWORD), sql.Identifier(role)
                )
            )
        made.append(name)
        return make_conninfo(ledger_dsn, user=name, password=PASSWORD)

    yield create
    with psycopg.connect(services.postgres.dsn(), autocommit=True) as admin:
        for name in made:
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def allowed(dsn: str, statements: list[str]) -> list[str]:
    """Those of the statements that the user may run; every other one must fail for lack of the right."""
    found = []
    with psycopg.connect(dsn, autocommit=True) as conn:
        for statement in statements:
            with conn.transaction(force_rollback=True):
                try:
                    conn.execute(statement)
                except psycopg.errors.InsufficientPrivilege:
                    continue
                found.append(statement)
    return found


def tables(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as owner:
        rows = owner.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'ledger'").fetchall()
    return [name for (name,) in rows]


def test_a_writer_can_do_all_that_a_worker_does(login, ledger_dsn):
    """A writer begins and claims lanes, takes them over, applies batches, and verifies."""
    dsn = login("writer")
    with database.connect(dsn, purpose="test") as conn, database.connect(dsn, purpose="test") as heir:
        lanes = history(conn)
        assert lane.terminate_owner(heir, Lane(TOPIC, 1))
        with database.transaction(heir):
            assert lane.claim(heir, Lane(TOPIC, 1), lane.Owner("test", 2)).epoch == 3
        assert [found for found in verify(heir, deliveries=lanes.deliveries) if not found.ok] == []
    with Ledger(dsn) as ledger:
        assert ledger.status().position == 7
        assert ledger.mark(ledger.dead_letters()[0], LetterStatus.DISCARDED)


def test_a_member_that_does_not_inherit_is_told_so(login, ledger_dsn):
    """Who is a member of the writer's role, but doesn't use its rights, isn't told to become a member."""
    dsn = login("writer")
    name = psycopg.conninfo.conninfo_to_dict(dsn)["user"]
    with database.connect(ledger_dsn, purpose="test") as owner:
        writer = rights.roles(owner)[0].quoted
        assert rights.way_to_write(owner) == ""
        with database.connect(dsn, purpose="test") as conn:
            assert rights.way_to_write(conn) == ""
        owner.execute(f"REVOKE {writer} FROM {name}")
        with database.connect(dsn, purpose="test") as conn:
            assert rights.way_to_write(conn) == f'GRANT {writer} TO "{name}"'
        owner.execute(f"ALTER ROLE {name} NOINHERIT; GRANT {writer} TO {name}")
        with database.connect(dsn, purpose="test") as conn:
            owner.execute(way := rights.way_to_write(conn))
            assert way != f'GRANT {writer} TO "{name}"'
        with database.connect(dsn, purpose="test") as conn:
            assert rights.way_to_write(conn) == ""


def test_a_writer_can_change_nothing_that_was_written(login, ledger_dsn):
    """A worker's user, taken over, can't change history, forge the journal, or switch the guards off."""
    dsn = login("writer")
    with database.connect(dsn, purpose="test") as conn:
        history(conn)
    statements = [
        "INSERT INTO ledger.journal SELECT * FROM ledger.journal",
        "INSERT INTO ledger.migration VALUES (99, 'x', 'x')",
        "UPDATE ledger.head SET position = 0",
        "UPDATE ledger.dead_letter SET code = 'x'",
        "UPDATE ledger.identity SET consumer_group = 'x'",
        "UPDATE ledger.lane SET start_offset = 5",
        "UPDATE ledger.lane SET topic_id = 'x'",
        "UPDATE ledger.lane SET topic = 'x'",
        "UPDATE ledger.lane SET backend_pid = 1",
        "INSERT INTO ledger.lane (topic, partition, topic_id, start_offset, epoch)"
        " VALUES ('t', 9, 'x', 0, 1)",
        "UPDATE ledger.stock SET goods_id = 'x'",
        "UPDATE ledger.account SET user_id = 'x'",
        "UPDATE ledger.role SET writer = 'x'",
        "UPDATE ledger.projection SET status = 'live'",
        "SELECT setval('ledger.entry_number', 1)",
        "SELECT brin_summarize_new_values('ledger.event_entry')",
        "CREATE TABLE ledger.mine ()",
        "CREATE OR REPLACE FUNCTION ledger.lock_head() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'",
        "ALTER FUNCTION ledger.seal OWNER TO CURRENT_USER",
        "DROP FUNCTION ledger.seal",
        "DROP SCHEMA ledger CASCADE",
        "SET session_replication_role = replica",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
    ]
    for name in tables(ledger_dsn):
        statements += [
            f"DELETE FROM ledger.{name}",
            f"TRUNCATE ledger.{name}",
            f"DROP TABLE ledger.{name}",
            f"ALTER TABLE ledger.{name} DISABLE TRIGGER ALL",
            f"CREATE TRIGGER mine BEFORE INSERT ON ledger.{name} EXECUTE FUNCTION ledger.refuse_change()",
        ]
    statements += [f"UPDATE ledger.{name} SET entry = 0" for name in TABLES]
    assert allowed(dsn, statements) == []


def test_a_reader_can_read_everything(login, ledger_dsn):
    """A reader reads every view and table; through `Ledger`, `verify` and `replay` all that they tell."""
    dsn = login("reader")
    with database.connect(ledger_dsn, purpose="test") as conn:
        lanes = history(conn)
    statements = [f"SELECT * FROM ledger.{view}" for view in (*VIEWS, *tables(ledger_dsn))]
    assert allowed(dsn, statements) == statements
    with Ledger(dsn) as ledger:
        assert ledger.outcome("p4")[0].version == 6
        assert on_hand(ledger, "tea") == on_hand(ledger, "tea", 7) == 86
        assert len(ledger.gaps()) == len(ledger.dead_letters()) == 3
        assert ledger.status().position == 7
        assert ledger.why("tea", 10)[0].sum == 86
    with database.connect(dsn, purpose="test", budgets=BUDGETS) as conn:
        assert [found for found in verify(conn, deliveries=lanes.deliveries) if not found.ok] == []
        assert sum(len(piece.events) for piece in past.events(conn, 1, 7, past.Wanted())) == 14


def test_a_reader_can_do_nothing_else(login, ledger_dsn):
    """A reader calls no function that writes, and changes nothing, be it through a view."""
    dsn = login("reader")
    statements = [
        "SELECT ledger.lock_head()",
        "SELECT ledger.summarize_events()",
        "SELECT nextval('ledger.entry_number')",
        "CREATE TABLE ledger.mine ()",
        "UPDATE ledger.stock_levels SET on_hand = 1",
        "DELETE FROM ledger.journal_entries",
    ]
    for name in tables(ledger_dsn):
        statements += [
            f"SELECT FROM ledger.{name} FOR SHARE",
            f"INSERT INTO ledger.{name} DEFAULT VALUES",
            f"DELETE FROM ledger.{name}",
            f"TRUNCATE ledger.{name}",
        ]
    assert allowed(dsn, statements) == []


def test_a_stranger_can_do_nothing(login):
    """A user who is a member of neither role doesn't see into the schema."""
    dsn = login("pg_monitor")
    assert allowed(dsn, [f"SELECT * FROM ledger.{view}" for view in VIEWS]) == []


def test_no_commit_is_sealed_that_a_crash_could_undo(login):
    """A session that turned synchronous_commit off, as any user may, can't seal a batch."""
    with database.connect(login("writer"), purpose="test") as conn:
        lanes = history(conn)
        conn.execute("SET synchronous_commit = off")
        with pytest.raises(UnsafeSettings):
            lanes.apply(1, buys("p6", "anna", 1))
        conn.execute("SET synchronous_commit = on")
        assert lanes.apply(1, buys("p6", "anna", 1)).position == 8
