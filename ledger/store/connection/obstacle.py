"""What a session is kept waiting by: a lock and who holds it, or a standby that doesn't confirm a COMMIT.

Asked on a connection of its own, since the one that waits can't ask. Roles without rights of monitoring see
who it is all the same, and not what he does.
"""

from datetime import datetime
from typing import NamedTuple

from ledger.store.connection.database import Connection

# Who waits for somebody who waits himself is held up by the last of the chain: ending another frees nobody.
WAITS = """
WITH RECURSIVE chain AS (
    SELECT %s::int AS pid, 0 AS step
    UNION ALL
    SELECT blocker, step + 1 FROM (SELECT (pg_blocking_pids(pid))[1] AS blocker, step FROM chain) AS next
    WHERE blocker IS NOT NULL AND step < 20  -- a deadlock, until the server finds it, is a circle
)
SELECT last.wait_event, lock.relation::regclass::text, nullif(last.pid, me.pid), last.usename::text,
       last.application_name, current_setting('synchronous_standby_names')
FROM chain JOIN chain me ON me.step = 0
LEFT JOIN pg_stat_activity last ON last.pid = chain.pid
LEFT JOIN pg_locks lock ON lock.pid = me.pid AND NOT lock.granted
ORDER BY chain.step DESC
LIMIT 1
"""
COMMITS = "SyncRep"


# Locks on the ledger's tables, and the advisory one of this key; the oldest transaction is the one to blame.
HOLDER = """
SELECT a.pid, a.usename::text, a.application_name, coalesce(a.xact_start, a.backend_start), a.state
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid LEFT JOIN pg_class c ON c.oid = l.relation
WHERE l.granted AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (c.relnamespace = to_regnamespace('ledger')::oid AND NOT %(only_key)s
       OR l.locktype = 'advisory' AND l.objsubid = 1
          AND (l.classid::bigint << 32 | l.objid::bigint) = %(key)s)
ORDER BY 4 LIMIT 1
"""


class Obstacle(NamedTuple):
    """What a session waits for, and what to do about it."""

    cause: str
    remedy: str


class Holder(NamedTuple):
    """A session that keeps others waiting, since when, what it does, and what it waits for itself."""

    pid: int
    user: str
    program: str
    since: datetime | None
    state: str | None
    waits_for: Obstacle | None = None

    def __str__(self) -> str:
        who = f"the session {self.pid} of {self.user} ({self.program or 'without a name'})"
        if self.since is not None and self.state is not None:  # else this role may not know
            who = f"{who}, since {self.since.isoformat(timespec='seconds')}: {self.state}"
        return f"{who}, and waits itself: {self.waits_for.cause}" if self.waits_for else who

    @property
    def remedy(self) -> str:
        """What a person can do: the statement that ends it, or what it waits for itself."""
        if self.waits_for:
            return self.waits_for.remedy
        return "SELECT pg_terminate_backend({});".replace("{}", str(self.pid))


def obstacle(conn: Connection, pid: int) -> Obstacle | None:
    """What the session with this backend waits for; None if that is nothing that somebody else holds."""
    row = conn.execute(WAITS, (pid,)).fetchone()
    if row is None:
        return None
    event, relation, holder, user, program, standbys = row
    if event == COMMITS:
        return Obstacle(
            f"a COMMIT waits for a synchronous standby that doesn't answer (synchronous_standby_names is "
            f"{standbys}); it takes effect once one does",
            "start that standby, or ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf();",
        )
    if holder is None:
        return None
    what = f"the table {relation}" if relation else "a row"
    return Obstacle(
        f"{what} is locked by the session {holder} of {user} ({program or 'without a name'})",
        f"let that session end, or SELECT pg_terminate_backend({holder});",
    )


def holder(conn: Connection, key: int, *, only_key: bool = False) -> Holder | None:
    """Who holds a lock on one of the ledger's tables, or the advisory lock of this key; or that one alone."""
    row = conn.execute(HOLDER, {"key": key, "only_key": only_key}).fetchone()
    # To end a session that waits itself frees nobody; a COMMIT that waits for a standby takes effect then.
    return Holder(*row)._replace(waits_for=obstacle(conn, row[0])) if row else None
