"""Is each of Kafka's records accounted for once, as what it is? Compared record by record, lane by lane."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ledger.domain.commands import MessageKey
from ledger.domain.delivery import Bad, Deliveries, Delivery, Gap, Lane, Record, Request
from ledger.domain.outcome import Outcome
from ledger.store.connection.database import Connection
from ledger.store.connection.roundtrip import execute
from ledger.store.tables import conflict, dead_letter, gap, journal, processed_message
from ledger.store.tables.journal import StoredEntry
from ledger.store.tables.processed_message import Processed

TOPIC_OFFSETS = 10_000
"""A lane's offsets are compared about so many at a time."""

TOPIC_BYTES = 8_000_000
"""A piece holds about so many bytes of records at most."""


class Compared(NamedTuple):
    """How many records were compared, how many Kafka has no more, how many `--start latest` left out; and the
    first difference."""

    records: int
    gone: int
    skipped: int
    difference: str | None = None


def check_topic(
    conn: Connection, since: int, last: int, deliveries: Deliveries, progress: Callable[[int, int], None]
) -> Compared:
    """Each record that Kafka still has is accounted for by the entries after `since` up to `last`."""
    records = gone = skipped = 0
    for lane, first, end in journal.lane_ranges(conn, since, last):
        offset = first if since else 0
        stream = _OneLane(deliveries(lane, offset, end))
        kept_from = stream.next_offset(end)
        while entries := journal.lane_rows(conn, lane, offset, offset + TOPIC_OFFSETS, last):
            for some, taken in stream.batches(entries):
                offset = some[-1].next_offset
                missing, left_out, difference = _check_entries(conn, lane, some, taken, kept_from)
                records, gone, skipped = records + len(taken) - left_out, gone + missing, skipped + left_out
                if difference:
                    return Compared(records, gone, skipped, difference)
                progress(offset, end)
        if offset != end:
            return Compared(
                records, gone, skipped, f"{lane}: the entries that follow offset {offset} are missing"
            )
    return Compared(records, gone, skipped)


class _OneLane:
    """A lane's records, taken piece by piece."""

    def __init__(self, records: Iterator[Delivery]) -> None:
        self._records = records
        self._next = next(records, None)

    def next_offset(self, end: int) -> int:
        """The offset of the next record, or `end` if there is none."""
        return self._next.offset if self._next else end

    def batches(self, entries: list[StoredEntry]) -> Iterator[tuple[list[StoredEntry], list[Delivery]]]:
        """Consecutive entries with their records, as many at a time as fit: each is a batch, which did."""
        some: list[StoredEntry] = []
        taken: list[Delivery] = []
        size = 0
        for entry in entries:
            records = self._before(entry.next_offset)
            some.append(entry)
            taken += records
            size += sum(len(record.packed) for record in records)
            if size > TOPIC_BYTES:
                yield some, taken
                some, taken, size = [], [], 0
        if some:
            yield some, taken

    def _before(self, offset: int) -> list[Delivery]:
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


def _check_entries(
    conn: Connection, lane: Lane, entries: list[StoredEntry], records: list[Delivery], kept_from: int
) -> tuple[int, int, str | None]:
    """Returns how many of the records Kafka no longer has, how many were left out, and the first difference.

    Retention deletes from the front: at `kept_from` and above, every record must be there.
    """
    first, end = entries[0].first_offset, entries[-1].next_offset
    gaps = gap.in_range(conn, lane, first, end)
    skipped = {d.offset: over for d in records if (over := _over(gaps, d.offset))}
    for offset, over in skipped.items():
        if over.cause != gap.BEFORE_START:
            by = over.accepted_by or "nobody"
            words = f"a gap ({over.cause} by {by}) skipped it, but there is a record"
            return 0, 0, f"{lane} offset {offset}: {words}"
    records = [d for d in records if d.offset not in skipped]
    keys = [d.content.key for d in records if isinstance(d.content, Request)]
    stored = _Stored(
        dead_letter.in_range(conn, lane, first, end),
        conflict.in_range(conn, lane, first, end),
        execute(conn, processed_message.find_statement(keys)),
    )
    starts = [entry.first_offset for entry in entries]
    tallies: list[Counter[Outcome]] = [Counter() for _ in entries]
    for delivery in records:
        number = bisect_right(starts, delivery.offset) - 1
        outcome, difference = _outcome(delivery, entries[number], stored)
        if difference:
            return 0, 0, f"{lane} offset {delivery.offset}: {difference}"
        tallies[number][outcome] += 1
    missing = 0
    for entry, tally in zip(entries, tallies, strict=True):
        lacking = {outcome: number - tally[outcome] for outcome, number in entry.counts.items()}
        if min(lacking.values()) < 0 or (entry.first_offset >= kept_from and any(lacking.values())):
            found = ", ".join(f"{tally[outcome]} {outcome}" for outcome in Outcome)
            told = ", ".join(f"{number} {outcome}" for outcome, number in entry.counts.items())
            return (
                missing,
                len(skipped),
                f"{lane}: position {entry.position} counts {told}; Kafka's records are {found}",
            )
        missing += sum(lacking.values())
    return missing, len(skipped), None


def _over(gaps: list[Gap], offset: int) -> Gap | None:
    at = bisect_right(gaps, offset, key=lambda gap: gap.first_offset) - 1
    return gaps[at] if at >= 0 and offset < gaps[at].next_offset else None


def _outcome(delivery: Delivery, entry: StoredEntry, stored: _Stored) -> tuple[Outcome, str | None]:
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
