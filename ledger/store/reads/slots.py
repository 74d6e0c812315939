"""Replication slots: for each of them Postgres keeps its log, on its disk, until the slot's reader has it."""

from typing import NamedTuple

from ledger.store.connection.database import Connection


class ReplicationSlot(NamedTuple):
    """A slot of the server, whatever it is for, and how much of the log is kept for it, in bytes."""

    name: str
    is_active: bool
    status: str
    kept: int


SLOTS = """
SELECT slot_name::text, active, wal_status,
       pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                       ELSE pg_current_wal_lsn() END, restart_lsn)::bigint
FROM pg_replication_slots WHERE restart_lsn IS NOT NULL ORDER BY slot_name
"""


def slots(conn: Connection) -> list[ReplicationSlot]:
    """Those that keep anything. Every role may see them."""
    return [ReplicationSlot(*row) for row in conn.execute(SLOTS)]
