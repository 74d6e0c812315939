"""Whether a contender's tables hold what the commands come to: a fast wrong answer can't win."""

from collections.abc import Mapping
from typing import LiteralString

import psycopg

COUNTS = """
SELECT coalesce(sum(applied), 0), coalesce(sum(rejected), 0), coalesce(sum(duplicate), 0),
       coalesce(sum(conflict + dead + skipped), 0), count(*)
FROM ledger.journal WHERE topic = %s
"""
REGISTERED = """
SELECT count(*) FROM ledger.processed_message JOIN ledger.journal USING (entry) WHERE topic = %s
"""
EVENTS = """
SELECT count(*), coalesce(-sum(delta), 0)::bigint
FROM ledger.event JOIN ledger.journal USING (entry) WHERE topic = %s
"""
ON_HAND = "SELECT sum(on_hand) FROM ledger.stock"


class WrongResult(Exception):
    """A contender was done and the tables don't hold what the commands come to."""


def ledger(
    conn: psycopg.Connection, topic: str, expected: Mapping[str, int], pieces: int, before: int
) -> int:
    """Outcomes, register, events and stock (`before` all of it) of a ledger that has applied the topic.

    Returns the number of its journal entries. Raises WrongResult.
    """
    *counts, entries = conn.execute(COUNTS, [topic]).fetchone() or ()
    applied, rejected, duplicate = (expected.get(name, 0) for name in ("applied", "rejected", "duplicate"))
    same("outcomes, and others", [applied, rejected, duplicate, 0], counts)
    same("register rows", applied + rejected, number(conn, REGISTERED, topic))
    same("events, pieces sold", (applied, pieces), conn.execute(EVENTS, [topic]).fetchone())
    same("stock", before - pieces, number(conn, ON_HAND))
    return int(entries)


def same(what: str, wanted: object, found: object) -> None:
    """Raises WrongResult unless both are equal."""
    if wanted != found:
        raise WrongResult(f"{what}: {found}, not {wanted}")


def number(conn: psycopg.Connection, statement: LiteralString, *facts: object) -> int:
    """The one number that the statement gives."""
    row = conn.execute(statement, facts).fetchone()
    return int(row[0]) if row else 0
