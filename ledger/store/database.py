"""Connections, transactions, and what a database error means.

Every connection is in autocommit: a transaction begins and ends where the code says so. SQLSTATE alone
decides what an error means (`fault`); `Transaction.status` and the like are never asked whether a
commit took effect, because they can't know.
"""

import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.rows import TupleRow
from psycopg.waiting import Wait

from ledger.errors import (
    Contended,
    Defect,
    LedgerError,
    Park,
    SchemaMismatch,
    Stop,
    Unavailable,
    UnsafeSettings,
)

T = TypeVar("T")


class Connection(psycopg.Connection[TupleRow]):
    """A session, and what it has prepared (see `together`): how to execute a statement, by the statement."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prepared: dict[str, bytes] = {}
        self.meanwhile: Callable[[], bool] | None = None
        """Does a piece of other work, of a millisecond at most, and says whether there was any.

        It is done while the server is busy, as often as that takes. It must not raise, nor use the session.
        """

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        """As the driver's: until the server has answered."""
        if self.meanwhile:
            gen = self._working(gen, self.meanwhile)
        return super().wait(gen, *args, **kwargs)

    def _working(self, gen: PQGen[T], work: Callable[[], bool]) -> PQGen[T]:
        try:
            waits_for = next(gen)
            while True:
                while not self._is_ready(waits_for) and work():
                    pass
                waits_for = gen.send((yield waits_for))
        except StopIteration as end:
            answer: T = end.value
            return answer

    def _is_ready(self, waits_for: Wait) -> bool:
        asked = select.poll()
        asked.register(self.fileno(), select.POLLIN | (select.POLLOUT if waits_for & Wait.W else 0))
        return bool(asked.poll(0))


CHECK_VIOLATION = "23514"
RECORD_CHECKS = {"stock_bounds"}
"""The CHECKs that one record can violate; any other one is a defect of this program."""


@dataclass(frozen=True)
class Budgets:
    """How long a session may wait, in milliseconds, before Postgres ends the wait for it.

    They bound what a frozen or slow owner can do to its successor: `lock_timeout` ends our wait for its
    rows, the others end its own transaction.
    """

    connect_timeout_s: int = 5
    lock_timeout_ms: int = 3_000
    statement_timeout_ms: int = 30_000
    idle_in_transaction_timeout_ms: int = 5_000
    transaction_timeout_ms: int = 60_000


def connect(dsn: str, *, purpose: str, budgets: Budgets = Budgets()) -> Connection:
    """A connection in autocommit with the session's time budgets set; `""` leaves all to libpq's `PG*`.

    Raises Unavailable with libpq's own words when the server can't be reached or refuses.
    """
    try:
        conn = Connection.connect(
            dsn,
            autocommit=True,
            application_name=f"stockledger/{purpose}",
            connect_timeout=budgets.connect_timeout_s,
            tcp_user_timeout=budgets.statement_timeout_ms,
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
            client_encoding="utf8",
            prepare_threshold=None,  # or the driver would DEALLOCATE ALL after a ROLLBACK, `prepared` too
        )
    except psycopg.OperationalError as error:
        raise Unavailable(
            f"the database can't be reached: {_sentence(error)}", remedy="stockledger doctor"
        ) from error
    except psycopg.ProgrammingError as error:  # the DSN itself
        raise Stop(
            f"the DSN can't be read: {_sentence(error)}", remedy="set STOCKLEDGER_DSN or PG*"
        ) from error
    with faults():
        conn.execute(SET_BUDGETS, _settings(budgets))
    return conn


SET_BUDGETS = """
SELECT set_config('lock_timeout', %s, false), set_config('statement_timeout', %s, false),
       set_config('idle_in_transaction_session_timeout', %s, false),
       set_config('transaction_timeout', %s, false), set_config('TimeZone', 'UTC', false),
       set_config('bytea_output', 'hex', false)
"""


