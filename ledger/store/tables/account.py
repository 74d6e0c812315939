"""The users' accounts that `decide` reads. They aren't locked: the head's catalogue counter guards them."""

from collections.abc import Iterable, Mapping

from ledger.domain.user import User
from ledger.store.connection.copy import texts
from ledger.store.connection.database import Connection
from ledger.store.connection.roundtrip import Statement

READ = """
SELECT user_id, version, closed FROM ledger.account WHERE user_id = ANY(string_to_array(%s, E'\\n'))
"""
# Sorted, so that two batches that register the same users wait for each other instead of deadlocking.
WRITE = """
INSERT INTO ledger.account (user_id, version, closed)
SELECT n.user_id, n.version, n.closed
FROM unnest(%s::text[], %s::bigint[], %s::boolean[]) AS n (user_id, version, closed) ORDER BY n.user_id
ON CONFLICT (user_id) DO UPDATE SET version = excluded.version, closed = excluded.closed
"""


def read_statement(user_ids: Iterable[str]) -> Statement[dict[str, User]]:
    """Read the users that were ever registered."""
    return Statement(
        READ,
        (texts(user_ids),),
        lambda rows: {user_id: User(version, closed) for user_id, version, closed in rows},
    )


def write(conn: Connection, users: Mapping[str, User]) -> None:
    """The users' new state. Their events came first: a race on a user is lost there, on (stream, version)."""
    if users:
        columns = list(users), [u.version for u in users.values()], [u.closed for u in users.values()]
        conn.execute(WRITE, columns)
