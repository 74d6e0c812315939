"""A projection of your own in one module: who buys most.

It is registered by an entry point of the package that it is in:

    [project.entry-points."stockledger.projections"]
    best_customers = "my_package.best_customers:BestCustomers"

From then on `stockledger project best_customers` (as the database's owner the first time) makes its tables
and follows the journal, everybody reads `SELECT * FROM ledger.best_customers`, and `stockledger rebuild
best_customers` builds it anew. Whoever changes what `apply` gives raises `version` and rebuilds.
"""

from typing import LiteralString

from stockledger import EVENTS, IN_RANGE, Connection, Projection, Range

# Set-wise: one statement a range. Every event that this fold knows counts as understood, those without an
# effect here included; an event of a type that isn't in the list stops the projection, it is never skipped.
APPLY: LiteralString = (
    """
WITH fold AS MATERIALIZED (
    SELECT e.user_id, e.type, count(*) AS events, sum(-e.delta) AS pieces, max(j.recorded_at) AS at
    FROM """
    + EVENTS
    + "WHERE"
    + IN_RANGE
    + """
    GROUP BY e.user_id, e.type
), written AS (
    INSERT INTO ledger.best_customers_rows AS b (generation, user_id, pieces, last_bought_at)
    SELECT %(generation)s, user_id, sum(pieces)::bigint, max(at) FILTER (WHERE type = 'GoodsPurchased')
    FROM fold WHERE type IN ('GoodsPurchased', 'PurchaseCancelled') GROUP BY user_id ORDER BY user_id
    ON CONFLICT (generation, user_id) DO UPDATE SET
        pieces = b.pieces + excluded.pieces,
        last_bought_at = greatest(b.last_bought_at, excluded.last_bought_at)
)
SELECT coalesce(sum(events), 0)::bigint FROM fold WHERE type IN (
    'GoodsListed', 'StockReceived', 'StockAdjusted', 'GoodsPurchased', 'PurchaseCancelled',
    'UserRegistered', 'UserClosed')
"""
)


class BestCustomers(Projection):
    """Per user: the pieces that were bought and kept, and when something was last bought."""

    name = "best_customers"
    version = 1
    table = "best_customers_rows"
    key = ("user_id",)
    ddl = """
        CREATE TABLE ledger.best_customers_rows (
            generation integer NOT NULL,
            user_id text COLLATE "C" NOT NULL,
            pieces bigint NOT NULL,
            last_bought_at timestamptz,
            PRIMARY KEY (generation, user_id)
        ) PARTITION BY LIST (generation)
    """
    additive = True  # sums and a greatest: ranges may be folded in any order

    def apply(self, conn: Connection, generation: int, events: Range) -> int:
        """Add what was bought in the range, and take off what was cancelled."""
        row = conn.execute(APPLY, events.parameters(generation), prepare=False).fetchone()
        assert row is not None
        return int(row[0])
