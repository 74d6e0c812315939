"""Records that an open producer transaction hides: acknowledged, perhaps, and read by nobody yet.

A reader of committed records stops where the earliest transaction that is still open begins. What stands
after that point waits with it, whoever wrote it; so there is more to apply than the last stable offset tells.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from consumer import records
from consumer.admin import Marks, watermarks
from consumer.clients import KafkaProperties
from ledger.domain.delivery import Lane
from ledger.errors import OpenTransaction
from ledger.figures import counted

BOOTSTRAP = "bootstrap.servers"


@dataclass(frozen=True)
class Hidden:
    """The offsets of a lane from the first record of an open transaction to the log's end.

    `since` is that record's time, by its producer's clock; None where Kafka didn't hand it out in time.
    """

    lane: Lane
    first_offset: int
    next_offset: int
    since: datetime | None
    remedy: str

    @property
    def records(self) -> int:
        """How many offsets they are."""
        return self.next_offset - self.first_offset

    def as_json(self) -> dict[str, Any]:
        """As `--json` shows it."""
        offsets = {"first_offset": self.first_offset, "records": self.records}
        return {**self.lane._asdict(), **offsets, "since": self.since}

    def __str__(self) -> str:
        age_s = (datetime.now(UTC) - self.since).total_seconds() if self.since else None
        open_for = "" if age_s is None else f", open for {max(age_s, 0):.0f} s"
        return (
            f"{counted(self.records, 'record')} of {self.lane} wait after a producer's open transaction "
            f"that began at offset {self.first_offset}{open_for}"
        )


def hidden(kafka: KafkaProperties, marks: Mapping[Lane, Marks]) -> list[Hidden]:
    """What open transactions hide of each lane. Raises BrokerUnavailable or TopicUnfit."""
    starts = {lane: at.stable for lane, at in marks.items() if at.stable < at.end}
    times = records.times(kafka, starts)
    return [
        Hidden(lane, start, marks[lane].end, times.get(lane), _remedy(kafka, lane, start))
        for lane, start in starts.items()
    ]


def last_value(kafka: KafkaProperties, lane: Lane) -> bytes | None:
    """The value of the lane's last record; None if there is none.

    Raises OpenTransaction where a transaction hides the end of the log, BrokerUnavailable or TopicUnfit.
    """
    marks = watermarks(kafka, [lane]).all()
    if found := hidden(kafka, marks):
        raise OpenTransaction(first_of(found), remedy=found[0].remedy)
    return records.last_committed(kafka, lane, marks[lane])


def _remedy(kafka: KafkaProperties, lane: Lane, start: int) -> str:
    """What a person can do; while its producer lives, its `transaction.timeout.ms` ends it at last."""
    return (
        "let its producer commit or abort, or abort it: kafka-transactions.sh --bootstrap-server "
        f"{kafka.get(BOOTSTRAP, 'localhost:9092')} abort --topic {lane.topic} "
        f"--partition {lane.partition} --start-offset {start}"
    )


def first_of(found: list[Hidden]) -> str:
    """All of them in a sentence: the one that is open longest, and how many more there are."""
    oldest = min(found, key=lambda each: each.since or datetime.now(UTC))
    return f"{oldest}" + (f" (and so do {len(found) - 1} more lanes)" if len(found) > 1 else "")
