"""Offsets that will never be applied, each with its cause and, where it cost records, who accepted that."""

from datetime import datetime
from typing import NamedTuple

from ledger.domain.delivery import Gap, Lane
from ledger.store import copy
from ledger.store.database import Connection

COPY = """
COPY ledger.gap (entry, topic, partition, first_offset, next_offset, cause, accepted_by) FROM STDIN
"""
LINES = """
COPY (SELECT entry, topic, partition, first_offset, next_offset, cause, accepted_by
      FROM ledger.gap WHERE entry BETWEEN %s AND %s ORDER BY entry, first_offset) TO STDOUT
"""
LIST = """
SELECT topic, partition, first_offset, next_offset, cause, accepted_by, position, recorded_at
FROM ledger.gaps ORDER BY topic, partition, first_offset
"""

# A hole of Kafka's own holds no record; what a person chose to go on without may still be there.
CHOSEN = """
SELECT first_offset, next_offset FROM ledger.gap
WHERE topic = %s AND partition = %s AND first_offset < %s AND next_offset > %s AND cause <> 'log_hole'
"""


class RecordedGap(NamedTuple):
    """A gap of a lane, and since when it is in the journal."""

    lane: Lane
    gap: Gap
    position: int
    recorded_at: datetime


def line(entry: int, lane: Lane, gap: Gap) -> str:
    """The gap's row."""
    return copy.line(entry, *lane, gap.first_offset, gap.next_offset, gap.cause, gap.accepted_by)


def listed(conn: Connection) -> list[RecordedGap]:
    """All gaps, lane by lane in offset order."""
    return [
        RecordedGap(Lane(*row[:2]), Gap(*row[2:6]), position=row[6], recorded_at=row[7])
        for row in conn.execute(LIST)
    ]


def chosen(conn: Connection, lane: Lane, first_offset: int, next_offset: int) -> list[range]:
    """The offsets in this range that somebody chose to go on without; Kafka may still have their records."""
    rows = conn.execute(CHOSEN, (*lane, next_offset, first_offset))
    return [range(first, next_) for first, next_ in rows]
