"""How things stand: what the ledger has applied, beside what Kafka has. Changes nothing, joins no group."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from consumer import hidden
from consumer.admin import Marks, TopicFacts
from consumer.hidden import Hidden
from consumer.known_log import KnownLogs
from ledger.api import Ledger, LedgerStatus
from ledger.domain.delivery import Lane
from ledger.errors import LedgerError, TopicReplaced, TopicUnfit
from ledger.store.tables.lane import LaneRow
from stockledger.reports import relays, standstill
from stockledger.reports.relays import RelayStatus
from stockledger.reports.standstill import Still
from stockledger.settings import Settings

ANSWER_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class LaneStatus:
    """One lane. None is what isn't known, for the reason `why`, or because the ledger hasn't met the lane."""

    lane: Lane
    next_offset: int | None
    log_end_offset: int | None
    lag: int | None
    owner: str | None
    why: str | None = None
    last_moved_at: datetime | None = None
    took_s: float | None = None
    """Of its last record, from its time in Kafka to the commit."""


@dataclass(frozen=True)
class Status:
    """The whole picture; with a `fault`, what Kafka would have said is missing.

    `hidden` is the part of the lag that waits after open transactions, `still` the lanes that nobody applies.
    """

    ledger: LedgerStatus
    lanes: list[LaneStatus]
    fault: LedgerError | None
    hidden: list[Hidden] = field(default_factory=list)
    still: list[Still] = field(default_factory=list)
    relays: list[RelayStatus] = field(default_factory=list)

    @property
    def lag(self) -> int | None:
        """Records that aren't applied yet, in all topics of the ledger and the settings.

        None where that isn't known of each lane of the topics that the settings name.
        """
        return None if self.fault else sum(lane.lag or 0 for lane in self.lanes)

    def as_json(self) -> dict[str, Any]:
        """The object of `status --json`."""
        return {
            "position": self.ledger.position,
            "token": self.ledger.token,
            "lag": self.lag,
            "deliveries": self.ledger.deliveries,
            "rejections": self.ledger.rejected,
            "letters": self.ledger.dead_letters,
            "lanes": [
                {
                    "topic": lane.lane.topic,
                    "partition": lane.lane.partition,
                    "next_offset": lane.next_offset,
                    "log_end_offset": lane.log_end_offset,
                    "lag": lane.lag,
                    "owner": lane.owner,
                    "last_moved_at": lane.last_moved_at,
                    "took_s": lane.took_s,
                    "why": lane.why,
                }
                for lane in self.lanes
            ],
            "hidden": [each.as_json() for each in self.hidden],
            "several_lanes": {
                "goods": self.ledger.several_lanes.goods,
                "of": self.ledger.several_lanes.of,
                "entries": self.ledger.several_lanes.entries,
                "examples": [
                    {"goods_id": goods_id, "lanes": [lane._asdict() for lane in lanes]}
                    for goods_id, lanes in self.ledger.several_lanes.examples
                ],
            },
            "still": [each.as_json() for each in self.still],
            "relays": [each.as_json() for each in self.relays],
            "connected": self.ledger.sessions,
            "projections": [vars(each) for each in self.ledger.projections],
        }


def read(ledger: Ledger, settings: Settings, *, counts: bool = True) -> Status:
    """Ask both; Kafka's silence is a part of the answer. Raises what `Ledger.status` raises.

    The ledger's lanes in topics that the settings don't name are looked at, too: perhaps nobody applies them.
    What is wrong with those is shown, and is no fault. Without `counts` relays aren't looked for either.
    """
    stored = ledger.status(counts=counts)
    known = KnownLogs(stored.lanes, stored.cluster_id)
    topics: list[TopicFacts] = []
    gone: dict[str, LedgerError] = {}
    try:
        kafka = settings.kafka_properties()
        for name in dict.fromkeys((*settings.topics, *(row.topic for row in stored.lanes))):
            try:
                topics.append(known.inspect(kafka, name, ANSWER_TIMEOUT_S))
            except (TopicReplaced, TopicUnfit) as error:
                gone[name] = error
        marks, wrong = known.compare(kafka, topics)
        waits = hidden.hidden(kafka, marks.known)
        found = relays.find(ledger, kafka, stored.source) if counts else []
    except LedgerError as error:
        return Status(stored, _lanes(stored, {}, {}), error)
    faults = {row.lane: gone[row.topic] for row in stored.lanes if row.topic in gone}
    faults = {**faults, **wrong, **marks.silent}
    named = [gone[name] for name in settings.topics if name in gone]
    named += [fault for lane, fault in faults.items() if lane.topic in settings.topics]
    still = standstill.find(stored.lanes, marks.known, again=lambda: ledger.status(counts=False).lanes)
    return Status(stored, _lanes(stored, marks.known, faults), next(iter(named), None), waits, still, found)


def _lanes(
    stored: LedgerStatus, marks: Mapping[Lane, Marks], faults: Mapping[Lane, LedgerError]
) -> list[LaneStatus]:
    known = {row.lane: row for row in stored.lanes}
    found = []
    for lane in sorted(known.keys() | marks.keys() | faults.keys()):
        row, there, fault = known.get(lane), marks.get(lane), faults.get(lane)
        at = row.next_offset if row else None
        owner, moved = (standstill.owner(row), row.last_moved_at) if row else (None, None)
        lag = there.end - (there.first if at is None else at) if there and not fault else None
        why = fault.message if fault else None
        found.append(LaneStatus(lane, at, there and there.end, lag, owner, why, moved, _took_s(row)))
    return found


def _took_s(row: LaneRow | None) -> float | None:
    if row is None or row.last_moved_at is None or row.last_timestamp_ms is None:
        return None
    return row.last_moved_at.timestamp() - row.last_timestamp_ms / 1000
