"""Questions that travel together: several statements in one round trip, each with a snapshot of its own.

A small batch's time is its round trips, and most of each is the driver's. A simple query may hold several
statements; they are prepared once a session, so that Postgres needn't plan them anew. They mean what they
mean one by one: in READ COMMITTED a statement takes its snapshot after the one before it has ended, so what a
lock guards may be read by the next. Where one fails, the rest isn't run. The caller owns the transaction.
"""

from collections.abc import Callable, Sequence
from typing import Any, Generic, LiteralString, NamedTuple, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from ledger.store.database import Connection

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
BEGIN = b"BEGIN", b"SET LOCAL plan_cache_mode = force_generic_plan"
"""A plan for these very values would take as long to make as most of these statements to run."""


class Question(NamedTuple, Generic[T]):
    """A statement, and what its rows mean."""

    statement: LiteralString
    parameters: tuple[str | int, ...]
    answer: Callable[[list[TupleRow]], T]


def ask(conn: Connection, question: Question[T]) -> T:
    """The answer to this one alone."""
    return question.answer(exchange(conn, [question])[0])


def ask_together(
    conn: Connection, a: Question[A], b: Question[B], c: Question[C], *, begin: bool = False
) -> tuple[A, B, C]:
    """The answers to all, asked in this order; with `begin` behind the BEGIN of a transaction."""
    rows = exchange(conn, [a, b, c], begin=begin)
    return a.answer(rows[0]), b.answer(rows[1]), c.answer(rows[2])


def exchange(
    conn: Connection, questions: Sequence[Question[Any]], *, begin: bool = False
) -> list[list[TupleRow]]:
    """The rows of each, by one message and its reply."""
    parts = [*BEGIN] * begin + [prepared(conn, question.statement) for question in questions]
    values = [value for question in questions for value in question.parameters]
    with psycopg.ClientCursor(conn) as cursor:
        cursor.execute(b"; ".join(parts), values)
        return [cursor.set_result(n).fetchall() for n in range(len(parts) - len(questions), len(parts))]


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
