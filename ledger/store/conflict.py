"""Evidence of a message key that came again with another payload: both fingerprints, both deliveries."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from ledger.domain.commands import MessageKey
from ledger.domain.delivery import Delivery, Lane, Request
from ledger.store import copy, processed_message
from ledger.store.database import Connection
from ledger.store.processed_message import Processed

COPY = """
COPY ledger.conflict
    (entry, source, id, first_fingerprint, first_topic, first_partition, first_offset,
     second_fingerprint, second_topic, second_partition, second_offset, second_value) FROM STDIN
"""
LINES = """
COPY (SELECT entry, source, id, first_fingerprint, first_topic, first_partition, first_offset,
             second_fingerprint, second_topic, second_partition, second_offset, second_value
      FROM ledger.conflict WHERE entry BETWEEN %s AND %s ORDER BY entry, second_offset) TO STDOUT
"""
# Along the primary key.
IN_RANGE = """
SELECT second_offset, source, id, second_fingerprint, second_value FROM ledger.conflict
WHERE second_topic = %s AND second_partition = %s AND second_offset >= %s AND second_offset < %s
"""
# The table has one row a conflicting delivery, which are few.
OF_KEY = """
SELECT second_topic, second_partition, second_offset, first_fingerprint, second_fingerprint,
       position, recorded_at
FROM ledger.conflicts WHERE source = %s AND id = %s ORDER BY position, second_offset
"""


class Conflict(NamedTuple):
    """A delivery that brought a known key with another payload; it wasn't applied."""

    lane: Lane
    offset: int
    first_fingerprint: bytes
    second_fingerprint: bytes
    position: int
    recorded_at: datetime


class Second(NamedTuple):
    """The delivery that brought a known key with another payload."""

    key: MessageKey
    fingerprint: bytes
    value: bytes


def in_range(conn: Connection, lane: Lane, first_offset: int, next_offset: int) -> dict[int, Second]:
    """The conflicting deliveries of a range of offsets, by offset."""
    rows = conn.execute(IN_RANGE, (*lane, first_offset, next_offset), binary=True)
    return {offset: Second(MessageKey(source, id_), *rest) for offset, source, id_, *rest in rows}


def of_key(conn: Connection, key: MessageKey) -> list[Conflict]:
    """The conflicting deliveries of this command, in journal order."""
    return [Conflict(Lane(topic, partition), *rest) for topic, partition, *rest in conn.execute(OF_KEY, key)]


def lines(
    conn: Connection, entry: int, lane: Lane, found: Sequence[tuple[Delivery, Request, Processed]]
) -> list[str]:
    """The rows of deliveries in `lane` that brought a key again, changed, beside what the register knows."""
    earlier = {first.entry for _, _, first in found} - {entry}
    lanes = {entry: lane} | (processed_message.origins(conn, earlier) if earlier else {})
    return [
        copy.line(
            entry,
            *again.key,
            first.fingerprint,
            *lanes[first.entry],
            first.offset,
            again.fingerprint,
            *lane,
            delivery.offset,
            delivery.record.value,
        )
        for delivery, again, first in found
    ]
