"""The end that a run is to reach, and how far it is: `run --until-caught-up`.

The end is that of the log as of the start, and a lane has reached it once all that is below is applied, by us
or by others. Records that an open transaction hides count, so a run that can't read them isn't caught up.
"""

import time
from collections.abc import Mapping
from typing import Any

from consumer import hidden
from consumer.admin import Watermarks, watermarks
from consumer.clients import KafkaProperties
from consumer.lane_queue import LaneQueue
from ledger.errors import BrokerUnavailable, GroupUnavailable, LedgerError, OpenTransaction, Unavailable
from ledger.figures import counted
from ledger.store.connection.database import Connection
from ledger.store.tables import lane

LOOK_INTERVAL_S = 1.0
AIM_INTERVAL_S = 5.0


class Goal:
    """Where the logs end that are to be applied, and where the ledger is."""

    def __init__(self, topic: str) -> None:
        self.reached = False
        self._topic = topic
        self._ends: dict[int, int] = {}
        self._silent: Mapping[int, LedgerError] | None = None
        """Partitions whose end isn't known yet; None: nobody has asked."""
        self._rows: dict[int, lane.LaneRow] = {}
        self._moved = time.monotonic()
        self._look_due = self._aim_due = 0.0

    def aim(self, marks: Watermarks) -> None:
        """Take the ends as they are now; each once, or a busy producer would move it with each session."""
        self._ends = {partition: at.end for partition, at in marks.known.items()} | self._ends
        self._silent = {p: fault for p, fault in marks.silent.items() if p not in self._ends}
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
        """How long no lane has come any further."""
        return time.monotonic() - self._moved

    def look(self, conn: Connection, lanes: Mapping[int, LaneQueue[Any]]) -> bool:
        """Whether it is reached. The rows are read when our own `lanes` are there, else now and then."""
        ours_left = any(
            queue.next_offset < self._ends.get(p, 0) or not queue.proven for p, queue in lanes.items()
        )
        if ours_left and time.monotonic() < self._look_due:
            return False
        before = self._left()
        self._rows = {row.partition: row for row in lane.read_all(conn) if row.topic == self._topic}
        self._look_due = time.monotonic() + LOOK_INTERVAL_S
        if self._left() != before:
            self._moved = time.monotonic()
        self.reached = self.lag == 0 and not ours_left
        return self.reached

    def obstacle(self, kafka: KafkaProperties) -> Unavailable:
        """What is in the way. Raises BrokerUnavailable or TopicUnfit where Kafka doesn't say."""
        left = self._left()
        if not left:
            silent = sorted(self._silent or {})
            return BrokerUnavailable(
                f"the brokers of {self._topic}{silent} are away: nobody knows their ends"
            )
        marks = watermarks(kafka, self._topic, max(left) + 1).known
        waits = [each for each in hidden.hidden(kafka, self._topic, marks) if each.lane.partition in left]
        if waits:
            return OpenTransaction(hidden.first_of(waits), remedy=waits[0].remedy)
        partition, records = next(iter(left.items()))
        row = self._rows.get(partition)
        owner = f"; its last owner is {row.owner_host}:{row.owner_pid}" if row and row.owner_host else ""
        return GroupUnavailable(
            f"{self._topic}[{partition}] has {counted(records, 'record')} to apply and doesn't move{owner}"
        )

    def _left(self) -> dict[int, int]:
        """How many offsets below its end aren't applied, for each partition that has any."""
        at = {partition: row.next_offset for partition, row in self._rows.items()}
        left = {partition: end - at.get(partition, 0) for partition, end in self._ends.items()}
        return {partition: records for partition, records in left.items() if records > 0}
