"""Is each of Kafka's records accounted for once, as what it is? Compared record by record, lane by lane."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ledger.domain.commands import MessageKey
from ledger.domain.delivery import Bad, Delivery, Lane, Record, Request
from ledger.domain.outcome import Outcome
from ledger.store import conflict, dead_letter, gap, journal, processed_message
from ledger.store.database import Connection
from ledger.store.processed_message import Processed
from ledger.store.together import ask

TOPIC_OFFSETS = 10_000
"""About how many of a lane's offsets are compared at a time."""

Deliveries = Callable[[Lane, int, int], Iterator[Delivery]]
"""What Kafka still has of a lane's offsets from the first to before the second, in order."""


class Compared(NamedTuple):
    """How many records were compared, how many Kafka has no more, and the first difference."""

    records: int
    gone: int
    difference: str | None = None


def compare(
    conn: Connection, since: int, last: int, deliveries: Deliveries, progress: Callable[[int, int], None]
) -> Compared:
    """Each record that Kafka still has is accounted for by the entries behind `since` up to `last`."""
    records = gone = 0
    for lane, first, end in journal.lane_ranges(conn, since, last):
        offset = first if since else 0
        stream = _Records(deliveries(lane, offset, end))
        kept_from = stream.next_offset(end)
        while entries := journal.lane_rows(conn, lane, offset, offset + TOPIC_OFFSETS, last):
            offset = entries[-1].next_offset
            taken = stream.below(offset)
            missing, difference = _compare(conn, lane, entries, taken, kept_from)
            records, gone = records + len(taken), gone + missing
            if difference:
                return Compared(records, gone, difference)
            progress(offset, end)
        if offset != end:
            return Compared(records, gone, f"{lane}: the entries that follow offset {offset} are missing")
    return Compared(records, gone)


class _Records:
    """A lane's records, taken piece by piece."""

    def __init__(self, records: Iterator[Delivery]) -> None:
        self._records = records
        self._next = next(records, None)

    def next_offset(self, end: int) -> int:
        """The offset of the next record, or `end` if there is none."""
        return self._next.offset if self._next else end

    def below(self, offset: int) -> list[Delivery]:
        """Take the records before the offset."""
        taken = []
        while self._next and self._next.offset < offset:
            taken.append(self._next)
            self._next = next(self._records, None)
        return taken


class _Stored(NamedTuple):
    """What the ledger has on a range of a lane: by offset, and by the keys that occur in it."""

    dead: dict[int, Record]
    conflicts: dict[int, conflict.Second]
    known: dict[MessageKey, Processed]


def _compare(
    conn: Connection, lane: Lane, entries: list[journal.Row], records: list[Delivery], kept_from: int
) -> tuple[int, str | None]:
    """How many of the entries' records Kafka doesn't have any more, and the first difference.

    Retention deletes from the front: at `kept_from` and above, every record must be there.
    """
    first, end = entries[0].first_offset, entries[-1].next_offset
    chosen = gap.chosen(conn, lane, first, end)
    records = [d for d in records if not any(d.offset in offsets for offsets in chosen)]
    keys = [d.content.key for d in records if isinstance(d.content, Request)]
    stored = _Stored(
        dead_letter.in_range(conn, lane, first, end),
        conflict.in_range(conn, lane, first, end),
        ask(conn, processed_message.find(keys)),
    )
    starts = [entry.first_offset for entry in entries]
    tallies: list[Counter[Outcome]] = [Counter() for _ in entries]
    for delivery in records:
        number = bisect_right(starts, delivery.offset) - 1
        outcome, difference = _outcome(delivery, entries[number], stored)
        if difference:
            return 0, f"{lane} offset {delivery.offset}: {difference}"
        tallies[number][outcome] += 1
    missing = 0
    for entry, tally in zip(entries, tallies, strict=True):
        lacking = {outcome: number - tally[outcome] for outcome, number in entry.counts.items()}
        if min(lacking.values()) < 0 or (entry.first_offset >= kept_from and any(lacking.values())):
            found = ", ".join(f"{tally[outcome]} {outcome}" for outcome in Outcome)
            told = ", ".join(f"{number} {outcome}" for outcome, number in entry.counts.items())
            return missing, f"{lane}: position {entry.position} counts {told}; Kafka's records are {found}"
        missing += sum(lacking.values())
    return missing, None


def _outcome(delivery: Delivery, entry: journal.Row, stored: _Stored) -> tuple[Outcome, str | None]:
    """What became of the record according to the ledger, and how that differs from the record."""
    offset, content, record = delivery.offset, delivery.content, delivery.record
    if offset in stored.dead:
        same = stored.dead[offset] == record
        return Outcome.DEAD, None if same else "the dead letter has other bytes than the record"
    if isinstance(content, Bad):
        return Outcome.DEAD, "the record is no command, but there is no dead letter"
    if offset in stored.conflicts:
        same = stored.conflicts[offset] == (content.key, content.fingerprint, record.value)
        return Outcome.CONFLICT, None if same else "the conflict has another key or payload than the record"
    first = stored.known.get(content.key)
    if first is None:
        return Outcome.APPLIED, f"message {' '.join(content.key)} is not registered"
    if first.fingerprint != content.fingerprint:
        return (
            Outcome.CONFLICT,
            f"message {' '.join(content.key)} has another payload, but there is no conflict",
        )
    here = (first.entry, first.offset) == (entry.entry, offset)
    return first.outcome if here else Outcome.DUPLICATE, None