def _settings(budgets: Budgets) -> list[str]:
    return [
        str(budgets.lock_timeout_ms),
        str(budgets.statement_timeout_ms),
        str(budgets.idle_in_transaction_timeout_ms),
        str(budgets.transaction_timeout_ms),
    ]


@contextmanager
def faults() -> Iterator[None]:
    """Turn the driver's errors into the ledger's."""
    try:
        yield
    except psycopg.Error as error:
        raise fault(error) from error


@contextmanager
def transaction(conn: Connection, *, begins: bool = True) -> Iterator[None]:
    """One READ COMMITTED transaction, rolled back on any exception; the driver's errors become the ledger's.

    The body may end the transaction itself (a batch commits in the same round trip as its seal), and where
    `begins` is off it begins it itself (in the same round trip as its fence).
    """
    with faults():
        try:
            if begins:
                conn.execute("BEGIN")
            yield
            if conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                commit(conn)
        except BaseException:
            rollback(conn)
            raise


def commit(conn: Connection) -> None:
    """COMMIT, and make sure that it wasn't answered with a ROLLBACK (a swallowed error does that)."""
    confirm_commit(conn.execute("COMMIT", prepare=False))


def confirm_commit(cursor: psycopg.Cursor[Any]) -> None:
    """Raise Defect unless the cursor's statement committed."""
    if cursor.statusmessage != "COMMIT":
        raise Defect(f"COMMIT was answered with {cursor.statusmessage}")


def rollback(conn: Connection) -> None:
    """ROLLBACK if there is a transaction and a connection to say it on."""
    if conn.closed or conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
        return
    try:
        conn.execute("ROLLBACK")
    except psycopg.Error:
        conn.close()  # the server rolls back when the connection goes


# What an SQLSTATE means. Source: PostgreSQL 18, appendix A; design 5.
CONTENDED = {"23505", "40001", "40P01", "55P03", "57014", "SL001", "SL002"}
UNAVAILABLE_CLASSES = {"08", "53", "57", "58"}
UNAVAILABLE = {"25006", "25P03", "25P04"}  # read-only standby; idle or transaction timeout closed the session
PARK_CLASSES = {"22", "54"}
SCHEMA_MISSING = {"3F000", "42P01", "42703", "42883"}


def fault(error: psycopg.Error) -> LedgerError:
    """The ledger's fault for a driver's error; unknown ones are defects, which stop."""
    state = error.sqlstate
    diagnostics = error.diag
    text = _sentence(error)
    if state is None:
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return Unavailable(f"the connection to the database was lost: {text}")
        return Defect(f"the driver refused: {text}")
    if state in CONTENDED:
        return Contended(text, sqlstate=state, constraint=diagnostics.constraint_name or "")
    if state[:2] in UNAVAILABLE_CLASSES or state in UNAVAILABLE:
        return Unavailable(f"the database said {state}: {text}")
    if state[:2] in PARK_CLASSES or (
        state == CHECK_VIOLATION and diagnostics.constraint_name in RECORD_CHECKS
    ):
        return Park(text, reason=f"sqlstate_{state}")
    if state == "SL003":
        return UnsafeSettings(
            "synchronous_commit is off: an acknowledged commit could vanish in a crash",
            remedy="ALTER SYSTEM, DATABASE or ROLE ... SET synchronous_commit = on, then start again",
        )
    if state in SCHEMA_MISSING:
        return SchemaMismatch(
            f"the schema isn't the one this build needs: {text}", remedy="stockledger migrate"
        )
    if state == "42501":
        return Stop(f"no right to do this: {text}", remedy="GRANT stockledger_writer TO this role")
    return Defect(f"unexpected SQLSTATE {state}: {text}", remedy="report it with the log")


def _sentence(error: psycopg.Error) -> str:
    # The primary message only: DETAIL can quote a row, and rows are nobody's business in a log.
    text = error.diag.message_primary or str(error)
    return " ".join(text.split())
