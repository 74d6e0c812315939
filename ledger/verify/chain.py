"""The chain: an entry's stored rows give the digest that was sealed, and the digests give the head's hash.

A range begins with the stored hash of the entry before it; the first one, with the hash before all entries.
So ranges prove the whole chain in any order, side by side, and a part of it where only a part is looked at.
"""

from collections.abc import Callable, Mapping
from typing import Any, LiteralString

from ledger.store.connection.copy import receive
from ledger.store.connection.database import Connection
from ledger.store.reads.ranges import Range
from ledger.store.rules.audit import CheckFinding
from ledger.store.tables import cancellation, conflict, dead_letter, event, gap, journal, processed_message

Entries = Callable[[Connection, int, int], set[int]]
# The tables that a digest covers, in its order; of those with whole records, which entries have any.
LINES: tuple[tuple[LiteralString, Entries | None], ...] = (
    (processed_message.LINES, None),
    (event.LINES, None),
    (cancellation.LINES, None),
    (dead_letter.LINES, dead_letter.entries),
    (conflict.LINES, conflict.entries),
    (gap.LINES, None),
)


def stored_hash(conn: Connection, position: int) -> bytes | None:
    """The hash that the journal has at the position; None if it has no such entry."""
    if position == 0:
        return journal.GENESIS
    rows = journal.rows(conn, position, position)
    return rows[0].hash if rows else None


def check_range(conn: Connection, within: Range) -> CheckFinding:
    """Recompute the range's digests from what is stored, and continue the chain with them."""
    seen, previous = 0, stored_hash(conn, within.first - 1)
    tables = [_lines(conn, within, lines, entries) for lines, entries in LINES]
    for row in journal.rows(conn, within.first, within.last):
        rows = [table(row.entry) for table in tables]
        seen += sum(map(len, rows))
        if (digest := journal.stored_digest(row, rows)) != row.digest:
            words = f"position {row.position}: its rows are not those that were sealed"
            return CheckFinding(seen, words, *_pair(row.position, "digest", row.digest, digest))
        continued = journal.chain(previous or b"", row)
        if previous is None or continued != row.hash:
            words = f"position {row.position}: its hash does not continue the chain"
            return CheckFinding(seen, words, *_pair(row.position, "hash", row.hash, previous and continued))
        previous = row.hash
    return CheckFinding(seen)


def _lines(
    conn: Connection, within: Range, lines: LiteralString, entries: Entries | None
) -> Callable[[int], list[bytes]]:
    """The range's lines of a table, by entry; where they may be large, each entry's when it is asked for."""
    if entries is None:
        found = receive(conn, lines, within.first_entry, within.last_entry)
        return lambda entry: found.get(entry, [])
    there = entries(conn, within.first_entry, within.last_entry)
    return lambda entry: receive(conn, lines, entry, entry)[entry] if entry in there else []


def check_head(conn: Connection, tip: journal.Tip) -> CheckFinding:
    """The head as it was at the start has the hash that the chain has there."""
    stored = stored_hash(conn, tip.position)
    if stored == tip.hash:
        return CheckFinding(0)
    words = "the head's hash is not the last one of the chain"
    return CheckFinding(0, words, *_pair(tip.position, "hash", tip.hash, stored))


def _pair(
    position: int, name: str, stored: bytes, expected: bytes | None
) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    right = None if expected is None else {"position": position, name: expected.hex()}
    return {"position": position, name: stored.hex()}, right
