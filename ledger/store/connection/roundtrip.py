"""Statements that travel together: several in one round trip, each with a snapshot of its own.

A small batch's time is its round trips, and most of each is the driver's. A simple query may hold several
statements; they are prepared once a session, so that Postgres needn't plan them anew. They mean what they
mean one by one: in READ COMMITTED a statement takes its snapshot after the one before it has ended, so what a
lock guards may be read by the next. Where one fails, the rest isn't run. The caller owns the transaction.

A COPY may travel, too: the server asks for its rows in its turn, one round trip each, and goes on after them.
"""

from collections.abc import Callable, Sequence
from typing import Any, Generic, LiteralString, NamedTuple, TypeVar

import psycopg
from psycopg import generators, sql
from psycopg.abc import PQGen
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import TupleRow

from ledger import failpoints
from ledger.store.connection.copy import Rows
from ledger.store.connection.database import Connection

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
BEGIN = (
    b"BEGIN",
    b"SET LOCAL plan_cache_mode = force_generic_plan",
    b"SET LOCAL enable_seqscan = off",
    b"SET LOCAL enable_bitmapscan = off",
)
"""A plan for these very values would take as long to make as most of these statements to run.

And no statistics make it read a whole table: while a table is small that looks cheap, and the plan stays
when it has grown. Each statement of a batch finds its rows by a key, so an index is there for all of them.
"""


class Statement(NamedTuple, Generic[T]):
    """A statement yet to be executed, and what its rows mean. Who makes one executes nothing.

    What a `tables` function with a name in `_statement` returns: the batch decides which of them travel
    together. Every other function there takes a connection and executes.
    """

    sql: LiteralString
    parameters: tuple[str | int | bytes | None, ...]
    answer: Callable[[list[TupleRow]], T]


class Before(NamedTuple):
    """What travels before a message: rows for tables, none of them empty, then statements."""

    rows: Sequence[Rows] = ()
    statements: Sequence[Statement[Any]] = ()


NOTHING = Before()


def execute(conn: Connection, statement: Statement[T]) -> T:
    """Execute this one alone; returns its answer."""
    return statement.answer(exchange(conn, [statement])[0])


def execute_together(
    conn: Connection, a: Statement[A], b: Statement[B], c: Statement[C], *, begin: bool = False
) -> tuple[A, B, C]:
    """Execute all in this order, with `begin` after the BEGIN of a transaction; returns their answers."""
    rows = exchange(conn, [a, b, c], begin=begin)
    return a.answer(rows[0]), b.answer(rows[1]), c.answer(rows[2])


def exchange(
    conn: Connection, statements: Sequence[Statement[Any]], *, begin: bool = False
) -> list[list[TupleRow]]:
    """The rows of each, by one message and its reply."""
    before = BEGIN if begin else ()
    message = b"; ".join([*before, *(prepared(conn, statement.sql) for statement in statements)])
    values = [value for statement in statements for value in statement.parameters]
    with psycopg.ClientCursor(conn) as cursor:
        cursor.execute(message, values)
        return [cursor.set_result(len(before) + n).fetchall() for n in range(len(statements))]


def finish(conn: Connection, before: Before, message: bytes, values: Sequence[Any]) -> list[PGresult]:
    """Send the message with what comes before it, rows included; the results of the message's statements.

    Raises the driver's error of the first statement that fails; those after it aren't run.
    """
    copies = [rows.statement.encode() for rows in before.rows]
    others = [prepared(conn, statement.sql) for statement in before.statements]
    parameters = [value for statement in before.statements for value in statement.parameters]
    text = b"; ".join([*others, message])
    query = b"; ".join([*copies, psycopg.ClientCursor(conn).mogrify(text, [*parameters, *values]).encode()])
    with conn.lock:
        results = conn.wait(_exchange_rows(conn.pgconn, query, before.rows))
    return results[len(others) :]


def _exchange_rows(pgconn: PGconn, query: bytes, tables: Sequence[Rows]) -> PQGen[list[PGresult]]:
    """Send the query, and the rows of each table when the server asks for them; the results after those."""
    pgconn.send_query(query)
    yield from generators.send(pgconn)
    for number, rows in enumerate(tables):
        _require_success((yield from generators.fetch_many(pgconn)))
        if number == len(tables) - 1:
            failpoints.hit("sending")
        for block in rows.made.blocks():
            yield from generators.copy_to(pgconn, block, flush=False)
        pgconn.put_copy_end()
        yield from generators.send(pgconn)
    results: list[PGresult] = yield from generators.fetch_many(pgconn)
    _require_success(results)
    return results[1:] if tables else results


def _require_success(results: Sequence[PGresult]) -> None:
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise error_from_result(result, "utf-8")


def prepared(conn: Connection, statement: LiteralString) -> bytes:
    """How to execute the statement, which the session prepares at its first use."""
    if statement not in conn.prepared:
        name = sql.Identifier(f"together_{len(conn.prepared)}")
        first, *rest = statement.split("%s")
        numbered = first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))
        conn.execute(sql.SQL("PREPARE {} AS {}").format(name, sql.SQL(numbered)))
        values = sql.SQL("({})").format(sql.SQL(", ").join([sql.SQL("%s")] * len(rest)))
        call = sql.SQL("EXECUTE {}{}").format(name, values if rest else sql.SQL(""))
        conn.prepared[statement] = call.as_bytes(conn)
    return conn.prepared[statement]
