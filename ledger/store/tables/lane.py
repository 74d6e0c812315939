"""Lanes: how far each partition is applied, and by whom. Advanced by compare-and-set on offset and
epoch inside the batch's transaction; a fenced writer cannot move it. The caller owns the transaction.

The stored offset is the only truth about progress: Kafka's own group offsets are never read back. Beside it
stands what identifies the last applied record, because a log that lost its tail gives offsets out again. Each
assignment raises the epoch, so an owner that was thought dead finds its epoch gone and writes nothing.
"""

from datetime import datetime
from typing import NamedTuple

from psycopg.rows import TupleRow, class_row

from ledger.domain.delivery import Batch, Lane, Mark
from ledger.errors import Contended, Defect, Fenced
from ledger.store.connection.database import Connection, faults
from ledger.store.connection.roundtrip import Statement


class Claim(NamedTuple):
    """What an owner knows of its lane: the next offset to read, and the epoch that its writes must carry.

    `mark` is the last applied record, None where none was.
    """

    next_offset: int
    epoch: int
    start_offset: int = 0
    mark: Mark | None = None


class Owner(NamedTuple):
    """The process that claims a lane."""

    host: str
    pid: int


class LaneRow(NamedTuple):
    """A lane as stored. `backend_pid` is the process of the owner's database session, on the server.

    `last_moved_at` is when its last entry was recorded, `still_s` the seconds since, by the server's clock.
    """

    topic: str
    partition: int
    topic_id: str
    next_offset: int
    epoch: int
    owner_host: str | None
    owner_pid: int | None
    backend_pid: int | None
    last_offset: int | None = None
    last_leader_epoch: int | None = None
    last_timestamp_ms: int | None = None
    last_digest: bytes | None = None
    last_moved_at: datetime | None = None
    still_s: float | None = None

    @property
    def lane(self) -> Lane:
        """Which one it is."""
        return Lane(self.topic, self.partition)

    @property
    def mark(self) -> Mark | None:
        """The last applied record."""
        return _mark(self.last_offset, self.last_leader_epoch, self.last_timestamp_ms, self.last_digest)


ALL = """
SELECT topic, partition, topic_id, next_offset, epoch, owner_host, owner_pid, backend_pid,
       last_offset, last_leader_epoch, last_timestamp_ms, last_digest,
       recorded_at AS last_moved_at, extract(epoch FROM clock_timestamp() - recorded_at)::float8 AS still_s
FROM ledger.lane LEFT JOIN LATERAL (
    SELECT j.recorded_at FROM ledger.journal j WHERE j.topic = lane.topic AND j.partition = lane.partition
    ORDER BY j.first_offset DESC LIMIT 1
) AS last_entry ON true
ORDER BY topic, partition
"""
TOPICS = "SELECT DISTINCT topic FROM ledger.lane ORDER BY topic"
BEGIN_LANE = """
INSERT INTO ledger.lane (topic, partition, topic_id, start_offset) VALUES (%s, %s, %s, %s)
ON CONFLICT DO NOTHING
"""
CLAIM = """
UPDATE ledger.lane SET epoch = epoch + 1, owner_host = %s, owner_pid = %s
WHERE topic = %s AND partition = %s
RETURNING next_offset, epoch, start_offset, last_offset, last_leader_epoch, last_timestamp_ms, last_digest
"""
RESUME = "SELECT next_offset, epoch FROM ledger.lane WHERE topic = %s AND partition = %s FOR UPDATE"
# Two owners with the same offset: the second waits here for the first one's commit, then matches no row.
ADVANCE = """
UPDATE ledger.lane SET next_offset = %s, last_offset = coalesce(%s, last_offset),
    last_leader_epoch = coalesce(%s, last_leader_epoch),
    last_timestamp_ms = coalesce(%s, last_timestamp_ms), last_digest = coalesce(%s, last_digest)
WHERE topic = %s AND partition = %s AND next_offset = %s AND epoch = %s
RETURNING nextval('ledger.entry_number')
"""
# pid and start must both match: a pid alone may have been given to somebody else since. And whatever the row
# says, only a session of this program, of this user and on this database is ended.
TERMINATE_OWNER = """
SELECT pg_terminate_backend(a.pid, 2000)
FROM ledger.lane l JOIN pg_stat_activity a ON a.pid = l.backend_pid AND a.backend_start = l.backend_start
WHERE l.topic = %s AND l.partition = %s AND a.pid <> pg_backend_pid()
    AND a.datname = current_database() AND a.usename = current_user
    AND starts_with(a.application_name, 'stockledger/')
    AND a.wait_event IS DISTINCT FROM 'SyncRep'  -- ended, it would take effect before its standby has it
"""


