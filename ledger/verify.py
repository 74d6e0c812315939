"""Is the ledger what it promises? Every rule over the tables, the chain, and Kafka's records one by one.

Reads only, in short transactions that are bounded by the head as it was at the start, so it may run beside
the workers at any time. The rules over the tables are in `ledger.store.check`; here is what takes more than
a statement: the digests of the rows as they were written, and the comparison with the topic.
"""

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from ledger.domain.commands import MessageKey
from ledger.domain.delivery import Bad, Delivery, Lane, Record, Request
from ledger.domain.outcome import Outcome
from ledger.errors import Park
from ledger.store import (
    cancellation,
    check,
    conflict,
    dead_letter,
    event,
    gap,
    journal,
    processed_message,
)
from ledger.store.check import Page, Rule
from ledger.store.copy import receive
from ledger.store.database import Budgets, Connection, faults
from ledger.store.processed_message import Processed

BUDGETS = Budgets(statement_timeout_ms=0, transaction_timeout_ms=0)
"""For the connection of `verify`: a fold over all events takes as long as it takes."""

TOPIC_OFFSETS = 10_000
"""About how many of a lane's offsets are compared at a time."""

Deliveries = Callable[[Lane, int, int], Iterator[Delivery]]
"""What Kafka still has of a lane's offsets from the first to before the second, in order."""
Progress = Callable[[str, int, int], None]
"""Told a check's name, the position or offset that it has reached, and the one where it ends."""

# The tables that a digest covers, in its order.
LINES = (
    processed_message.LINES,
    event.LINES,
    cancellation.LINES,
    dead_letter.LINES,
    conflict.LINES,
    gap.LINES,
)


@dataclass(frozen=True)
class Check:
    """One rule: `ok`, or the first `difference`; `figure` says how much was looked at, `seconds` how long."""

    name: str
    ok: bool
    figure: str
    seconds: float
    difference: str | None


class _Found(NamedTuple):
    """How much was looked at, in words, and the first difference."""

    figure: str
    difference: str | None = None


def verify(
    conn: Connection, *, deliveries: Deliveries | None = None, on_progress: Progress | None = None
) -> Iterator[Check]:
    """Check rule after rule, and yield what was found. The connection must be in autocommit (see `BUDGETS`).

    With `deliveries`, the last check goes through the topic record by record.
    """
    progress = on_progress or (lambda *_: None)
    with faults():
        check.settle(conn)
        tip = journal.tip(conn)
        pages = check.pages(conn, tip.position)
    for rule in check.RULES:
        yield _timed(rule.name, partial(_rule, conn, rule, pages, progress))
    yield _timed("chain", partial(_chain, conn, tip, pages, progress))
    if deliveries:
        yield _timed("topic", partial(_topic, conn, tip, deliveries, progress))


def _timed(name: str, look: Callable[[], _Found]) -> Check:
    start = time.perf_counter()
    try:
        with faults():
            figure, difference = look()
    except Park as error:  # a value that was tampered with may be no number, no JSON object, no text
        figure, difference = "a row can't be read", error.message
    return Check(name, difference is None, figure, time.perf_counter() - start, difference)


def _rule(conn: Connection, rule: Rule, pages: list[Page], progress: Progress) -> _Found:
    seen = 0
    for page in pages if rule.paged else [None]:
        finding = check.run(conn, rule.statement, page)
        seen += finding.seen
        if finding.difference:
            return _Found(f"{seen:,} {rule.sees}", finding.difference)
        if page:
            progress(rule.name, page.last, pages[-1].last)
    return _Found(f"{seen:,} {rule.sees}")


def _chain(conn: Connection, tip: journal.Tip, pages: list[Page], progress: Progress) -> _Found:
    """Each entry's stored rows give the digest that was sealed, and the digests give the head's hash."""
    seen, previous = 0, journal.GENESIS
    for page in pages:
        tables = [receive(conn, lines, page.first_entry, page.last_entry) for lines in LINES]
        for row in journal.rows(conn, page.first, page.last):
            rows = [table.get(row.entry, []) for table in tables]
            seen += sum(map(len, rows))
            if journal.stored_digest(row, rows) != row.digest:
                return _Found(
                    f"{seen:,} rows", f"position {row.position}: its rows are not those that were sealed"
                )
            previous = journal.chain(previous, row.digest)
            if previous != row.hash:
                return _Found(
                    f"{seen:,} rows", f"position {row.position}: its hash does not continue the chain"
                )
        progress("chain", page.last, tip.position)
    broken = None if previous == tip.hash else "the head's hash is not the last one of the chain"
    return _Found(f"{seen:,} rows", broken)


def _topic(conn: Connection, tip: journal.Tip, deliveries: Deliveries, progress: Progress) -> _Found:
    """Each record that Kafka still has is accounted for once, as what it is."""
    records = gone = 0
    for lane, end in journal.lane_ends(conn, tip.position):
        stream = _Records(deliveries(lane, 0, end))
        offset, kept_from = 0, stream.next_offset(end)
        while entries := journal.lane_rows(conn, lane, offset, offset + TOPIC_OFFSETS, tip.position):
            offset = entries[-1].next_offset
            taken = stream.below(offset)
            missing, difference = _compare(conn, lane, entries, taken, kept_from)
            records, gone = records + len(taken), gone + missing
            if difference:
                return _Found(_records(records, gone), difference)
            progress("topic", offset, end)
        if offset != end:
            return _Found(
                _records(records, gone), f"{lane}: the entries that follow offset {offset} are missing"
            )
    return _Found(_records(records, gone))


def _records(records: int, gone: int) -> str:
    return f"{records:,} records, {gone:,} no longer in Kafka"


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
        processed_message.find(conn, keys),
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
    offset, content, record = delivery
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
