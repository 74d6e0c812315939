"""Taking over lanes: who may own them, where to read on, and when not to.

On assignment each lane's epoch is raised and its stored offset read; the reader starts exactly there.
Kafka's own committed offsets are never asked. Where the log doesn't fit what the ledger has seen, it halts.
"""

import os
import socket
from collections.abc import Iterable, Mapping

from consumer.topic import ELSEWHERE, TopicFacts, require_same_topic
from ledger import failpoints
from ledger.batch import apply_batch
from ledger.domain.delivery import Batch, Gap, Lane
from ledger.errors import Contended, RecordsLost, TopicUnfit
from ledger.store import identity, lane, migrate
from ledger.store.database import Connection, transaction
from ledger.store.lane import Claim, LaneRow, Owner
from ledger.store.server import require_durable

Watermarks = Mapping[int, tuple[int, int]]


def preflight(conn: Connection, facts: TopicFacts, group: str) -> None:
    """Check all that can be wrong before the first record is read, and make the ledger this group's.

    Raises SchemaMismatch, UnsafeSettings, ForeignGroup, TopicReplaced or TopicUnfit, each with its remedy.
    """
    migrate.require_current(conn)
    require_durable(conn)
    if "compact" in facts.cleanup_policy:
        raise TopicUnfit(
            f"the topic {facts.name} is compacted: Kafka would remove commands that were never applied",
            remedy=f"set cleanup.policy=delete on {facts.name}",
        )
    identity.claim(conn, group, facts.cluster_id)
    known_lanes(conn, facts)


def known_lanes(conn: Connection, facts: TopicFacts) -> list[LaneRow]:
    """The topic's lanes. Raises TopicReplaced if they were begun with another topic of this name."""
    rows = [row for row in lane.read_all(conn) if row.topic == facts.name]
    for row in rows:
        require_same_topic(facts.name, row.topic_id, facts.topic_id)
    return rows


def begin_lanes(conn: Connection, facts: TopicFacts, marks: Watermarks, start: str | None) -> None:
    """Make the topic's lanes known, all in one transaction, so that their start is decided once.

    `start` counts for a topic first met; a partition added to a known one is read from its beginning.
    Raises TopicReplaced, or RecordsLost if a log's head is already gone and no `start` says it is meant.
    """
    known = {row.partition for row in known_lanes(conn, facts)}
    with transaction(conn):
        for partition in range(facts.partitions):
            if partition in known:
                continue
            first, end = marks[partition]
            if first > 0 and start is None:
                raise RecordsLost(
                    f"{facts.name}[{partition}] begins at offset {first}: what was before is gone from Kafka",
                    remedy="run once with --start earliest to go on without it (recorded as a gap)",
                )
            begin_at = end if start == "latest" and not known else first
            lane.begin(conn, Lane(facts.name, partition), facts.topic_id, begin_at)


def claim_lanes(
    conn: Connection, topic: str, marks: Watermarks, partitions: Iterable[int]
) -> dict[int, Claim]:
    """Own these lanes from now on, and say where each is to be read from.

    Raises RecordsLost if Kafka doesn't have the lane's next record any more, or never had it.
    """
    failpoints.hit("claim")
    claims = {}
    for partition in sorted(partitions):
        own = Lane(topic, partition)
        claim = take_over(conn, own)
        if claim.next_offset < claim.start_offset:
            claim = _skip_to_start(conn, own, claim)
        _require_records(own, claim.next_offset, *marks[partition])
        claims[partition] = claim
    return claims


def take_over(conn: Connection, own: Lane) -> Claim:
    """Own the lane: raise its epoch once its last owner's transaction has ended."""
    owner = Owner(socket.gethostname(), os.getpid())
    try:
        return lane.claim(conn, own, owner)
    except Contended:
        # The last owner holds the row past our lock timeout: frozen, or its COMMIT hangs. Either way its
        # transaction ends here, as a whole, one way or the other.
        lane.terminate_owner(conn, own)
        return lane.claim(conn, own, owner)


def _skip_to_start(conn: Connection, own: Lane, claim: Claim) -> Claim:
    gap = Gap(claim.next_offset, claim.start_offset, "before_start", accepted_by="--start")
    apply_batch(conn, Batch(own, claim.next_offset, claim.start_offset, [], [gap]), claim.epoch)
    return claim._replace(next_offset=claim.start_offset)


def _require_records(own: Lane, next_offset: int, first: int, end: int) -> None:
    if next_offset < first:
        raise RecordsLost(
            f"{first - next_offset} records of {own} were deleted before they were read "
            f"(wanted offset {next_offset}, Kafka begins at {first})",
            remedy=f"stockledger gap accept {own.partition}, to go on without them (recorded as a gap)",
        )
    if next_offset > end:
        raise RecordsLost(
            f"{own} ends at offset {end}, but is applied up to {next_offset}: Kafka lost records",
            remedy=ELSEWHERE,
        )