def read_all(conn: Connection) -> list[LaneRow]:
    """Every lane, for people and checks: a plain read, which may be older than a commit in flight."""
    with conn.cursor(row_factory=class_row(LaneRow)) as cursor:
        return cursor.execute(ALL).fetchall()


def topics(conn: Connection) -> list[str]:
    """The topics that there are lanes of, by name."""
    return [topic for (topic,) in conn.execute(TOPICS)]


def begin(conn: Connection, lane: Lane, topic_id: str, start_offset: int = 0) -> None:
    """Make the lane known, if it isn't. It stands at 0; a gap entry takes it to its start offset."""
    conn.execute(BEGIN_LANE, (*lane, topic_id, start_offset))


def claim(conn: Connection, lane: Lane, owner: Owner) -> Claim:
    """Take the lane over: wait for whatever its last owner is committing, then raise the epoch.

    Raises Contended after the session's lock timeout (see `terminate_owner`).
    """
    with faults():
        row = conn.execute(CLAIM, (owner.host, owner.pid, lane.topic, lane.partition)).fetchone()
    if row is None:
        raise Defect(f"the lane {lane} doesn't exist")
    next_offset, epoch, start_offset, *mark = row
    return Claim(next_offset, epoch, start_offset, _mark(*mark))


def _mark(
    offset: int | None, leader_epoch: int | None, timestamp_ms: int | None, digest: bytes | None
) -> Mark | None:
    if offset is None or leader_epoch is None or timestamp_ms is None or digest is None:
        return None
    return Mark(offset, leader_epoch, timestamp_ms, digest)


def resume(conn: Connection, lane: Lane, epoch: int) -> int:
    """The next offset of our own lane after a commit whose fate is unknown.

    Takes the row's lock: a plain read would see the old offset while the old COMMIT is in flight, and the
    batch would be tried twice. Raises Fenced if the lane has a newer owner.
    """
    row = conn.execute(RESUME, lane).fetchone()
    if row is None:
        raise Defect(f"the lane {lane} doesn't exist")
    if row[1] != epoch:
        raise Fenced(f"the lane {lane} has a newer owner (epoch {row[1]}, ours was {epoch})")
    return int(row[0])


def advance_statement(batch: Batch, epoch: int) -> Statement[int]:
    """Move the lane over the batch and take a number for its entry; a batch of gaps leaves the mark alone.

    The answer raises Contended if the row isn't as expected: a newer owner, or a commit of our own that took
    effect although its acknowledgement was lost. Which of them, `resume` tells.
    """

    def entry(rows: list[TupleRow]) -> int:
        if not rows:
            raise Contended(
                f"the lane {batch.lane} isn't at {batch.first_offset} with epoch {epoch} any more"
            )
        return int(rows[0][0])

    mark = batch.deliveries[-1].mark if batch.deliveries else (None,) * 4
    return Statement(ADVANCE, (batch.next_offset, *mark, *batch.lane, batch.first_offset, epoch), entry)


def terminate_owner(conn: Connection, lane: Lane) -> bool:
    """End the database session of the lane's recorded owner, which holds its lock. True if there was one."""
    with faults():
        return conn.execute(TERMINATE_OWNER, lane).fetchone() is not None
