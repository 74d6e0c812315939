"""Ranges of the journal: where the next one ends, which entries it has, and how many events these hold.

Whatever goes through the journal takes it range by range: projections, replays, and `verify`. What is read
here is below the head, so it stays as it is. The caller owns the transaction.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import LiteralString, NamedTuple

from ledger.errors import Contended
from ledger.store.connection.database import Connection, faults

ORDINAL_MAX = 2**31 - 1
ENTRY_MIN, ENTRY_MAX = -(2**63), 2**63 - 1

EVENTS: LiteralString = " ledger.event e JOIN ledger.journal j USING (entry) "
IN_RANGE: LiteralString = """
    e.entry BETWEEN %(first_entry)s AND %(last_entry)s AND j.position BETWEEN %(first)s AND %(last)s
    AND e.ordinal BETWEEN %(first_ordinal)s AND %(last_ordinal)s
"""
"""The events of a range: `FROM` + EVENTS + `WHERE` + IN_RANGE, with `events.parameters(generation)`.

A block range index finds the entries; the position decides, because entries of other positions may lie
between them. The ordinals matter where an entry is read in parts, or a fault is traced to one event.
"""


class Range(NamedTuple):
    """The journal from position `first` to `last`, which holds `events` events, found by their entries.

    A divisible projection writes the rows of the `share`-th of `shares` only, counted from 0.
    """

    first: int
    last: int
    first_entry: int
    last_entry: int
    events: int
    first_ordinal: int = 0
    last_ordinal: int = ORDINAL_MAX
    share: int = 0
    shares: int = 1

    def parameters(self, generation: int) -> dict[str, int]:
        """What `IN_RANGE` needs, the share, and the generation."""
        return {**self._asdict(), "generation": generation}


class EventPlace(NamedTuple):
    """Where an event stands in the journal, and what it is."""

    position: int
    ordinal: int
    stream: str
    type: str


ENTRIES_MAX = 100_000
HEAD = "SELECT coalesce(max(position), 0) FROM ledger.journal_entries"
# Inside: no more than so many entries; then those whose events fit, or the first one alone that has any.
# In a statement of its own: known bounds make the block range index usable.
NEXT_RANGE = """
SELECT min(position), max(position), min(entry), max(entry), coalesce(sum(applied), 0)::bigint
FROM (SELECT position, entry, applied, sum(applied) OVER (ORDER BY position) AS events
      FROM (SELECT position, entry, applied FROM ledger.journal
            WHERE position > %(after)s AND position <= %(upto)s ORDER BY position LIMIT %(entries)s) j) j
WHERE events <= %(events)s OR events = applied
"""
# All of them at once, because some may be chosen of them; counted by deliveries, which have rows without
# being events. An entry itself counts as one, so that a range has an end where there are only gaps.
RANGES = """
SELECT min(position), max(position), min(entry), max(entry), sum(applied)::bigint
FROM (SELECT position, entry, applied,
             div(sum(next_offset - first_offset - skipped + 1) OVER (ORDER BY position), %s) AS part
      FROM ledger.journal WHERE position > %s AND position <= %s) j
GROUP BY part ORDER BY 1
"""
EVENTS_BETWEEN = """
SELECT coalesce(sum(applied), 0)::bigint FROM ledger.journal WHERE position > %s AND position <= %s
"""
PLACES: LiteralString = (
    "SELECT j.position, e.ordinal, e.stream, e.type FROM"
    + EVENTS
    + "WHERE"
    + IN_RANGE
    + "ORDER BY j.position, e.ordinal"
)
# New blocks are unknown to the block range indexes until a vacuum comes by: every range would read them.
# Costs what is new. Indexes that this user may not maintain are left out, and so are all on a standby.
SUMMARIZE = """
SELECT sum(brin_summarize_new_values(c.oid)) FROM pg_class c JOIN pg_am a ON a.oid = c.relam
WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind = 'i' AND a.amname = 'brin'
  AND pg_has_role(c.relowner, 'USAGE') AND NOT pg_is_in_recovery()
"""
SUMMARIZE_EVENTS = "SELECT ledger.summarize_events()"


def head(conn: Connection) -> int:
    """The journal's last position, for whoever may read the views."""
    row = conn.execute(HEAD).fetchone()
    assert row is not None
    return int(row[0])


def next_range(conn: Connection, after: int, upto: int, events: int) -> Range | None:
    """The entries that follow `after`, up to `upto` or so many events; None if there are none.

    An entry is never cut: one that has more events is a range of its own.
    """
    entries = max(1, min(events, ENTRIES_MAX))
    bounds = {"after": after, "upto": upto, "events": events, "entries": entries}
    row = conn.execute(NEXT_RANGE, bounds).fetchone()
    return Range(*row) if row and row[0] is not None else None


def ranges(conn: Connection, first: int, last: int, events: int) -> Iterator[Range]:
    """The positions `first` to `last`, range by range, each of so many events at most."""
    after = first - 1
    while after < last and (found := next_range(conn, after, last, events)):
        yield found
        after = found.last


def ranges_of_deliveries(conn: Connection, since: int, last: int, deliveries: int) -> list[Range]:
    """The journal after the position `since` up to `last`, in ranges of about so many deliveries."""
    return [Range(*row) for row in conn.execute(RANGES, (deliveries, since, last))]


def events_between(conn: Connection, after: int, upto: int) -> int:
    """How many events the journal counts after the position `after`, up to `upto`."""
    row = conn.execute(EVENTS_BETWEEN, (after, upto)).fetchone()
    assert row is not None
    return int(row[0])


def places(conn: Connection, within: Range) -> list[EventPlace]:
    """The events of a (short) range, in order."""
    return [EventPlace(*row) for row in conn.execute(PLACES, within._asdict())]


def summarize(conn: Connection) -> None:
    """Make the newest rows findable by their entry, outside a transaction: by all that this user may."""
    with suppress(Contended), faults():  # a vacuum that is at it does the same
        conn.execute(SUMMARIZE)


def summarize_events(conn: Connection) -> None:
    """The same of the events alone, for whoever may follow them. Waits for nobody."""
    with suppress(Contended), faults():
        conn.execute(SUMMARIZE_EVENTS)
