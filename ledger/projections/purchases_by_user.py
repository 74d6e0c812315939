"""What each user bought of each goods. A cancelled purchase stays counted, and counts as cancelled, too."""

from typing import LiteralString

from ledger.projections.projection import EVENTS, IN_RANGE, Projection, Range
from ledger.store.database import Connection

# MERGE, not ON CONFLICT: most rows of a large range are new, and a speculative insert costs three times a
# plain one. Sorted by key, for the primary key's index.
APPLY: LiteralString = (
    """
WITH fold AS MATERIALIZED (
    SELECT e.user_id, e.stream,
           count(*) FILTER (WHERE e.type = 'GoodsPurchased') AS purchases,
           coalesce(-sum(e.delta) FILTER (WHERE e.type = 'GoodsPurchased'), 0)::bigint AS quantity,
           count(*) FILTER (WHERE e.type = 'PurchaseCancelled') AS cancelled,
           coalesce(sum(e.delta) FILTER (WHERE e.type = 'PurchaseCancelled'), 0)::bigint
               AS cancelled_quantity,
           count(*) FILTER (WHERE e.type IN ('GoodsListed', 'StockReceived', 'StockAdjusted',
                                             'UserRegistered', 'UserClosed')) AS others
    FROM """
    + EVENTS
    + "WHERE"
    + IN_RANGE
    + """
    GROUP BY e.user_id, e.stream
), merged AS (
    MERGE INTO ledger.purchases_by_user_rows p
    USING (SELECT user_id, substr(stream, 7) AS goods_id, purchases, quantity, cancelled, cancelled_quantity
           FROM fold WHERE purchases + cancelled > 0 ORDER BY user_id, stream) f
    ON p.generation = %(generation)s AND p.user_id = f.user_id AND p.goods_id = f.goods_id
    WHEN MATCHED THEN UPDATE SET
        purchases = p.purchases + f.purchases, quantity = p.quantity + f.quantity,
        cancelled = p.cancelled + f.cancelled,
        cancelled_quantity = p.cancelled_quantity + f.cancelled_quantity
    WHEN NOT MATCHED THEN INSERT
        (generation, user_id, goods_id, purchases, quantity, cancelled, cancelled_quantity)
        VALUES (%(generation)s, f.user_id, f.goods_id, f.purchases, f.quantity, f.cancelled,
                f.cancelled_quantity)
)
SELECT coalesce(sum(purchases + cancelled + others), 0)::bigint FROM fold
"""
)
KEYS: LiteralString = (
    "SELECT DISTINCT e.user_id, substr(e.stream, 7) AS goods_id FROM"
    + EVENTS
    + "WHERE"
    + IN_RANGE
    + "AND e.type IN ('GoodsPurchased', 'PurchaseCancelled')"
)


class PurchasesByUser(Projection):
    """Per user and goods: purchases and pieces, and how many of them were cancelled.

    A sum, but not additive: ranges share most of their rows, so jobs would only wait for each other.
    """

    name = "purchases_by_user"
    table = "purchases_by_user_rows"
    key = ("user_id", "goods_id")
    ddl = ""
    keys = KEYS

    def apply(self, conn: Connection, generation: int, events: Range) -> int:
        """Add the range's purchases and cancellations."""
        row = conn.execute(APPLY, events.parameters(generation), prepare=False).fetchone()
        assert row is not None
        return int(row[0])
