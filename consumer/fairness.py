"""Whose turn it is among a worker's lanes: by work, so that none waits long for a neighbour with a million.

Work is counted in records. Next is the lane that will have had least after its batch, so one with little goes
first. One that begins to wait starts level with the others: what it left unused before gives it no claim
(fair queueing; Demers, Keshav, Shenker 1989; the level is that of Goyal, Vin, Cheng 1996).

A lane keeps up if little of it is in hand and it was read to a new end lately. Beside one that does, the
others are crowded: their batches are smaller, and they aren't read on while enough of them is in hand. Else
the client's one queue is full of them, and a neighbour's record comes in after all that. Where no lane keeps
up, nobody would gain by it.
"""

import time
from collections.abc import Mapping
from typing import Any

from consumer.lane_queue import PORTION, LaneQueue
from ledger.domain.delivery import Lane

LATELY_S = 10.0
"""Longer than a lane's record may be on its way through a client that is full of its neighbours."""
CROWDED_MAX = PORTION // 4
"""The most records in a batch of a crowded lane: its neighbour may have to wait for one."""
HELD_AT = 2
"""Portions in hand from which on a crowded lane isn't read on; it is again when less than one is left.

Few, because a neighbour waits for none of them; not fewer, because what the client has fetched of a lane that
isn't read on is fetched again.
"""


class Fairness:
    """The turns of these lanes, whose set may change; batches have at most `size_max` records."""

    def __init__(self, lanes: Mapping[Lane, LaneQueue[Any]], size_max: int) -> None:
        self._lanes = lanes
        self._size_max = size_max
        self._work: dict[Lane, int] = {}
        self._waiting: set[Lane] = set()
        self._level = 0
        """What the lane that had the last turn had had before it."""

    def next_turn(self) -> tuple[LaneQueue[Any], int] | None:
        """Whose turn it is, and the most that its batch may hold; None where nothing is in hand."""
        waiting = [lane for lane, queue in self._lanes.items() if len(queue)]
        for lane in waiting:
            if lane not in self._waiting:
                self._work[lane] = max(self._work.get(lane, 0), self._level)
        self._waiting = set(waiting)
        if not waiting:
            return None
        lane = min(waiting, key=self._work_after)
        self._level = self._work[lane]
        size_max = min(self._size_max, CROWDED_MAX) if lane in self._crowded() else self._size_max
        return self._lanes[lane], size_max

    def had(self, lane: Lane, records: int) -> None:
        """So much of the lane was applied."""
        self._work[lane] += records

    def full(self, held: set[Lane]) -> set[Lane]:
        """The lanes not to be read on for now, given those that are `held` already."""
        return {
            lane for lane in self._crowded() if self._lanes[lane].portions >= (1 if lane in held else HELD_AT)
        }

    def _crowded(self) -> set[Lane]:
        since = time.monotonic() - LATELY_S
        crowded = {n for n, each in self._lanes.items() if each.ended_at < since or each.portions >= 1}
        return crowded if len(crowded) < len(self._lanes) else set()

    def _work_after(self, lane: Lane) -> int:
        return self._work[lane] + min(len(self._lanes[lane]), self._size_max)
