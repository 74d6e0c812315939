"""What each user bought of each item. A cancelled purchase stays counted, and counts as cancelled, too."""

from typing import LiteralString

from ledger.projections.projection import Projection
from ledger.store.connection.database import Connection
from ledger.store.reads.ranges import EVENTS, IN_RANGE, Range
from ledger.store.tables.event import GOODS_ID, TYPES

# UPDATE, then INSERT of the rest, not ON CONFLICT: most rows of a large range are new, and a speculative
# insert costs three times a plain one. (MERGE can't stand in a WITH before PostgreSQL 17.)
# Sorted by key, for the key's index. What isn't of the share is one group, counted and not written.
# A quantity fits an integer, whose sum is a bigint; that of bigints is a numeric, which takes 10 % longer.
APPLY: LiteralString = (
    """
WITH fold AS MATERIALIZED (
    SELECT CASE WHEN mine THEN e.user_id END AS user_id, CASE WHEN mine THEN e.stream END AS stream,
           count(*) FILTER (WHERE e.type = 'GoodsPurchased') AS purchases,
           coalesce(-sum(e.delta::integer) FILTER (WHERE e.type = 'GoodsPurchased'), 0) AS quantity,
           count(*) FILTER (WHERE e.type = 'PurchaseCancelled') AS cancelled,
           coalesce(sum(e.delta::integer) FILTER (WHERE e.type = 'PurchaseCancelled'), 0)
               AS cancelled_quantity,
           count(*) FILTER (WHERE e.type IN ("""
    + TYPES
    + """)) AS understood
    FROM """
    + EVENTS
    + """
    CROSS JOIN LATERAL (
        SELECT mod(hashtext(e.user_id) & 2147483647, %(shares)s) = %(share)s AS mine
    ) share
    WHERE"""
    + IN_RANGE
    + """
    GROUP BY 1, 2
), bought AS MATERIALIZED (
    SELECT user_id, """
    + GOODS_ID
    + """ AS goods_id, purchases, quantity, cancelled, cancelled_quantity
    FROM fold WHERE user_id IS NOT NULL AND purchases + cancelled > 0 ORDER BY user_id, stream
), updated AS (
    UPDATE ledger.purchases_by_user_rows p SET
        purchases = p.purchases + b.purchases, quantity = p.quantity + b.quantity,
        cancelled = p.cancelled + b.cancelled,
        cancelled_quantity = p.cancelled_quantity + b.cancelled_quantity
    FROM bought b
    WHERE p.generation = %(generation)s AND p.user_id = b.user_id AND p.goods_id = b.goods_id
    RETURNING p.user_id, p.goods_id
), inserted AS (
    INSERT INTO ledger.purchases_by_user_rows
        (generation, user_id, goods_id, purchases, quantity, cancelled, cancelled_quantity)
    SELECT %(generation)s, user_id, goods_id, purchases, quantity, cancelled, cancelled_quantity FROM bought b
    WHERE NOT EXISTS (SELECT FROM updated u WHERE (u.user_id, u.goods_id) = (b.user_id, b.goods_id))
)
SELECT coalesce(sum(understood), 0)::bigint FROM fold
"""
)
KEYS: LiteralString = (
    "SELECT DISTINCT e.user_id, "
    + GOODS_ID
    + " AS goods_id FROM"
    + EVENTS
    + "WHERE"
    + IN_RANGE
    + "AND e.type IN ('GoodsPurchased', 'PurchaseCancelled')"
)


class PurchasesByUser(Projection):
    """Per user and goods: purchases and pieces, and how many of them were cancelled.

    Divisible by user, not additive: ranges share most of their rows, so jobs would wait for each other.
    """

    name = "purchases_by_user"
    table = "purchases_by_user_rows"
    key = ("user_id", "goods_id")
    ddl = ""
    keys = KEYS
    divisible = True

    def apply(self, conn: Connection, generation: int, events: Range) -> int:
        """Add the range's purchases and cancellations by the users of its share."""
        row = conn.execute(APPLY, events.parameters(generation), prepare=False).fetchone()
        assert row is not None
        return int(row[0])
