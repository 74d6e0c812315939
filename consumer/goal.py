"""The end that a run is to reach, and how far it is: `run --until-caught-up`.

The end is that of the log as of the start, and a lane has reached it once all that is below is applied, by us
or by others. Records that an open transaction hides count, so a run that can't read them isn't caught up.
"""

import time
from collections.abc import Collection, Mapping
from typing import Any

from consumer import hidden
from consumer.admin import Watermarks, watermarks
from consumer.clients import KafkaProperties
from consumer.lane_queue import LaneQueue
from ledger.domain.delivery import Lane
from ledger.errors import BrokerUnavailable, GroupUnavailable, LedgerError, OpenTransaction, Unavailable
from ledger.figures import counted
from ledger.store.connection.database import Connection
from ledger.store.tables import lane

LOOK_INTERVAL_S = 1.0
AIM_INTERVAL_S = 5.0


class Goal:
    """Where the logs end that are to be applied, and where the ledger is."""

    def __init__(self, topics: Collection[str]) -> None:
        self.reached = False
        self._topics = topics
        self._ends: dict[Lane, int] = {}
        self._silent: Mapping[Lane, LedgerError] | None = None
        """Lanes whose end isn't known yet; None: nobody has asked."""
        self._rows: dict[Lane, lane.LaneRow] = {}
        self._held: set[Lane] = set()
        """Lanes that were ours at any time."""
        self._moved = time.monotonic()
        self._look_due = self._aim_due = 0.0

    def aim(self, marks: Watermarks) -> None:
        """Take the ends as they are now; each once, or a busy producer would move it with each session."""
        self._ends = {own: at.end for own, at in marks.known.items()} | self._ends
        self._silent = {own: fault for own, fault in marks.silent.items() if own not in self._ends}
        self._aim_due = time.monotonic() + AIM_INTERVAL_S

    @property
    def aimed(self) -> bool:
        """Whether every end is known."""
        return self._silent is not None and not self._silent

    @property
    def aim_due(self) -> bool:
        """Whether it is time to ask again for the ends that aren't known."""
        return not self.aimed and time.monotonic() >= self._aim_due

    @property
    def lag(self) -> int | None:
        """How many offsets are left, by the last look; None while the end isn't known."""
        return sum(self._left().values()) if self.aimed else None

    @property
    def stalled_s(self) -> float:
        """How long no lane has come any further, and none was given to us for the first time."""
        return time.monotonic() - self._moved

    def look(self, conn: Connection, lanes: Mapping[Lane, LaneQueue[Any]]) -> bool:
        """Whether it is reached. The rows are read when our own `lanes` are there, else now and then."""
        if lanes.keys() - self._held:  # the group took its time: ours begins now
            self._held |= lanes.keys()
            self._moved = time.monotonic()
        ours_left = any(
            queue.next_offset < self._ends.get(own, 0) or not queue.proven for own, queue in lanes.items()
        )
        if ours_left and time.monotonic() < self._look_due:
            return False
        before = self._left()
        self._rows = {row.lane: row for row in lane.read_all(conn) if row.topic in self._topics}
        self._look_due = time.monotonic() + LOOK_INTERVAL_S
        if self._left() != before:
            self._moved = time.monotonic()
        self.reached = self.lag == 0 and not ours_left
        return self.reached

    def obstacle(self, kafka: KafkaProperties) -> Unavailable:
        """What is in the way. Raises BrokerUnavailable or TopicUnfit where Kafka doesn't say."""
        left = self._left()
        if not left:
            silent = ", ".join(str(own) for own in sorted(self._silent or {}))
            return BrokerUnavailable(f"the brokers of {silent} are away: nobody knows their ends")
        waits = hidden.hidden(kafka, watermarks(kafka, left.keys()).known)
        if waits:
            return OpenTransaction(hidden.first_of(waits), remedy=waits[0].remedy)
        own, records = next(iter(left.items()))
        row = self._rows.get(own)
        owner = f"; its last owner is {row.owner_host}:{row.owner_pid}" if row and row.owner_host else ""
        return GroupUnavailable(f"{own} has {counted(records, 'record')} to apply and doesn't move{owner}")

    def _left(self) -> dict[Lane, int]:
        """How many offsets below its end aren't applied, for each lane that has any."""
        at = {own: row.next_offset for own, row in self._rows.items()}
        left = {own: end - at.get(own, 0) for own, end in self._ends.items()}
        return {own: records for own, records in left.items() if records > 0}
