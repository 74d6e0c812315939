"""Whose ledger this is: one consumer group on one Kafka cluster, written once, then compared."""

from ledger.errors import ForeignGroup, RestoredCopy, TopicReplaced
from ledger.shell import command
from ledger.store.connection.database import Connection

CLAIM = """
INSERT INTO ledger.identity (consumer_group, cluster_id, system_identifier, database_oid)
SELECT %s, %s, s.system_identifier, d.oid::bigint
FROM pg_control_system() s, pg_database d WHERE d.datname = current_database() ON CONFLICT DO NOTHING
"""
IS_COPY = """
SELECT (i.system_identifier, i.database_oid) <> (s.system_identifier, d.oid::bigint)
FROM ledger.identity i, pg_control_system() s, pg_database d WHERE d.datname = current_database()
"""
ADOPT = """
UPDATE ledger.identity i SET system_identifier = s.system_identifier, database_oid = d.oid::bigint
FROM pg_control_system() s, pg_database d WHERE d.datname = current_database()
    AND (i.system_identifier, i.database_oid) <> (s.system_identifier, d.oid::bigint)
"""
TOPIC_IN_USE = "SELECT topic FROM ledger.journal ORDER BY position DESC LIMIT 1"
READ = "SELECT consumer_group, cluster_id FROM ledger.identity"


def require_original(conn: Connection) -> None:
    """Raise RestoredCopy if this ledger was begun in another database, and wasn't adopted since.

    A copy beside its original would take lanes of the same group, and each would have half of the records. A
    copy of the server's files (a promoted standby, a snapshot of its disks) can't be told from the original.
    """
    if conn.execute(IS_COPY).fetchone() == (True,):
        raise RestoredCopy(
            "this ledger is a copy: it was begun in another database, which may still be at work for its "
            "group. Nothing was read or written",
            remedy="stop the original for good, then: stockledger migrate --adopt",
        )


def adopt(conn: Connection) -> bool:
    """This database takes the original's place. True if it was a copy. Needs the database's owner."""
    return conn.execute(ADOPT).rowcount > 0


def claim(conn: Connection, group: str, cluster_id: str) -> None:
    """Make the ledger this group's on this cluster, for good.

    Raises ForeignGroup or TopicReplaced if it already is another one's, RestoredCopy if it is a copy.
    """
    conn.execute(CLAIM, (group, cluster_id))
    row = conn.execute(READ).fetchone()
    assert row is not None
    require_original(conn)
    if row[0] != group:
        raise ForeignGroup(
            f"this ledger belongs to the consumer group {row[0]}, not to {group}",
            remedy=command("run --group", row[0]),
        )
    if row[1] != cluster_id:
        raise TopicReplaced(
            f"this ledger was begun on the Kafka cluster {row[1]}, but this is {cluster_id}",
            remedy=f"name a broker of the cluster {row[1]} in bootstrap.servers",
        )


def read(conn: Connection) -> tuple[str | None, str | None]:
    """The ledger's consumer group and the id of its Kafka cluster; None as long as no worker has run."""
    row = conn.execute(READ).fetchone()
    return (row[0], row[1]) if row else (None, None)


def topic_in_use(conn: Connection) -> str | None:
    """The topic of the last journal entry; None if there is none."""
    row = conn.execute(TOPIC_IN_USE).fetchone()
    return str(row[0]) if row else None
