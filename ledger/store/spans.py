"""Ranges of the journal: where the next one ends, which entries it has, and how many events they hold.

What is read here is below the head, so it stays as it is. The caller owns the transaction.
"""

from contextlib import suppress
from typing import NamedTuple

from ledger.errors import Contended
from ledger.store.database import Connection, faults


class Span(NamedTuple):
    """A range of positions, of the entries that they have, and how many events these hold."""

    first: int
    last: int
    first_entry: int
    last_entry: int
    events: int


class Broken(NamedTuple):
    """Where an event stands, and what it is."""

    position: int
    ordinal: int
    stream: str
    type: str


ENTRIES_MAX = 100_000
HEAD = "SELECT coalesce(max(position), 0) FROM ledger.journal_entries"
# In a statement of its own: known bounds make the block range index usable.
SPAN = """
SELECT min(position), max(position), min(entry), max(entry), coalesce(sum(applied), 0)::bigint
FROM (SELECT position, entry, applied, sum(applied) OVER (ORDER BY position) - applied AS before
      FROM (SELECT position, entry, applied FROM ledger.journal
            WHERE position > %(after)s AND position <= %(upto)s ORDER BY position LIMIT %(entries)s) j) j
WHERE before < %(events)s
"""
EVENTS_BETWEEN = """
SELECT coalesce(sum(applied), 0)::bigint FROM ledger.journal WHERE position > %s AND position <= %s
"""
PLACES = """
SELECT j.position, e.ordinal, e.stream, e.type
FROM ledger.event e JOIN ledger.journal j USING (entry)
WHERE e.entry BETWEEN %(first_entry)s AND %(last_entry)s AND j.position BETWEEN %(first)s AND %(last)s
  AND e.ordinal BETWEEN %(first_ordinal)s AND %(last_ordinal)s
ORDER BY j.position, e.ordinal
"""
# New blocks are unknown to the block range index until a vacuum comes by: every range would read them.
SUMMARIZE = "SELECT brin_summarize_new_values('ledger.event_entry')"


def head(conn: Connection) -> int:
    """The journal's last position, for whoever may read the views."""
    row = conn.execute(HEAD).fetchone()
    assert row is not None
    return int(row[0])


def span(conn: Connection, after: int, upto: int, events: int) -> Span | None:
    """The entries that follow `after`, up to `upto` or about so many events; None if there are none."""
    entries = max(1, min(events, ENTRIES_MAX))
    row = conn.execute(SPAN, {"after": after, "upto": upto, "events": events, "entries": entries}).fetchone()
    return Span(*row) if row and row[0] is not None else None


def events_between(conn: Connection, after: int, upto: int) -> int:
    """How many events the journal counts behind `after`, up to `upto`."""
    row = conn.execute(EVENTS_BETWEEN, (after, upto)).fetchone()
    assert row is not None
    return int(row[0])


def places(conn: Connection, parameters: dict[str, int]) -> list[Broken]:
    """The events of a (short) range, in order."""
    return [Broken(*row) for row in conn.execute(PLACES, parameters)]


def summarize(conn: Connection) -> None:
    """Make the newest events findable by their entry, outside a transaction. Needs the database's owner."""
    with suppress(Contended), faults():  # a vacuum that is at it does the same
        conn.execute(SUMMARIZE)
