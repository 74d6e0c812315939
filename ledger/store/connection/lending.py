"""Connections for questions: one of our own that is made again when it was lost, or the caller's.

A question may be asked twice, so it must only read. The caller's connection is given back as it was: what is
set on it is set for one transaction, or set back before the caller's own goes on.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol, TypeVar, cast

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from ledger.errors import Unavailable
from ledger.store.connection.database import Budgets, Connection, connect, faults
from ledger.store.connection.pinned import pinned

T = TypeVar("T")


class Pool(Protocol):
    """What `psycopg_pool.ConnectionPool` is, as far as we need it."""

    def connection(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        """Lend a connection, and take it back at the end."""
        ...


ConnectionSource = str | psycopg.Connection[Any] | Pool

# How long a question waits; the budgets of a transaction are the caller's own.
WAITS = {
    "client_encoding": "UTF8",
    "lock_timeout": str(Budgets.lock_timeout_ms),
    "statement_timeout": str(Budgets.statement_timeout_ms),
}
OWN = Budgets()


class _Lost(Unavailable):
    """The connection broke under the question."""


class Lender:
    """Where the connections of one `Ledger` come from: a DSN, a caller's connection, or a caller's pool.

    May be used from several threads: with a pool the questions are asked side by side, else they take turns.
    """

    def __init__(self, source: ConnectionSource, purpose: str, budgets: Budgets = OWN) -> None:
        self._source = source
        self._purpose = purpose
        self._budgets = budgets
        self._turn = threading.RLock()
        self._closed = False
        self._own = connect(source, purpose=purpose, budgets=budgets) if isinstance(source, str) else None
        if self._own is None and not hasattr(source, "execute") and not hasattr(source, "connection"):
            raise TypeError(f"a DSN, a psycopg.Connection or a pool is needed, not {type(source).__name__}")

    def close(self) -> None:
        """End our own connection; a caller's stays as it is."""
        self._closed = True
        if self._own:
            self._own.close()

    def ask(self, question: Callable[[Connection], T]) -> T:
        """The question's answer; asked once more, on another connection, where the first one turns out lost.

        Raises Unavailable if there is none to be had, or if that is lost, too.
        """
        try:
            return self._asked(question)
        except _Lost:
            if check := getattr(self._source, "check", None):
                check()  # a restart leaves a pool full of dead ones
            return self._asked(question)

    def tell(self, order: Callable[[Connection], T]) -> T:
        """What the order returns. It is given once: after Unavailable it may have been carried out.

        A connection that was lost meanwhile is noticed before.
        """
        self.ask(lambda conn: conn.execute("SELECT 1"))
        return self._asked(order)

    def dsn(self) -> str:
        """Where others can connect to the same database, its password included."""
        if isinstance(self._source, str):
            return self._source
        return self.ask(lambda conn: make_conninfo(conn.info.dsn, password=conn.info.password or None))

    def _asked(self, question: Callable[[Connection], T]) -> T:
        with faults(), self._lent() as conn:
            try:
                with faults(), _prepared(conn) as ours:
                    return question(ours)
            except Unavailable as error:
                if not conn.closed:
                    raise
                raise _Lost(error.message, remedy=error.remedy) from error

    @contextmanager
    def _lent(self) -> Iterator[psycopg.Connection[Any]]:
        if self._closed:
            raise Unavailable("this Ledger was closed", remedy="make a new Ledger")
        if isinstance(self._source, str):
            with self._turn:
                if self._own is None or self._own.closed:
                    self._own = connect(self._source, purpose=self._purpose, budgets=self._budgets)
                yield self._own
        elif isinstance(self._source, psycopg.Connection):
            with self._turn:
                yield self._source
        else:
            with _of_pool(self._source) as conn:
                yield conn


@contextmanager
def _of_pool(pool: Pool) -> Iterator[psycopg.Connection[Any]]:
    with ExitStack() as stack:
        try:
            conn = stack.enter_context(pool.connection())
        except psycopg.Error as error:
            if isinstance(dsn := getattr(pool, "conninfo", None), str):
                connect(dsn, purpose="api").close()  # says why; the pool knows only that it took too long
            raise Unavailable(
                f"the pool has no connection to lend: {error}", remedy="raise the pool's max_size"
            ) from error
        yield conn


@contextmanager
def _prepared(conn: psycopg.Connection[Any]) -> Iterator[Connection]:
    """A caller's connection as we need it, in a transaction or a savepoint of ours; then as it was."""
    if isinstance(conn, Connection):  # our own is as we need it already
        yield conn
        return
    if conn.closed:
        raise Unavailable(
            "the connection that was given is closed",
            remedy="give the Ledger a DSN or a pool: it connects again by itself",
        )
    nested = conn.info.transaction_status != TransactionStatus.IDLE
    factories = conn.row_factory, conn.cursor_factory
    conn.row_factory, conn.cursor_factory = tuple_row, psycopg.Cursor
    try:
        with conn.transaction(), pinned(conn, WAITS, goes_on=nested):
            yield cast(Connection, conn)
    finally:
        conn.row_factory, conn.cursor_factory = factories
