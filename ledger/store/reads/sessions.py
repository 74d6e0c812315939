"""Who is connected: sessions name what they are for, so they tell who works on this ledger just now."""

from ledger.store.connection.database import Connection

SESSIONS = """
SELECT substr(application_name, length('stockledger/') + 1) AS purpose, count(*) FROM pg_stat_activity
WHERE datname = current_database() AND starts_with(application_name, 'stockledger/')
  AND pid <> pg_backend_pid()
GROUP BY purpose ORDER BY purpose
"""


def sessions(conn: Connection) -> dict[str, int]:
    """How many sessions there are by purpose, but for this one. Every role may see it."""
    return {str(purpose): int(number) for purpose, number in conn.execute(SESSIONS)}
