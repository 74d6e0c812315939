"""What is recorded of some entries of the journal, for a comparison with a sequential run's.

Read in short statements; nothing is written or locked. What is committed never changes, so the statements
needn't share a snapshot.
"""

from collections.abc import Iterable
from typing import NamedTuple

from ledger.domain.commands import MessageKey
from ledger.domain.delivery import Delivery, Lane, Request
from ledger.domain.goods import Purchase, goods_stream, purchase_key
from ledger.domain.outcome import Outcome
from ledger.domain.structs import CancelPurchaseStruct
from ledger.store.connection.database import Connection
from ledger.store.connection.roundtrip import execute
from ledger.store.tables import processed_message
from ledger.store.tables.journal import COUNTED
from ledger.store.tables.processed_message import Processed

RANGE_DELIVERIES = 10_000
"""How many deliveries are compared at a time; a larger entry is compared alone."""
RANGE_ENTRIES = 1_000


class EntryWithGaps(NamedTuple):
    """A journal entry; `gaps` are the ranges of offsets that it skipped."""

    position: int
    number: int
    lane: Lane
    first_offset: int
    next_offset: int
    counts: dict[Outcome, int]
    skipped: int
    gaps: list[tuple[int, int]]


class RecordedEntries(NamedTuple):
    """What is recorded of some entries.

    `register` and `purchases` (those made before the entries) are by key, `events` by place, `positions` by
    entry. Dead letters aren't here: they may be large.
    """

    register: dict[MessageKey, Processed]
    positions: dict[int, int]
    events: dict[tuple[int, MessageKey], tuple[str, str]]
    purchases: dict[MessageKey, Purchase]


ENTRIES = """
SELECT position, entry, topic, partition, first_offset, next_offset, applied, rejected, duplicate, conflict,
       dead, skipped
FROM (SELECT j.*, sum(next_offset - first_offset - skipped) OVER (ORDER BY position) AS deliveries
      FROM (SELECT * FROM ledger.journal
            WHERE position BETWEEN %s AND %s ORDER BY position LIMIT %s) j) j
WHERE deliveries <= %s OR deliveries = next_offset - first_offset - skipped
ORDER BY position
"""
# Along the primary key.
GAPS = """
SELECT w.position, g.first_offset, g.next_offset
FROM unnest(%s::bigint[], %s::text[], %s::int[], %s::bigint[], %s::bigint[])
    AS w (position, topic, partition, first_offset, next_offset)
JOIN ledger.gap g ON g.topic = w.topic AND g.partition = w.partition
    AND g.first_offset >= w.first_offset AND g.first_offset < w.next_offset
"""
POSITIONS = "SELECT entry, position FROM ledger.journal WHERE entry = ANY(%s)"
EVENTS = """
SELECT j.position, e.source, e.id, e.type, e.payload::text
FROM ledger.event e JOIN ledger.journal j USING (entry)
WHERE e.entry BETWEEN %s AND %s AND j.position BETWEEN %s AND %s
"""
# As `event.PURCHASES`, but as of a position.
PURCHASES = """
SELECT e.source, e.id, w.goods_id, e.user_id, -e.delta, cj.position IS NOT NULL
FROM unnest(%(sources)s::text[], %(ids)s::text[], %(goods)s::text[], %(streams)s::text[])
    AS w (source, id, goods_id, stream)
JOIN ledger.processed_message p ON p.id = w.id AND p.source = w.source
JOIN ledger.journal j ON j.entry = p.entry AND j.position < %(first)s
JOIN ledger.event e ON e.stream = w.stream AND e.version = p.version AND e.id = p.id AND e.source = p.source
LEFT JOIN ledger.cancellation c ON c.id = w.id AND c.source = w.source
LEFT JOIN ledger.journal cj ON cj.entry = c.entry AND cj.position < %(first)s
WHERE e.type = 'GoodsPurchased'
"""


def entries(conn: Connection, first: int, last: int) -> list[EntryWithGaps]:
    """The entries from the position `first` on that are compared at a time, none beyond `last`."""
    rows = conn.execute(ENTRIES, (first, last, RANGE_ENTRIES, RANGE_DELIVERIES)).fetchall()
    found = [
        EntryWithGaps(
            position, number, Lane(topic, partition), first_offset, next_offset,
            dict(zip(COUNTED, counts, strict=True)), skipped, [],
        )
        for position, number, topic, partition, first_offset, next_offset, *counts, skipped in rows
    ]  # fmt: skip
    by_position = {entry.position: entry for entry in found}
    for position, *gap in conn.execute(GAPS, _ranges(entry for entry in found if entry.skipped)):
        by_position[position].gaps.append((gap[0], gap[1]))
    return found


def recorded(conn: Connection, compared: list[EntryWithGaps], deliveries: list[Delivery]) -> RecordedEntries:
    """What is recorded of these entries and deliveries."""
    requests = [d.content for d in deliveries if isinstance(d.content, Request)]
    register = execute(conn, processed_message.find_statement([request.key for request in requests]))
    numbers = [entry.number for entry in compared]
    bounds = min(numbers), max(numbers), compared[0].position, compared[-1].position
    events = conn.execute(EVENTS, bounds)
    return RecordedEntries(
        register,
        dict(conn.execute(POSITIONS, (list({row.entry for row in register.values()}),)).fetchall()),
        {(position, MessageKey(source, id_)): (type_, text) for position, source, id_, type_, text in events},
        _purchases_before(conn, compared[0].position, requests),
    )


def _ranges(compared: Iterable[EntryWithGaps]) -> tuple[list[object], ...]:
    rows = [(e.position, *e.lane, e.first_offset, e.next_offset) for e in compared]
    return tuple([list(column) for column in zip(*rows, strict=True)] or [[], [], [], [], []])


def _purchases_before(
    conn: Connection, first: int, requests: Iterable[Request]
) -> dict[MessageKey, Purchase]:
    """The purchases that the requests want to cancel, as they were before the position `first`."""
    wanted = {
        (purchase_key(r.command, r.key), r.command.goods_id)
        for r in requests
        if isinstance(r.command, CancelPurchaseStruct)
    }
    if not wanted:
        return {}
    columns = {
        "sources": [key.source for key, _ in wanted],
        "ids": [key.id for key, _ in wanted],
        "goods": [goods_id for _, goods_id in wanted],
        "streams": [goods_stream(goods_id) for _, goods_id in wanted],
    }
    rows = conn.execute(PURCHASES, columns | {"first": first})
    return {MessageKey(source, id_): Purchase(*purchase) for source, id_, *purchase in rows}
