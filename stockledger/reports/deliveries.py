"""Every delivery of an id, with what became of it: what the ledger knows, beside what Kafka still has.

The ledger remembers the delivery that decided, conflicts and dead letters; repeats are in the topic alone.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from consumer import admin, known_log
from ledger.answers import RecordedOutcome
from ledger.api import Ledger
from ledger.domain.delivery import Bad, Delivery, Lane, Request
from ledger.errors import LedgerError
from ledger.store.tables import journal
from ledger.store.tables.dead_letter import DeadLetter
from stockledger.reports.dead_letters import claims, status_of
from stockledger.settings import Settings
from stockledger.wiring import ledger_database


@dataclass(frozen=True)
class Seen:
    """One delivery: where, when it was published if Kafka says so, what became of it, and why."""

    lane: Lane
    offset: int
    what: str
    detail: str
    source: str | None = None
    published_at: datetime | None = None
    in_kafka: bool = False

    def as_json(self) -> dict[str, Any]:
        """As `--json` shows it."""
        return {
            **self.lane._asdict(), "offset": self.offset, "became": self.what, "source": self.source,
            "published_at": self.published_at, "in_kafka": self.in_kafka, "detail": self.detail,
        }  # fmt: skip


def known(book: Ledger, id_: str, outcomes: list[RecordedOutcome], letters: list[DeadLetter]) -> list[Seen]:
    """The deliveries that the ledger itself remembers."""
    found = []
    for each in outcomes:
        result = each.reason or f"{each.stream} version {each.version}"
        found.append(Seen(each.lane, each.offset, each.outcome.value, result, each.source))
        for again in each.conflicts:
            found.append(Seen(again.lane, again.offset, "conflict", "with another payload", each.source))
    for letter in letters:
        why = f"{status_of(book, letter)}: {letter.code}: {letter.detail}"
        found.append(Seen(letter.lane, letter.offset, "dead", why, claims(letter.record)[0]))
    return found


def every(
    settings: Settings,
    id_: str,
    remembered: list[Seen],
    progress: Callable[[str, int, int], None],
    since: int = 0,
) -> tuple[list[Seen], LedgerError | None]:
    """All of them, lane by lane in offset order; and why Kafka's part is missing, where it is.

    Of what was decided before the position `since`, only those that the ledger remembers.
    """
    found = {(each.lane, each.offset): each for each in remembered}
    decided = {each.source: each for each in remembered if each.what in ("applied", "rejected")}
    error = None
    try:
        for lane, next_offset, delivery in _of_topics(settings, id_, progress, since, remembered):
            seen = found.get((lane, delivery.offset)) or _judged(lane, next_offset, delivery, decided)
            published = datetime.fromtimestamp(delivery.mark.timestamp_ms / 1000, UTC)
            found[lane, delivery.offset] = replace(seen, published_at=published, in_kafka=True)
    except LedgerError as fault:
        error = fault
    return [found[place] for place in sorted(found)], error


def _of_topics(
    settings: Settings,
    id_: str,
    progress: Callable[[str, int, int], None],
    since: int,
    remembered: Iterable[Seen],
) -> Iterator[tuple[Lane, int, Delivery]]:
    """Deliveries of the id in the ledger's own logs, each with the offset up to which its lane is applied."""
    kafka = settings.kafka_properties()
    with ledger_database(settings, "outcome") as conn:
        known = known_log.read(conn)
        begun = {
            lane: first for lane, first, _ in journal.lane_ranges(conn, since - 1, journal.tip(conn).position)
        }
    for each in remembered:
        begun[each.lane] = min(each.offset, begun.get(each.lane, each.offset))
    records = known_log.KnownRecords(kafka, known)
    rows = [row for row in known.rows if row.lane not in records.left_behind]
    marks = admin.watermarks(kafka, [row.lane for row in rows]).all()
    for row in rows:
        first, _, end = marks[row.lane]
        if since:
            first = max(first, begun.get(row.lane, row.next_offset))
        for delivery in records(row.lane, first, end):
            progress(str(row.lane), delivery.offset - first, end - first)
            if _is_of(delivery, id_):
                yield row.lane, row.next_offset, delivery


def _is_of(delivery: Delivery, id_: str) -> bool:
    content = delivery.content
    return content.key.id == id_ if isinstance(content, Request) else claims(delivery.record)[1] == id_


def _judged(lane: Lane, next_offset: int, delivery: Delivery, decided: Mapping[str | None, Seen]) -> Seen:
    """A delivery that the ledger keeps no row of: a repeat, or not applied yet."""
    content = delivery.content
    if delivery.offset >= next_offset:
        return Seen(lane, delivery.offset, "waiting", "not applied yet", claims(delivery.record)[0])
    if isinstance(content, Bad):  # in a gap that somebody accepted, or before the start
        return Seen(lane, delivery.offset, "skipped", content.code)
    first = decided.get(content.key.source)
    if first is None:
        return Seen(lane, delivery.offset, "skipped", "in a gap", content.key.source)
    return Seen(lane, delivery.offset, "duplicate", f"of {first.lane}@{first.offset}", content.key.source)
