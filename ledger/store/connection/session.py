"""Sessions that fold: their settings, the lock that makes one the builder, and the end of those in the way.

What is locked here goes with the session, so with its process. The caller owns the transaction.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from ledger.store.connection.database import Connection

SESSION = """
SELECT set_config('work_mem', %s, false), set_config('jit', 'off', false),
       set_config('max_parallel_workers_per_gather', '0', false),
       set_config('enable_mergejoin', 'off', false),
       set_config('client_connection_check_interval', '1000', false)
"""
ONE_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
LIMIT = "SELECT set_config('statement_timeout', %s, true)"
# One builder a projection: the lock goes with the session, so with the process.
TRY_BUILDER_LOCK = "SELECT pg_try_advisory_lock(hashtextextended('stockledger.rebuild.' || %s, 0))"
DROP_LOCK = "SELECT pg_advisory_lock(hashtextextended('stockledger.drop.' || %s, 0))"
DROP_UNLOCK = "SELECT pg_advisory_unlock(hashtextextended('stockledger.drop.' || %s, 0))"
BUILDER_KEY = "SELECT hashtextextended('stockledger.rebuild.' || %s, 0)"
TERMINATE = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE pid = %s AND backend_start = %s AND datname = current_database() AND usename = current_user
    AND starts_with(application_name, 'stockledger/')
"""
# Transactions that write have a number. All that might have begun before the horizon was read are below it.
HORIZON = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
PASSED = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= %s"


def prepare_session(conn: Connection, work_mem: str = "64MB") -> None:
    """Give folds room to sort, no compilation, and an end soon after the client is gone.

    No parallel workers: what writes has none anyway, and a comparison's would fill a small /dev/shm. No
    merge joins: a generation without statistics looks small, and is joined by the key's first column alone.
    """
    conn.execute(SESSION, (work_mem,))


def try_builder_lock(conn: Connection, name: str) -> bool:
    """Become the one builder of the projection, until the session ends."""
    return conn.execute(TRY_BUILDER_LOCK, (name,)).fetchone() == (True,)


@contextmanager
def dropping(conn: Connection, name: str) -> Iterator[None]:
    """Be the one who drops the projection's generations: two would take each other's table away."""
    conn.execute(DROP_LOCK, (name,))
    try:
        yield
    finally:
        if not conn.closed:
            conn.execute(DROP_UNLOCK, (name,))


def builder_key(conn: Connection, name: str) -> int:
    """The key of the projection's builder lock."""
    row = conn.execute(BUILDER_KEY, (name,)).fetchone()
    assert row is not None
    return int(row[0])


def terminate(conn: Connection, pid: int | None, start: datetime | None) -> None:
    """End the session with this backend, if it is still the one that started then."""
    conn.execute(TERMINATE, (pid, start))


def limit_statements(conn: Connection, timeout_ms: int) -> None:
    """No statement of this transaction may take longer."""
    conn.execute(LIMIT, (str(timeout_ms),))


def keep_snapshot(conn: Connection) -> None:
    """All statements of the transaction that has just begun see what the first of them sees."""
    conn.execute(ONE_SNAPSHOT)


def horizon(conn: Connection) -> int:
    """A mark: every transaction that writes and runs now is below it."""
    row = conn.execute(HORIZON).fetchone()
    assert row is not None
    return int(row[0])


def passed(conn: Connection, mark: int) -> bool:
    """Whether all transactions below the mark have ended."""
    return conn.execute(PASSED, (mark,)).fetchone() == (True,)
