"""Whose ledger this is: one consumer group on one Kafka cluster, written once, then compared."""

from ledger.errors import ForeignGroup, TopicReplaced
from ledger.store.database import Connection

CLAIM = "INSERT INTO ledger.identity (consumer_group, cluster_id) VALUES (%s, %s) ON CONFLICT DO NOTHING"
READ = "SELECT consumer_group, cluster_id FROM ledger.identity"


def claim(conn: Connection, group: str, cluster_id: str) -> None:
    """Make the ledger this group's on this cluster, for good.

    Raises ForeignGroup or TopicReplaced if it already is another one's.
    """
    conn.execute(CLAIM, (group, cluster_id))
    row = conn.execute(READ).fetchone()
    assert row is not None
    if row[0] != group:
        raise ForeignGroup(
            f"this ledger belongs to the consumer group {row[0]}, not to {group}",
            remedy=f"run with --group {row[0]}, or use another database",
        )
    if row[1] != cluster_id:
        raise TopicReplaced(
            f"this ledger was begun on the Kafka cluster {row[1]}, but this is {cluster_id}",
            remedy="set STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS to that cluster, or use another database",
        )


def read(conn: Connection) -> tuple[str | None, str | None]:
    """The ledger's consumer group and the id of its Kafka cluster; None as long as no worker has run."""
    row = conn.execute(READ).fetchone()
    return (row[0], row[1]) if row else (None, None)
