"""Connections and transactions.

Every connection is in autocommit: a transaction begins and ends where the code says so.
`Transaction.status` and the like are never asked whether a commit took effect, because they can't know.
"""

import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq.abc import PGresult
from psycopg.rows import TupleRow
from psycopg.waiting import Wait

from ledger.errors import DOCTOR, Defect, LedgerError, Unavailable
from ledger.store.connection.dsn import options, unreachable
from ledger.store.connection.fit import require_fit, require_session
from ledger.store.connection.pinned import pin
from ledger.store.connection.sqlstates import fault

T = TypeVar("T")


class Connection(psycopg.Connection[TupleRow]):
    """A session, and what it has prepared (see `roundtrip`): how to execute a statement, by the statement."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prepared: dict[str, bytes] = {}
        self.meanwhile: Callable[[], bool] | None = None
        """Does a piece of other work, of a millisecond at most, and says whether there was any.

        It is done while the server is busy, as often as that takes. It must not raise, nor use the session.
        """
        self.on_silence: Callable[[float], None] | None = None
        """Is told some ten times a second for how long the server has said nothing; gives up by raising."""
        self.silence_max_s: float | None = None
        """After that time its answer is given up: a server can hang in ways that none of its timeouts end."""

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        """Wait as the driver does until the server has answered, or its silence is given up."""
        return super().wait(self._waiting(gen), *args, **kwargs)

    def _waiting(self, gen: PQGen[T]) -> PQGen[T]:
        silent_since = 0.0
        try:
            waits_for = next(gen)
            while True:
                while self.meanwhile and not self._is_ready(waits_for) and self.meanwhile():
                    pass
                ready = yield waits_for
                silent_since = 0.0 if ready else self._bear(silent_since or time.monotonic())
                waits_for = gen.send(ready)
        except StopIteration as end:
            answer: T = end.value
            return answer

    def _bear(self, since: float) -> float:
        silent_s = time.monotonic() - since
        try:
            if self.on_silence:
                self.on_silence(silent_s)
            if self.silence_max_s is not None and silent_s > self.silence_max_s:
                raise Unavailable(f"the database has said nothing for {silent_s:.0f} s", remedy=DOCTOR)
        except LedgerError:
            self.close()  # what it was doing takes effect or doesn't; nobody may go on here without knowing
            raise
        return since

    def _is_ready(self, waits_for: Wait) -> bool:
        asked = select.poll()
        asked.register(self.fileno(), select.POLLIN | (select.POLLOUT if waits_for & Wait.W else 0))
        return bool(asked.poll(0))


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


SILENCE_MARGIN_S = 5.0
"""How much longer than a statement may take its answer is waited for."""


def connect(dsn: str, *, purpose: str, budgets: Budgets = Budgets()) -> Connection:
    """A connection in autocommit with the session's time budgets set; `""` leaves all to libpq's `PG*`.

    Raises BadSettings for a DSN that can't be read, Unavailable when the server can't be reached,
    LoginRefused when it doesn't let us in, ServerUnfit when no ledger can be kept there; none of them quotes
    the DSN.
    """
    options(dsn)
    conn = _connected(dsn, purpose, budgets)
    if budgets.statement_timeout_ms:
        conn.silence_max_s = budgets.statement_timeout_ms / 1000 + SILENCE_MARGIN_S
    try:
        require_fit(conn)
        with faults():
            backend = pin(conn, _settings(budgets))
            require_session(conn, backend, lambda: _connected(dsn, purpose, budgets))
    except BaseException:
        conn.close()
        raise
    return conn


def _connected(dsn: str, purpose: str, budgets: Budgets) -> Connection:
    try:
        return Connection.connect(
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
        raise unreachable(error, dsn) from None


def _settings(budgets: Budgets) -> dict[str, str]:
    return {
        "lock_timeout": str(budgets.lock_timeout_ms),
        "statement_timeout": str(budgets.statement_timeout_ms),
        "idle_in_transaction_session_timeout": str(budgets.idle_in_transaction_timeout_ms),
        "transaction_timeout": str(budgets.transaction_timeout_ms),
    }


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


@contextmanager
def rolled_back(conn: Connection) -> Iterator[None]:
    """A transaction that is rolled back whatever happens: to try something out."""
    conn.execute("BEGIN")
    try:
        yield
    finally:
        rollback(conn)


COMMIT_SILENCE_MAX_S = 60.0
"""How long a COMMIT may take in a session whose statements take as long as they take."""


def commit(conn: Connection) -> None:
    """COMMIT, and make sure that it wasn't answered with a ROLLBACK (a swallowed error does that)."""
    bounded = not isinstance(conn, Connection) or conn.silence_max_s is not None
    if not bounded:
        conn.silence_max_s = COMMIT_SILENCE_MAX_S
    confirm_commit(conn.execute("COMMIT", prepare=False).pgresult)
    if not bounded:
        conn.silence_max_s = None


def confirm_commit(result: PGresult | None) -> None:
    """Raise Defect unless this is the answer of a statement that committed."""
    told = result.command_status if result else None
    if told != b"COMMIT":
        raise Defect(f"COMMIT was answered with {(told or b'nothing').decode()}")


def rollback(conn: Connection) -> None:
    """ROLLBACK if there is a transaction and a connection to say it on."""
    if conn.closed or conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
        return
    try:
        conn.execute("ROLLBACK")
    except psycopg.Error:
        conn.close()  # the server rolls back when the connection goes


def in_a_transaction(conn: Connection) -> bool:
    """Whether the session is in one, as far as it has been told."""
    return conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE
