"""Records that Kafka deleted before they were read: found, shown, and accepted by a person.

Nothing skips records by itself. An accepted gap moves its lane through a journal entry of its own, with
who accepted it, so the loss is part of the record.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from consumer import admin, known_log
from consumer.assignment import take_over
from ledger.batch import apply_batch
from ledger.domain.delivery import Batch, Gap, Lane
from ledger.errors import Contended
from ledger.store.connection.database import Connection

CAUSE = "records_deleted"


@dataclass(frozen=True)
class PendingGap:
    """Offsets of a lane that the ledger has not read and Kafka doesn't have any more."""

    lane: Lane
    first_offset: int
    next_offset: int


def pending(conn: Connection, kafka: Mapping[str, str], name: str) -> list[PendingGap]:
    """The gaps of the topic that wait for somebody to accept them.

    Raises BrokerUnavailable, TopicUnfit, or TopicReplaced (then no gap can be told from a new log).
    """
    known = known_log.read(conn)
    rows = known.lanes(name)
    facts = known.inspect(kafka, name)
    marks = admin.watermarks(kafka, facts.lanes).known
    return [
        PendingGap(row.lane, row.next_offset, marks[row.lane].first)
        for row in rows
        if row.lane in marks and row.next_offset < marks[row.lane].first
    ]


def accept(conn: Connection, gap: PendingGap, by: str) -> int:
    """Go on without the records of the gap; returns the journal position that records it.

    `by` says who accepted the loss. Takes the lane over, so a worker that still holds it is fenced.
    Raises Contended if the lane has moved since the gap was found.
    """
    claim = take_over(conn, gap.lane)
    if claim.next_offset != gap.first_offset:
        raise Contended(f"{gap.lane} is at {claim.next_offset} now, not at {gap.first_offset}")
    skipped = Gap(gap.first_offset, gap.next_offset, CAUSE, by)
    batch = Batch(gap.lane, gap.first_offset, gap.next_offset, [], [skipped])
    return apply_batch(conn, batch, claim.epoch).position
