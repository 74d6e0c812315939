"""Where commands would go, for a dry run: how many to each partition, and the first ones each for itself."""

from collections import Counter
from typing import NamedTuple

from producer.plain import Ready
from producer.routing import Routing, Why

SHOWN_MAX = 20


class PlannedCommand(NamedTuple):
    """A line's command: its id (None: the line leaves it to the sidecar), its record key, and where it goes.

    `partition` is None where it isn't known how many there are.
    """

    line: int
    id: str | None
    key: str
    partition: int | None
    why: Why


class RoutePlan:
    """What is known of all commands, in memory that doesn't grow with them. 0 partitions: not known."""

    def __init__(self, routing: Routing, partitions: int) -> None:
        self._routing, self._partitions = routing, partitions
        self.lanes: Counter[int] = Counter()
        self.first: list[PlannedCommand] = []

    def add(self, line: int, command: Ready) -> None:
        """The command of the next line."""
        route = self._routing.route(command, self._partitions)
        partition = route.lane(self._partitions) if self._partitions else None
        if partition is not None:
            self.lanes[partition] += 1
        if len(self.first) < SHOWN_MAX:
            self.first.append(PlannedCommand(line, command.id, route.key, partition, route.why))
