"""What was written stays written: not even the tables' owner changes it without switching something off."""

import psycopg
import pytest
from psycopg import sql

from ledger.store.connection import database
from tests.support.history import history

TABLES = ("journal", "event", "processed_message", "cancellation", "dead_letter", "conflict", "gap")
REFUSED = "SL010"


@pytest.fixture(params=["origin", "replica"])
def conn(ledger_dsn, request):
    """The owner's session; as a replica it skips triggers, but for those that are always on."""
    with database.connect(ledger_dsn, purpose="test") as conn:
        history(conn)
        conn.execute("SELECT set_config('session_replication_role', %s, false)", [request.param])
        yield conn


def refused(conn, statement: sql.Composable | str) -> bool:
    """Whether the ledger refused the statement. Anything else that goes wrong is an error of the test."""
    with conn.transaction(force_rollback=True):
        try:
            changed = conn.execute(statement).rowcount
        except psycopg.Error as error:
            if error.sqlstate != REFUSED:
                raise
            return True
        assert changed, "the statement had nothing to change"
        return False


def columns(conn, table: str) -> list[str]:
    with conn.cursor() as cursor:
        cursor.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(sql.Identifier("ledger", table)))
        return [column.name for column in cursor.description]


@pytest.mark.parametrize("table", TABLES)
def test_no_row_is_changed_or_removed(conn, table):
    """UPDATE of any column, DELETE, TRUNCATE, upsert and merge are refused, as a replica too."""
    name = sql.Identifier("ledger", table)
    statements = [sql.SQL("DELETE FROM {}").format(name), sql.SQL("TRUNCATE {}").format(name)]
    for column in columns(conn, table):
        if (table, column) != ("dead_letter", "status"):
            statements.append(sql.SQL("UPDATE {} SET {} = NULL").format(name, sql.Identifier(column)))
    if table != "dead_letter":
        statements += [
            sql.SQL("UPDATE {} SET entry = entry").format(name),
            sql.SQL(
                "INSERT INTO {0} SELECT * FROM {0} ON CONFLICT ON CONSTRAINT {1} DO UPDATE SET entry = 0"
            ).format(name, sql.Identifier(f"{table}_pkey")),
            sql.SQL(
                "MERGE INTO {0} t USING {0} s ON t.entry = s.entry WHEN MATCHED THEN UPDATE SET entry = 0"
            ).format(name),
        ]
    assert [s.as_string(conn) for s in statements if not refused(conn, s)] == []


def test_a_dead_letters_status_may_change(conn):
    """What was done about a dead letter may be noted; nothing else of it may change with it."""
    assert not refused(conn, "UPDATE ledger.dead_letter SET status = 'redriven'")
    assert refused(
        conn, "UPDATE ledger.dead_letter SET status = 'redriven', value = NULL WHERE value IS NOT NULL"
    )
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute("UPDATE ledger.dead_letter SET status = 'forgotten'")


def test_every_table_that_only_grows_is_guarded(conn):
    """A table of the ledger is append-only, or it is one of those that hold a current state."""
    rows = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'ledger'")
    current = {"head", "identity", "role", "lane", "stock", "stock_1", "account", "migration", "projection"}
    current |= {"stock_delta", "stock_horizon"}  # what is derived, and pruned
    followed = ("purchases_by_user", "sales_by_day", "user_events")
    current |= {f"{name}_rows{part}" for name in followed for part in ("", "_1")}
    assert {name for (name,) in rows} == current | set(TABLES)
