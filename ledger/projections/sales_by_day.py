"""What was sold on each UTC day, by the time of recording; a cancellation counts on its own day."""

from typing import LiteralString

from ledger.projections.projection import Projection
from ledger.store.connection.database import Connection
from ledger.store.reads.ranges import EVENTS, IN_RANGE, Range
from ledger.store.tables.event import TYPES

# numeric: a single purchase may cost 10^21.
APPLY: LiteralString = (
    """
WITH fold AS MATERIALIZED (
    SELECT (j.recorded_at AT TIME ZONE 'UTC')::date AS day, e.type, count(*) AS events,
           abs(sum(e.delta))::bigint AS quantity,
           count(*) FILTER (WHERE e.type = 'GoodsPurchased' AND e.payload ->> 'unit_price_minor' IS NOT NULL)
               AS priced,
           coalesce(sum((e.payload ->> 'unit_price_minor')::numeric * -e.delta)
                    FILTER (WHERE e.type = 'GoodsPurchased'), 0) AS revenue_minor
    FROM """
    + EVENTS
    + "WHERE"
    + IN_RANGE
    + """
    GROUP BY 1, 2
), days AS (
    SELECT day, coalesce(sum(events) FILTER (WHERE type = 'GoodsPurchased'), 0)::bigint AS purchases,
           coalesce(sum(quantity) FILTER (WHERE type = 'GoodsPurchased'), 0)::bigint AS quantity,
           coalesce(sum(events) FILTER (WHERE type = 'PurchaseCancelled'), 0)::bigint AS cancelled,
           coalesce(sum(quantity) FILTER (WHERE type = 'PurchaseCancelled'), 0)::bigint AS cancelled_quantity,
           sum(priced)::bigint AS priced, sum(revenue_minor) AS revenue_minor
    FROM fold WHERE type IN ('GoodsPurchased', 'PurchaseCancelled') GROUP BY day
), written AS (
    INSERT INTO ledger.sales_by_day_rows AS s
        (generation, day, purchases, quantity, cancelled, cancelled_quantity, priced, revenue_minor)
    SELECT %(generation)s, day, purchases, quantity, cancelled, cancelled_quantity, priced, revenue_minor
    FROM days ORDER BY day
    ON CONFLICT (generation, day) DO UPDATE SET
        purchases = s.purchases + excluded.purchases, quantity = s.quantity + excluded.quantity,
        cancelled = s.cancelled + excluded.cancelled,
        cancelled_quantity = s.cancelled_quantity + excluded.cancelled_quantity,
        priced = s.priced + excluded.priced, revenue_minor = s.revenue_minor + excluded.revenue_minor
)
SELECT coalesce(sum(events), 0)::bigint FROM fold WHERE type IN ("""
    + TYPES
    + ")"
)


class SalesByDay(Projection):
    """Per UTC day: purchases, pieces, cancellations, and the revenue of what had a price (in minor units)."""

    name = "sales_by_day"
    table = "sales_by_day_rows"
    key = ("day",)
    ddl = ""
    additive = True

    def apply(self, conn: Connection, generation: int, events: Range) -> int:
        """Add the range's sales."""
        row = conn.execute(APPLY, events.parameters(generation), prepare=False).fetchone()
        assert row is not None
        return int(row[0])
