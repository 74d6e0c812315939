"""A lock that somebody holds blocks no operation for ever, and the one who holds it is named."""

import threading

import psycopg
import pytest

from ledger.errors import Held, RebuildRunning
from ledger.projections.stock import Stock
from ledger.rebuilding.builder import builder
from ledger.store.connection import database, obstacle, session
from ledger.store.connection.database import Budgets
from ledger.store.schema.migrate import ADVISORY_LOCK, migrate
from tests.support.workers import wait_for

QUICK = Budgets(lock_timeout_ms=200)
NAME = "somebody's psql"


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test", budgets=QUICK) as conn:
        yield conn


@pytest.fixture
def somebody(ledger_dsn):
    """Another session, which anybody with CONNECT may have."""
    with psycopg.connect(ledger_dsn, application_name=NAME, autocommit=True) as other:
        yield other


def named(error, somebody):
    """The message has who it is, the remedy ends that session and no other."""
    assert (
        f"the session {somebody.info.backend_pid} of {somebody.info.user} ({NAME}), since 2" in error.message
    )
    assert error.remedy == f"SELECT pg_terminate_backend({somebody.info.backend_pid});"
    return error.remedy


def test_migrate_names_who_holds_its_lock(conn, somebody):
    """An advisory lock needs no right at all; the remedy works as printed, and then migrate does."""
    somebody.execute("SELECT pg_advisory_lock(%s)", (ADVISORY_LOCK,))
    with pytest.raises(Held) as held:
        migrate(conn)
    conn.execute(named(held.value, somebody))
    assert migrate(conn).applied == []


def test_migrate_names_who_holds_a_table(ledger_dsn, conn, somebody):
    """A forgotten transaction, idle: its state is told."""
    somebody.execute("BEGIN")
    somebody.execute("LOCK TABLE ledger.migration IN ACCESS EXCLUSIVE MODE")
    with pytest.raises(Held, match="idle in transaction") as held:
        migrate(conn)
    named(held.value, somebody)


def test_migrate_names_what_the_holder_waits_for(ledger_dsn, conn, somebody):
    """Who holds the lock waits for another session: that one is to end, or nobody is freed."""
    somebody.execute("SELECT pg_advisory_lock(1)")
    with psycopg.connect(ledger_dsn) as middle:
        middle.execute("LOCK TABLE ledger.migration IN ACCESS EXCLUSIVE MODE")
        waiting = threading.Thread(target=middle.execute, args=("SELECT pg_advisory_lock(1)",))
        waiting.start()
        try:
            wait_for("it waits", lambda: obstacle.obstacle(conn, middle.info.backend_pid))
            with pytest.raises(Held, match=f"the session {middle.info.backend_pid} .*waits itself") as held:
                migrate(conn)
            assert held.value.remedy.endswith(f"pg_terminate_backend({somebody.info.backend_pid});")
        finally:
            somebody.execute("SELECT pg_advisory_unlock_all()")
            waiting.join(30)


def test_a_rebuild_names_who_holds_its_lock(ledger_dsn, conn, somebody):
    """Nobody builds it, so it isn't "somebody else's rebuild"."""
    somebody.execute("SELECT pg_advisory_lock(%s)", (session.builder_key(conn, "stock"),))

    def connect():
        return database.connect(ledger_dsn, purpose="test", budgets=QUICK)

    with (
        pytest.raises(RebuildRunning, match="the lock of stock's builder") as running,
        builder(connect, Stock()),
    ):
        pass
    named(running.value, somebody)


def test_the_last_of_a_chain_is_named(ledger_dsn, conn, somebody):
    """Who waits for somebody who waits himself is told who holds up both: ending another frees nobody."""
    somebody.execute("SELECT pg_advisory_lock(1)")
    with psycopg.connect(ledger_dsn) as middle, psycopg.connect(ledger_dsn) as last:
        middle.execute("SELECT pg_advisory_lock(2)")
        waiting = []
        for number, each in enumerate((middle, last), 1):
            thread = threading.Thread(target=each.execute, args=("SELECT pg_advisory_lock(%s)", (number,)))
            thread.start()
            waiting.append(thread)
        try:
            pids = [each.info.backend_pid for each in (middle, last)]
            wait_for("both wait", lambda: all(obstacle.obstacle(conn, pid) for pid in pids))
            found = obstacle.obstacle(conn, pids[1])
            assert found
            assert f"the session {somebody.info.backend_pid} of" in found.cause
            assert found.remedy.endswith(f"pg_terminate_backend({somebody.info.backend_pid});")
        finally:
            somebody.execute("SELECT pg_advisory_unlock_all()")
            waiting[0].join(30)
            middle.execute("SELECT pg_advisory_unlock_all()")
            waiting[1].join(30)
