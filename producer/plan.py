"""Where commands would go, for a dry run: by each way of routing how many to each partition, and of the first
ones each for itself."""

from collections import Counter
from typing import NamedTuple

from producer.partition_by import PartitionBy
from producer.plain import Ready
from producer.routing import Routing, Why

SHOWN_MAX = 20


class PlannedCommand(NamedTuple):
    """A line's command: its id (None: the line leaves it to the sidecar), its record key, and where it goes.

    `partition` is None where it isn't known how many there are, and so is a `key` that depends on it.
    """

    line: int
    id: str | None
    key: str | None
    partition: int | None
    why: Why


class RoutePlan:
    """What one way of routing would do, in memory that doesn't grow with the commands."""

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
            self.first.append(PlannedCommand(line, command.id, route.key or None, partition, route.why))


Plans = dict[PartitionBy, RoutePlan]


def plans(routing: Routing, partitions: int) -> Plans:
    """One for each way: by goods, by user, and this routing, whatever it is. 0 partitions: not known."""
    ways = {by: Routing(by) for by in (PartitionBy.GOODS, PartitionBy.USER)} | {routing.partition_by: routing}
    return {by: RoutePlan(way, partitions) for by, way in ways.items()}
