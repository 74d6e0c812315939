"""Evidence of a message key that came again with another payload: both fingerprints, both deliveries."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from ledger.domain.commands import MessageKey
from ledger.domain.delivery import Delivery, Lane, Request
from ledger.store.connection import copy
from ledger.store.connection.database import Connection
from ledger.store.tables.processed_message import Processed

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
ENTRIES = "SELECT DISTINCT entry FROM ledger.conflict WHERE entry BETWEEN %s AND %s"
# Along the primary key.
IN_RANGE = """
SELECT second_offset, source, id, second_fingerprint, second_value FROM ledger.conflict
WHERE second_topic = %s AND second_partition = %s AND second_offset >= %s AND second_offset < %s
"""
# The table has one row a conflicting delivery, which are few.
OF_KEYS = """
SELECT source, id, second_topic, second_partition, second_offset, first_fingerprint, second_fingerprint,
       position, recorded_at
FROM ledger.conflicts WHERE id = ANY(string_to_array(%s, E'\\n')) ORDER BY position, second_offset
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


def entries(conn: Connection, first: int, last: int) -> set[int]:
    """The entries of a range that have such rows."""
    return {entry for (entry,) in conn.execute(ENTRIES, (first, last))}


def in_range(conn: Connection, lane: Lane, first_offset: int, next_offset: int) -> dict[int, Second]:
    """The conflicting deliveries of a range of offsets, by offset."""
    rows = conn.execute(IN_RANGE, (*lane, first_offset, next_offset), binary=True)
    return {offset: Second(MessageKey(source, id_), *rest) for offset, source, id_, *rest in rows}


def of_keys(conn: Connection, keys: Collection[MessageKey]) -> dict[MessageKey, list[Conflict]]:
    """The conflicting deliveries of each of these commands, in journal order."""
    found: dict[MessageKey, list[Conflict]] = {key: [] for key in keys}
    for source, id_, topic, partition, *rest in conn.execute(OF_KEYS, (copy.texts({k.id for k in keys}),)):
        if (key := MessageKey(source, id_)) in found:
            found[key].append(Conflict(Lane(topic, partition), *rest))
    return found


def lines(
    entry: int, lane: Lane, lanes: Mapping[int, Lane], found: Sequence[tuple[Delivery, Request, Processed]]
) -> list[str]:
    """The rows of deliveries in `lane` that brought a key again, changed, beside what the register knows.

    `lanes` are those of the entries before this one.
    """
    return [
        copy.line(
            entry,
            *again.key,
            first.fingerprint,
            *(lane if first.entry == entry else lanes[first.entry]),
            first.offset,
            again.fingerprint,
            *lane,
            delivery.offset,
            delivery.record.value,
        )
        for delivery, again, first in found
    ]
