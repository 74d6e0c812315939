"""The doctor on lanes: whether Kafka has what is read next, keeps it long enough, and somebody reads it."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

from consumer import hidden, known_log, records
from consumer.admin import Marks, TopicFacts
from ledger.domain.delivery import Lane
from ledger.errors import Retry
from ledger.figures import counted
from ledger.shell import command
from ledger.store.connection.database import Connection
from ledger.store.tables import lane
from ledger.store.tables.lane import LaneRow
from stockledger.doctor.finding import FAIL, OK, WARN, Finding
from stockledger.reports import standstill
from stockledger.settings import Settings

KEPT_SHARE = 0.5
"""A record that waits for longer than so much of its retention is in danger."""


def examine(conn: Connection, settings: Settings, topics: list[TopicFacts]) -> list[Finding]:
    """Whether Kafka still has what the ledger reads next, and is the log that it has read so far."""
    known = known_log.read(conn)
    rows = [row for facts in topics for row in known.lanes_of(facts)]
    if not rows:
        return []
    kafka = settings.kafka_properties()
    marks, wrong = known.compare(kafka, topics)
    faults = [*wrong.values(), *marks.silent.values()]
    found = [
        *(Finding(WARN, "lanes", str(each), command("run --topic", each.lane.topic))
          for each in standstill.find(rows, marks.known, again=lambda: lane.read_all(conn))),
        *(Finding(WARN, "transactions", str(each), each.remedy)
          for each in hidden.hidden(kafka, marks.known)),
        *(Finding(FAIL, "lanes", f"{each.code}: {each.message}", each.remedy, isinstance(each, Retry))
          for each in faults),
    ]  # fmt: skip
    lag = sum(each.end for each in marks.known.values()) - sum(row.next_offset for row in rows)
    found += _retention(kafka, topics, rows, marks.known)
    return found or [Finding(OK, "lanes", f"{counted(len(rows), 'lane')}, {counted(lag, 'record')} to read")]


def _retention(
    kafka: Mapping[str, str], topics: list[TopicFacts], rows: list[LaneRow], marks: Mapping[Lane, Marks]
) -> Iterator[Finding]:
    """Is what isn't applied yet about to be deleted?"""
    kept = {
        facts.name: timedelta(milliseconds=facts.retention_ms) for facts in topics if facts.retention_ms > 0
    }
    waits = {
        row.lane: row.next_offset
        for row in rows
        if row.topic in kept and row.lane in marks and row.next_offset < marks[row.lane].end
    }
    for place, made_at in sorted(records.times(kafka, waits).items()):
        age, limit = datetime.now(UTC) - made_at, kept[place.topic]
        if age > limit * KEPT_SHARE:
            found = (
                f"the next record of {place} is {_days(age)} days old, and Kafka deletes it at {_days(limit)}"
            )
            yield Finding(WARN, "retention", found, command("run --topic", place.topic))


def _days(time: timedelta) -> str:
    return f"{time / timedelta(days=1):.1f}"
