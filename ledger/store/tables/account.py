"""The users' accounts that `decide` reads. They aren't locked: the head's catalogue counter guards them."""

from collections.abc import Iterable, Mapping

from ledger.domain.user import User
from ledger.store.connection.copy import texts
from ledger.store.connection.roundtrip import Statement

READ = """
SELECT user_id, version, closed FROM ledger.account WHERE user_id = ANY(string_to_array(%s, E'\\n'))
"""
# Sorted, so that two batches that register the same users wait for each other instead of deadlocking.
WRITE = """
INSERT INTO ledger.account (user_id, version, closed)
SELECT n.user_id, n.version, n.closed
FROM unnest(string_to_array(%s, E'\\n'), string_to_array(%s, E'\\n')::bigint[],
            string_to_array(%s, E'\\n')::boolean[]) AS n (user_id, version, closed) ORDER BY n.user_id
ON CONFLICT (user_id) DO UPDATE SET version = excluded.version, closed = excluded.closed
"""


def read_statement(user_ids: Iterable[str]) -> Statement[dict[str, User]]:
    """Read the users that were ever registered."""
    return Statement(
        READ,
        (texts(user_ids),),
        lambda rows: {user_id: User(version, closed) for user_id, version, closed in rows},
    )


def write_statement(users: Mapping[str, User]) -> Statement[None]:
    """The users' new state. Their events came first: a race on a user is lost there, on (stream, version)."""
    states = users.values()
    versions, closed = (texts(str(u.version) for u in states), texts(str(u.closed) for u in states))
    return Statement(WRITE, (texts(users), versions, closed), lambda _: None)
