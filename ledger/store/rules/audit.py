"""What must be true of the tables: one statement a rule, which finds the first row that breaks it.

A batch's rows, its journal row and the head become visible together, so a statement, which has one
snapshot, sees all of a batch or nothing: each rule holds at any moment, while workers run. Rules over rows
that carry their entry are checked range by range of the journal, so that no snapshot is held for long and
memory stays flat; folds over all streams are one statement each. No row is written or locked.

Every statement returns how much it looked at, a sentence about the first difference, and, where a stored row
says something else than others do, that row and the one that they make expect (else null).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, LiteralString, NamedTuple

from ledger.store.connection.database import Connection
from ledger.store.reads import ranges
from ledger.store.reads.ranges import ENTRY_MIN, Range
from ledger.store.rules import journal_rules, message_rules, projection_rules, stream_rules

RANGE_DELIVERIES = 10_000
"""About how many deliveries a range of the journal covers; a larger batch is a range of its own."""


class CheckFinding(NamedTuple):
    """How much was looked at, the first difference, and if it is one of rows, both rows by column."""

    seen: int
    difference: str | None = None
    stored: Mapping[str, Any] | None = None
    expected: Mapping[str, Any] | None = None


class Rule(NamedTuple):
    """A statement, what it counts, and what it runs over.

    `journal`: once, over the entries after `since`; `ranges`: once a range of it; `entries`: once over all
    entry numbers, or once a range; `streams`: once over all, or over some of them at a time;
    `everything`: once, and only where everything is looked at.
    """

    name: str
    sees: str
    statement: LiteralString
    over: Literal["journal", "ranges", "entries", "streams", "everything"]


FIRST_ENTRY = """
SELECT coalesce(min(entry) FILTER (WHERE position > %s), max(entry) + 1)
FROM ledger.journal WHERE position >= %s
"""
STREAMS = """
SELECT DISTINCT stream FROM ledger.event WHERE entry BETWEEN %(first_entry)s AND %(last_entry)s
"""

# The rows of a range are found by block range indexes, which know nothing of the newest blocks until a vacuum
# comes by: each range would read all of those. It skips the tables that this user may not maintain.
SETTLE = """
VACUUM (ANALYZE, SKIP_LOCKED, TRUNCATE false)
    ledger.event, ledger.processed_message, ledger.cancellation,
    ledger.dead_letter, ledger.conflict, ledger.gap
"""
# It may be lost in a crash, so no standby needs to confirm it: who reads waits for none.
HERE_ONLY = "SET synchronous_commit = local"
AS_BEFORE = "RESET synchronous_commit"
MAY_SETTLE = "SELECT NOT pg_is_in_recovery()"

FOLLOWED = "followed"
"""The rule that a program breaks which was never started: no row was changed by anybody."""

RULES = (
    Rule("journal", "positions", journal_rules.JOURNAL, "journal"),
    Rule("lanes", "entries", journal_rules.LANES, "journal"),
    Rule("entries", "entries", journal_rules.ENTRIES, "ranges"),
    Rule("offsets", "rows", journal_rules.OFFSETS, "ranges"),
    Rule("orphans", "rows", journal_rules.ORPHANS, "entries"),
    Rule("once", "messages", message_rules.ONCE, "ranges"),
    Rule("outcomes", "messages", message_rules.OUTCOMES, "ranges"),
    Rule("events", "events", message_rules.EVENTS, "ranges"),
    Rule("buyers", "purchases", message_rules.BUYERS, "ranges"),
    Rule("versions", "streams", stream_rules.VERSIONS, "streams"),
    Rule("bounds", "goods", stream_rules.BOUNDS, "streams"),
    Rule("stock", "goods", stream_rules.STOCK, "streams"),
    Rule("deltas", "changes", stream_rules.DELTAS, "streams"),
    Rule("accounts", "users", stream_rules.ACCOUNTS, "streams"),
    Rule("cancellations", "purchases", message_rules.CANCELLATIONS, "ranges"),
    Rule("conflicts", "conflicts", message_rules.CONFLICTS, "ranges"),
    Rule("projections", "projections", projection_rules.PROJECTIONS, "everything"),
    Rule(FOLLOWED, "followers", projection_rules.FOLLOWED, "everything"),
    Rule("purchases", "rows", projection_rules.PURCHASES, "everything"),
    Rule("sales", "days", projection_rules.SALES, "everything"),
    Rule("users", "rows", projection_rules.USERS, "everything"),
)
"""All rules but for the chain, whose digests are computed outside the database."""


def settle(conn: Connection, *, everything: bool = True) -> None:
    """Index what was just written, so that a range finds its rows. Outside a transaction; no row changes."""
    conn.execute(HERE_ONLY)
    try:
        if not everything:
            ranges.summarize(conn)
        elif conn.execute(MAY_SETTLE).fetchone() == (True,):
            conn.execute(SETTLE)
    finally:
        conn.execute(AS_BEFORE)


def parts(conn: Connection, since: int, last: int) -> list[Range]:
    """The journal after the position `since` up to `last`, in ranges of about `RANGE_DELIVERIES`."""
    return ranges.ranges_of_deliveries(conn, since, last, RANGE_DELIVERIES)


def first_entry(conn: Connection, since: int) -> int:
    """The lowest number of the entries after the position `since`, or the next one if there are none yet."""
    row = conn.execute(FIRST_ENTRY, (since, since)).fetchone()
    return ENTRY_MIN if row is None or row[0] is None else int(row[0])


def streams(conn: Connection, looked_at: Sequence[Range]) -> list[str]:
    """The streams that have events in these ranges, in order. Memory grows with their number."""
    found: set[str] = set()
    for part in looked_at:
        found.update(stream for (stream,) in conn.execute(STREAMS, part._asdict()))
    return sorted(found)


def run(conn: Connection, statement: LiteralString, parameters: Mapping[str, Any]) -> CheckFinding:
    """Check a rule, over a part of what it runs over, in one snapshot."""
    # not prepared: a plan for any parameters would read whole tables where few rows are wanted
    row = conn.execute(statement, parameters, prepare=False).fetchone()
    assert row is not None
    return CheckFinding(int(row[0]), *row[1:])
