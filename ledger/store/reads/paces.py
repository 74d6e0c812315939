"""How much was recorded lately, by outcome, in equal stretches of time up to now. Nothing is written."""

from datetime import timedelta
from typing import NamedTuple

from ledger.store.connection.database import Connection
from ledger.store.reads import history

CLOCK = "SELECT clock_timestamp()"
PACES = """
SELECT floor(extract(epoch FROM %(now)s::timestamptz - recorded_at) / %(stretch_s)s)::integer AS ago,
       sum(applied)::bigint, sum(rejected)::bigint, sum(duplicate)::bigint, sum(conflict)::bigint,
       sum(dead)::bigint
FROM ledger.journal WHERE position > %(after)s AND recorded_at <= %(now)s GROUP BY 1 ORDER BY 1 DESC
"""


class Pace(NamedTuple):
    """Deliveries by outcome that were recorded in one stretch of time."""

    applied: int = 0
    rejected: int = 0
    duplicate: int = 0
    conflict: int = 0
    dead: int = 0


def lately(conn: Connection, stretches: int, stretch_s: int) -> list[Pace]:
    """So many stretches of so many seconds, the oldest first; the last one ends now, by the server."""
    ((now,),) = conn.execute(CLOCK)
    after = history.last_recorded(conn, now - timedelta(seconds=stretches * stretch_s))
    rows = conn.execute(PACES, {"now": now, "stretch_s": stretch_s, "after": after})
    found = {ago: Pace(*numbers) for ago, *numbers in rows}
    return [found.get(ago, Pace()) for ago in range(stretches - 1, -1, -1)]
