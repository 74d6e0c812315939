"""Offsets that will never be applied, each with its cause and, where it cost records, who accepted that."""

from datetime import datetime
from typing import NamedTuple

from ledger.domain.delivery import Gap, Lane
from ledger.store.connection import copy
from ledger.store.connection.database import Connection

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

IN_RANGE = """
SELECT first_offset, next_offset, cause, accepted_by FROM ledger.gap
WHERE topic = %s AND partition = %s AND first_offset < %s AND next_offset > %s
ORDER BY first_offset
"""
BEFORE_START = "before_start"
"""The one gap that Kafka may still have records of: `--start latest` chose to begin after them."""


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


def in_range(conn: Connection, lane: Lane, first_offset: int, next_offset: int) -> list[Gap]:
    """The gaps that cover some of these offsets, in their order."""
    return [Gap(*row) for row in conn.execute(IN_RANGE, (*lane, next_offset, first_offset))]
