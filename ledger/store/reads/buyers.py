"""What a user bought, found by the projection `user_events` and read from the events. Nothing is written."""

from datetime import datetime
from typing import LiteralString, NamedTuple

from ledger.domain.upcast import load
from ledger.store.connection.database import Connection
from ledger.store.tables.event import GOODS_ID


class Bought(NamedTuple):
    """A purchase that was applied, and whether it was cancelled since."""

    source: str
    id: str
    goods_id: str
    quantity: int
    unit_price_minor: int | None
    cancelled: bool
    position: int
    recorded_at: datetime


# Along the projection's key; then one after the other (OFFSET 0 keeps it so), as in `event.PLACES`.
_COLUMNS: LiteralString = (
    """
u.position, u.ordinal, e.type, e.payload::text, e.source, e.id, """
    + GOODS_ID
    + """, -e.delta, c.id IS NOT NULL, j.recorded_at
FROM (SELECT position, ordinal FROM ledger.user_events
      WHERE user_id = %(user)s AND (position, ordinal) """
)
_JOINED: LiteralString = """) u
CROSS JOIN LATERAL (SELECT entry, recorded_at FROM ledger.journal WHERE position = u.position OFFSET 0) j
CROSS JOIN LATERAL (
    SELECT type, payload, source, id, stream, delta FROM ledger.event
    WHERE entry = j.entry AND ordinal = u.ordinal OFFSET 0
) e
LEFT JOIN LATERAL (
    SELECT id FROM ledger.cancellation WHERE id = e.id AND source = e.source OFFSET 0
) c ON true
"""
PURCHASES: LiteralString = (
    "SELECT"
    + _COLUMNS
    + "> (%(position)s, %(ordinal)s) ORDER BY position, ordinal LIMIT %(limit)s"
    + _JOINED
    + "ORDER BY u.position, u.ordinal"
)
LATEST: LiteralString = (
    "SELECT"
    + _COLUMNS
    + "< (%(position)s, %(ordinal)s) ORDER BY position DESC, ordinal DESC LIMIT %(limit)s"
    + _JOINED
    + "ORDER BY u.position DESC, u.ordinal DESC"
)


def purchases(
    conn: Connection, user_id: str, after: tuple[int, int], limit: int
) -> tuple[list[tuple[int, int]], list[Bought]]:
    """The user's next `limit` events by (position, ordinal), and those of them that are purchases."""
    return _bought(conn, PURCHASES, user_id, after, limit)


def latest(
    conn: Connection, user_id: str, before: tuple[int, int], limit: int
) -> tuple[list[tuple[int, int]], list[Bought]]:
    """The last `limit` of the user's events before this place, the newest first; else as `purchases`."""
    return _bought(conn, LATEST, user_id, before, limit)


def _bought(
    conn: Connection, statement: LiteralString, user_id: str, place: tuple[int, int], limit: int
) -> tuple[list[tuple[int, int]], list[Bought]]:
    wanted = {"user": user_id, "position": place[0], "ordinal": place[1], "limit": limit}
    places, found = [], []
    for position, ordinal, type_, payload, *rest, recorded_at in conn.execute(statement, wanted):
        places.append((position, ordinal))
        if type_ == "GoodsPurchased":
            source, id_, goods_id, quantity, cancelled = rest
            price = getattr(load(type_, payload), "unit_price_minor", None)
            found.append(Bought(source, id_, goods_id, quantity, price, cancelled, position, recorded_at))
    return places, found
