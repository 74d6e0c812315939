"""The stock as a projection: what the batches write themselves, folded from the events instead.

The live generation is written by the batches, in their own transactions; this fold builds the next one and
keeps the old one current after a swap.
"""

from typing import LiteralString

from ledger.projections.projection import Projection
from ledger.store.connection.database import Connection
from ledger.store.reads.ranges import EVENTS, IN_RANGE, Range
from ledger.store.tables.event import GOODS_ID, TYPES

# UPDATE, then INSERT of the rest, not ON CONFLICT: the row to insert is checked against `stock_bounds` before
# a conflict is noticed, and a range's sum alone may well be negative. Not MERGE: it can't stand in a WITH
# before PostgreSQL 17.
APPLY: LiteralString = (
    """
WITH fold AS MATERIALIZED (
    SELECT e.stream, sum(e.delta)::bigint AS delta, max(e.version) AS version,
           count(*) FILTER (WHERE e.type IN ("""
    + TYPES
    + """)) AS understood
    FROM """
    + EVENTS
    + "WHERE"
    + IN_RANGE
    + """
    GROUP BY e.stream
), goods AS MATERIALIZED (
    SELECT """
    + GOODS_ID
    + """ AS goods_id, delta, version FROM fold WHERE starts_with(stream, 'goods-')
), updated AS (
    UPDATE ledger.stock s SET on_hand = s.on_hand + g.delta, version = g.version
    FROM goods g WHERE s.generation = %(generation)s AND s.goods_id = g.goods_id
    RETURNING s.goods_id
), inserted AS (
    INSERT INTO ledger.stock (generation, goods_id, on_hand, version)
    SELECT %(generation)s, goods_id, delta, version FROM goods g
    WHERE NOT EXISTS (SELECT FROM updated u WHERE u.goods_id = g.goods_id)
)
SELECT coalesce(sum(understood), 0)::bigint FROM fold
"""
)
KEYS: LiteralString = (
    "SELECT DISTINCT "
    + GOODS_ID
    + " AS goods_id FROM"
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
