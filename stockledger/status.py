"""How things stand: what the ledger has applied, beside what Kafka has. Changes nothing, joins no group."""

from dataclasses import dataclass
from typing import Any

from consumer import topic
from ledger.api import Ledger, LedgerStatus
from ledger.domain.delivery import Lane
from ledger.errors import LedgerError
from stockledger.settings import Settings

ANSWER_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class LaneStatus:
    """One lane. None is what isn't known: the ledger hasn't met the lane, or no broker answers."""

    lane: Lane
    next_offset: int | None
    log_end_offset: int | None
    lag: int | None
    owner: str | None


@dataclass(frozen=True)
class Status:
    """The whole picture; with a `fault`, what Kafka would have said is missing."""

    ledger: LedgerStatus
    lanes: list[LaneStatus]
    fault: LedgerError | None

    @property
    def lag(self) -> int | None:
        """Records of the topic that aren't applied yet; None where Kafka wasn't asked or didn't answer."""
        return None if self.fault else sum(lane.lag or 0 for lane in self.lanes)

    def as_json(self) -> dict[str, Any]:
        """The object of `status --json`."""
        return {
            "position": self.ledger.position,
            "lag": self.lag,
            "deliveries": self.ledger.deliveries,
            "rejected": self.ledger.rejected,
            "dead_letters": self.ledger.dead_letters,
            "lanes": [
                {
                    "topic": lane.lane.topic,
                    "partition": lane.lane.partition,
                    "next_offset": lane.next_offset,
                    "log_end_offset": lane.log_end_offset,
                    "lag": lane.lag,
                    "owner": lane.owner,
                }
                for lane in self.lanes
            ],
            "projections": [vars(each) for each in self.ledger.projections],
        }


def read(ledger: Ledger, settings: Settings) -> Status:
    """Ask both; Kafka's silence is a part of the answer. Raises what `Ledger.status` raises."""
    stored = ledger.status()
    try:
        marks = _watermarks(settings)
    except LedgerError as error:
        return Status(stored, _lanes(stored, {}), error)
    return Status(stored, _lanes(stored, marks), None)


def _watermarks(settings: Settings) -> dict[Lane, tuple[int, int]]:
    kafka = settings.kafka_properties()
    facts = topic.inspect(kafka, settings.topic, ANSWER_TIMEOUT_S)
    marks = topic.watermarks(kafka, facts.name, facts.partitions)
    return {Lane(facts.name, partition): found for partition, found in marks.items()}


def _lanes(stored: LedgerStatus, marks: dict[Lane, tuple[int, int]]) -> list[LaneStatus]:
    known = {Lane(row.topic, row.partition): row for row in stored.lanes}
    found = []
    for lane in sorted(known.keys() | marks.keys()):
        row = known.get(lane)
        first, end = marks.get(lane, (None, None))
        begin = row.next_offset if row else first
        lag = end - begin if end is not None and begin is not None else None
        owner = f"{row.owner_host}:{row.owner_pid}" if row and row.owner_host else None
        found.append(LaneStatus(lane, row.next_offset if row else None, end, lag, owner))
    return found
