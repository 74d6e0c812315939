"""The stock as a projection: what the batches write themselves, folded from the events instead.

The live generation is written by the batches, in their own transactions; this fold builds the next one and
keeps the old one current after a swap.
"""

from typing import LiteralString

from ledger.projections.projection import EVENTS, IN_RANGE, Projection, Range
from ledger.store.database import Connection

# MERGE, not ON CONFLICT: the row to insert is checked against `stock_bounds` before a conflict is noticed,
# and a range's sum alone may well be negative.
APPLY: LiteralString = (
    """
WITH fold AS MATERIALIZED (
    SELECT e.stream, sum(e.delta)::bigint AS delta, max(e.version) AS version,
           count(*) FILTER (WHERE e.type IN (
               'GoodsPurchased', 'PurchaseCancelled', 'StockReceived', 'StockAdjusted', 'GoodsListed',
               'UserRegistered', 'UserClosed')) AS understood
    FROM """
    + EVENTS
    + "WHERE"
    + IN_RANGE
    + """
    GROUP BY e.stream
), merged AS (
    MERGE INTO ledger.stock s
    USING (SELECT substr(stream, 7) AS goods_id, delta, version
           FROM fold WHERE starts_with(stream, 'goods-')) f
    ON s.generation = %(generation)s AND s.goods_id = f.goods_id
    WHEN MATCHED THEN UPDATE SET on_hand = s.on_hand + f.delta, version = f.version
    WHEN NOT MATCHED THEN INSERT (generation, goods_id, on_hand, version)
        VALUES (%(generation)s, f.goods_id, f.delta, f.version)
)
SELECT coalesce(sum(understood), 0)::bigint FROM fold
"""
)
KEYS: LiteralString = (
    "SELECT DISTINCT substr(e.stream, 7) AS goods_id FROM"
    + EVENTS
    + "WHERE"
    + IN_RANGE
    + "AND starts_with(e.stream, 'goods-')"
)


class Stock(Projection):
    """Pieces on hand and stream version per goods.

    Not additive although it is a sum: applied in order, every state between is one that once was, within
    `stock_bounds`; the sum of a later range alone may be negative.
    """

    name = "stock"
    table = "stock"
    key = ("goods_id",)
    ddl = ""
    keys = KEYS
    inline = True

    def apply(self, conn: Connection, generation: int, events: Range) -> int:
        """Add the range's changes of stock."""
        row = conn.execute(APPLY, events.parameters(generation), prepare=False).fetchone()
        assert row is not None
        return int(row[0])
