"""The chain: an entry's stored rows give the digest that was sealed, and the digests give the head's hash.

A page begins with the stored hash of the entry before it, and the first one with the hash before all entries.
So pages prove the whole chain in any order, side by side, and a part of it where only a part is looked at.
"""

from collections.abc import Mapping
from typing import Any

from ledger.store import cancellation, conflict, dead_letter, event, gap, journal, processed_message
from ledger.store.check import Finding, Page
from ledger.store.copy import receive
from ledger.store.database import Connection

# The tables that a digest covers, in its order.
LINES = (
    processed_message.LINES,
    event.LINES,
    cancellation.LINES,
    dead_letter.LINES,
    conflict.LINES,
    gap.LINES,
)


def stored_hash(conn: Connection, position: int) -> bytes | None:
    """The hash that the journal has at the position; None if it has no such entry."""
    if position == 0:
        return journal.GENESIS
    rows = journal.rows(conn, position, position)
    return rows[0].hash if rows else None


def check_page(conn: Connection, page: Page) -> Finding:
    """Recompute the page's digests from what is stored, and continue the chain with them."""
    seen, previous = 0, stored_hash(conn, page.first - 1)
    tables = [receive(conn, lines, page.first_entry, page.last_entry) for lines in LINES]
    for row in journal.rows(conn, page.first, page.last):
        rows = [table.get(row.entry, []) for table in tables]
        seen += sum(map(len, rows))
        if (digest := journal.stored_digest(row, rows)) != row.digest:
            words = f"position {row.position}: its rows are not those that were sealed"
            return Finding(seen, words, *_pair(row.position, "digest", row.digest, digest))
        continued = journal.chain(previous or b"", row.digest)
        if previous is None or continued != row.hash:
            words = f"position {row.position}: its hash does not continue the chain"
            return Finding(seen, words, *_pair(row.position, "hash", row.hash, previous and continued))
        previous = row.hash
    return Finding(seen)


def check_head(conn: Connection, tip: journal.Tip) -> Finding:
    """The head as it was at the start has the hash that the chain has there."""
    stored = stored_hash(conn, tip.position)
    if stored == tip.hash:
        return Finding(0)
    words = "the head's hash is not the last one of the chain"
    return Finding(0, words, *_pair(tip.position, "hash", tip.hash, stored))


def _pair(
    position: int, name: str, stored: bytes, expected: bytes | None
) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    right = None if expected is None else {"position": position, name: expected.hex()}
    return {"position": position, name: stored.hex()}, right
