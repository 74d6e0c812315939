"""Where each user's events stand in the journal: so a support desk finds a purchase by its buyer."""

from typing import LiteralString

from ledger.projections.projection import Projection
from ledger.store.connection.database import Connection
from ledger.store.reads.ranges import EVENTS, IN_RANGE, Range
from ledger.store.tables.event import TYPES

# Sorted by key, for the key's index.
APPLY: LiteralString = (
    """
WITH found AS MATERIALIZED (
    SELECT e.user_id, j.position, e.ordinal, e.source, e.id, e.type
    FROM """
    + EVENTS
    + "WHERE"
    + IN_RANGE
    + """
), written AS (
    INSERT INTO ledger.user_events_rows (generation, user_id, position, ordinal, source, id)
    SELECT %(generation)s, user_id, position, ordinal, source, id FROM found
    WHERE user_id IS NOT NULL ORDER BY user_id, position, ordinal
)
SELECT count(*) FROM found WHERE type IN ("""
    + TYPES
    + ")"
)
KEYS: LiteralString = (
    "SELECT e.user_id, j.position, e.ordinal FROM" + EVENTS + "WHERE" + IN_RANGE + "AND e.user_id IS NOT NULL"
)


class UserEvents(Projection):
    """Per user the place of each event: registration, purchases, their cancellations, and closing.

    Rows are only added, so ranges may be applied in any order.
    """

    name = "user_events"
    table = "user_events_rows"
    key = ("user_id", "position", "ordinal")
    ddl = ""
    keys = KEYS
    additive = True

    def apply(self, conn: Connection, generation: int, events: Range) -> int:
        """Add the places of the range's events that have a user."""
        row = conn.execute(APPLY, events.parameters(generation), prepare=False).fetchone()
        assert row is not None
        return int(row[0])
