"""Offsets that will never be applied, each with its cause and, where it cost records, who accepted that."""

from ledger.domain.delivery import Gap, Lane
from ledger.store import copy

COPY = """
COPY ledger.gap (entry, topic, partition, first_offset, next_offset, cause, accepted_by) FROM STDIN
"""


def line(entry: int, lane: Lane, gap: Gap) -> str:
    """The gap's row."""
    return copy.line(entry, *lane, gap.first_offset, gap.next_offset, gap.cause, gap.accepted_by)
