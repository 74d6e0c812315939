"""How much of the journal lies after a position, for whoever follows it and keeps the position elsewhere."""

from typing import NamedTuple

from ledger.store.connection.database import Connection


class JournalLag(NamedTuple):
    """The entries after a position, and the age of the first of them in seconds; 0 if there is none."""

    entries: int
    seconds: float


LAG = """
SELECT h.position - %(position)s,
       coalesce(extract(epoch FROM clock_timestamp() - j.recorded_at), 0)::double precision
FROM ledger.head h LEFT JOIN ledger.journal j ON j.position = %(position)s::bigint + 1
"""


def after(conn: Connection, position: int) -> JournalLag:
    """What the journal has after this position."""
    (row,) = conn.execute(LAG, {"position": position})
    return JournalLag(*row)
