"""What must be true of the tables: one statement a rule, which finds the first row that breaks it.

A batch's rows, its journal row and the head become visible together, so a statement, which has one
snapshot, sees all of a batch or nothing: each rule holds at any moment, while workers run. Rules over rows
that carry their entry are checked page by page of the journal, so that no snapshot is held for long and
memory stays flat; folds over all streams are one statement each. No row is written or locked.

Every statement returns how much it looked at, a sentence about the first difference, and, where a stored row
says something else than others do, that row and the one that they make expect (else null).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, LiteralString, NamedTuple

from ledger.store import check_journal, check_messages, check_streams
from ledger.store.database import Connection

PAGE_ROWS = 10_000
"""About how many deliveries a page of the journal covers; a larger batch is a page of its own."""
ENTRY_MIN, ENTRY_MAX = -(2**63), 2**63 - 1


class Page(NamedTuple):
    """A range of positions, and the range of entry numbers that it has (others may lie within it, too)."""

    first: int
    last: int
    first_entry: int
    last_entry: int


class Finding(NamedTuple):
    """How much was looked at, the first difference, and if it is one of rows, both rows by column."""

    seen: int
    difference: str | None = None
    stored: Mapping[str, Any] | None = None
    expected: Mapping[str, Any] | None = None


class Rule(NamedTuple):
    """A statement, what it counts, and what it runs over.

    `journal`: once, over the entries behind `since`; `pages`: once a page; `entries`: once over all entry
    numbers, or once a page; `streams`: once over all, or over some of them at a time; `everything`: once, and
    only where everything is looked at.
    """

    name: str
    sees: str
    statement: LiteralString
    over: Literal["journal", "pages", "entries", "streams", "everything"]


PAGES = """
SELECT min(position), max(position), min(entry), max(entry)
FROM (SELECT position, entry,
             div(sum(next_offset - first_offset - skipped + 1) OVER (ORDER BY position), %s) AS page
      FROM ledger.journal WHERE position > %s AND position <= %s) j
GROUP BY page ORDER BY 1
"""
FIRST_ENTRY = """
SELECT coalesce(min(entry) FILTER (WHERE position > %s), max(entry) + 1)
FROM ledger.journal WHERE position >= %s
"""
STREAMS = """
SELECT DISTINCT stream FROM ledger.event WHERE entry BETWEEN %(first_entry)s AND %(last_entry)s
"""

# A page's rows are found by block range indexes, which know nothing of the newest blocks until a vacuum
# comes by: each page would read all of those. It skips the tables that this user may not maintain.
SETTLE = """
VACUUM (ANALYZE, SKIP_LOCKED, TRUNCATE false)
    ledger.event, ledger.processed_message, ledger.cancellation,
    ledger.dead_letter, ledger.conflict, ledger.gap
"""
MAY_SETTLE = "SELECT NOT pg_is_in_recovery()"
# The same for those indexes alone, which costs what is new.
SUMMARIZE = """
SELECT sum(brin_summarize_new_values(c.oid)) FROM pg_class c JOIN pg_am a ON a.oid = c.relam
WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind = 'i' AND a.amname = 'brin'
  AND pg_has_role(c.relowner, 'USAGE') AND NOT pg_is_in_recovery()
"""

RULES = (
    Rule("journal", "positions", check_journal.JOURNAL, "journal"),
    Rule("lanes", "entries", check_journal.LANES, "journal"),
    Rule("entries", "entries", check_journal.ENTRIES, "pages"),
    Rule("offsets", "rows", check_journal.OFFSETS, "pages"),
    Rule("orphans", "rows", check_journal.ORPHANS, "entries"),
    Rule("once", "messages", check_messages.ONCE, "pages"),
    Rule("outcomes", "messages", check_messages.OUTCOMES, "pages"),
    Rule("events", "events", check_messages.EVENTS, "pages"),
    Rule("buyers", "purchases", check_messages.BUYERS, "pages"),
    Rule("versions", "streams", check_streams.VERSIONS, "streams"),
    Rule("bounds", "goods", check_streams.BOUNDS, "streams"),
    Rule("stock", "goods", check_streams.STOCK, "streams"),
    Rule("accounts", "users", check_streams.ACCOUNTS, "streams"),
    Rule("cancellations", "purchases", check_messages.CANCELLATIONS, "pages"),
    Rule("conflicts", "conflicts", check_messages.CONFLICTS, "pages"),
    Rule("projections", "projections", check_streams.PROJECTIONS, "everything"),
    Rule("purchases", "rows", check_streams.PURCHASES, "everything"),
    Rule("sales", "days", check_streams.SALES, "everything"),
)
"""All of them, but for the chain, whose digests are computed outside the database."""


def settle(conn: Connection, *, everything: bool = True) -> None:
    """Index what was just written, so that a page finds its rows. Outside a transaction; no row changes."""
    if not everything:
        conn.execute(SUMMARIZE)
    elif conn.execute(MAY_SETTLE).fetchone() == (True,):
        conn.execute(SETTLE)


def pages(conn: Connection, since: int, last: int) -> list[Page]:
    """The journal behind the position `since` up to `last`, in pages of about `PAGE_ROWS` deliveries."""
    return [Page(*row) for row in conn.execute(PAGES, (PAGE_ROWS, since, last))]


def first_entry(conn: Connection, since: int) -> int:
    """The lowest number of the entries behind the position `since`, or the next one if there are none yet."""
    row = conn.execute(FIRST_ENTRY, (since, since)).fetchone()
    return ENTRY_MIN if row is None or row[0] is None else int(row[0])


def streams(conn: Connection, looked_at: Sequence[Page]) -> list[str]:
    """The streams that have events in these pages, in order. Memory grows with their number."""
    found: set[str] = set()
    for page in looked_at:
        found.update(stream for (stream,) in conn.execute(STREAMS, page._asdict()))
    return sorted(found)


def run(conn: Connection, statement: LiteralString, parameters: Mapping[str, Any]) -> Finding:
    """Check a rule, over a part of what it runs over, in one snapshot."""
    # not prepared: a plan for any parameters would read whole tables where few rows are wanted
    row = conn.execute(statement, parameters, prepare=False).fetchone()
    assert row is not None
    return Finding(int(row[0]), *row[1:])
