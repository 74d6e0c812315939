"""What each journal entry made of the stock, as caches follow it: derived from the events, kept for a while.

A checkpoint is a position whose hash the reader knows. One statement says whether it is still one of this
history, and what came after it: a pooler may give the next statement another server.
"""

from datetime import timedelta
from typing import NamedTuple

from ledger.store.connection.database import Connection
from ledger.store.tables.journal import Tip
from ledger.store.tables.stock import StockLevel

POLL = "SELECT * FROM ledger.stock_changes(%s, %s)"
PAGE = """
SELECT h.position, h.hash, p.goods, p.versions, p.on_hands
FROM ledger.head h CROSS JOIN LATERAL (
    SELECT string_agg(s.goods_id, E'\\n') AS goods, string_agg(s.version::text, E'\\n') AS versions,
           string_agg(s.on_hand::text, E'\\n') AS on_hands
    FROM (SELECT goods_id, version, on_hand FROM ledger.stock
          WHERE generation = h.stock_generation AND goods_id > %s ORDER BY goods_id LIMIT %s) s
) p
"""
KEEP = timedelta(hours=1)
"""How long a cache may be cut off without loading the stock anew, unless somebody prunes more."""
PRUNE = "SELECT ledger.prune_stock_deltas(%s)"


class StockChanges(NamedTuple):
    """A journal entry after the checkpoint, and the stock that it left of the goods that it changed."""

    position: int
    hash: bytes
    levels: list[StockLevel]


class Poll(NamedTuple):
    """What follows a checkpoint, as of one snapshot.

    `proof` is the journal's hash at the checkpoint, None if it has no such position (any more). Of entries up
    to `horizon` nothing is known. `standby`: the server may be some entries short of its primary.
    """

    tip: Tip
    proof: bytes | None
    horizon: int
    standby: bool
    entries: list[StockChanges]


class Page(NamedTuple):
    """Some of the live stock by goods id, and the head as it was then; empty after the last one."""

    tip: Tip
    levels: list[StockLevel]


def poll(conn: Connection, checkpoint: int, most: int) -> Poll:
    """What follows the checkpoint: up to `most` entries, in order."""
    rows = conn.execute(POLL, (checkpoint, most)).fetchall()
    position, hash, proof, horizon, standby = rows[0][:5]
    entries = [StockChanges(row[5], row[6], _levels(*row[7:])) for row in rows if row[5] is not None]
    return Poll(Tip(position, hash), proof, horizon, standby, entries)


def page(conn: Connection, after: str, rows: int) -> Page:
    """The live stock of up to `rows` goods whose ids come after `after`, in order."""
    found = conn.execute(PAGE, (after, rows)).fetchone()
    assert found is not None
    return Page(Tip(*found[:2]), _levels(*found[2:]))


def prune(conn: Connection, keep: timedelta) -> int:
    """Forget what is older than `keep`, some at a time; returns of how many entries (0: there is no more).

    Also 0 while somebody else does it. Whoever follows from before the horizon loads the stock anew.
    """
    row = conn.execute(PRUNE, (keep,)).fetchone()
    assert row is not None
    return int(row[0])


def _levels(goods: str | None, versions: str, on_hands: str) -> list[StockLevel]:
    if not goods:
        return []
    columns = goods.split("\n"), map(int, on_hands.split("\n")), map(int, versions.split("\n"))
    return list(map(StockLevel, *columns))
