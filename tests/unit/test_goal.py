"""What counts as movement for a run with a goal."""

from typing import Any

import pytest

from consumer.goal import Goal
from consumer.lane_queue import LaneQueue
from ledger.domain.delivery import Lane
from ledger.store.tables import lane
from ledger.store.tables.lane import Claim

NOBODY: Any = None
"""No database is asked."""
LANES = [Lane("commands", partition) for partition in range(2)]


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr("consumer.goal.time", made)
    monkeypatch.setattr(lane, "read_all", lambda conn: [])
    return made


def queues(*lanes):
    return {own: LaneQueue(own, Claim(0, 1), lambda record: record) for own in lanes}


def test_a_lane_that_is_given_for_the_first_time_is_movement(clock):
    """A group may take most of the patience to hand out lanes; who has one gets all of it to apply."""
    goal = Goal(["commands"])
    clock.now = 59.0
    goal.look(NOBODY, {})
    assert goal.stalled_s == 59.0
    goal.look(NOBODY, queues(LANES[0]))
    assert goal.stalled_s == 0.0


def test_lanes_that_come_and_go_are_no_movement(clock):
    """Sessions that begin anew for ever, each with the same lanes, get nowhere: patience ends."""
    goal = Goal(["commands"])
    goal.look(NOBODY, queues(*LANES))
    clock.now = 30.0
    goal.look(NOBODY, {})
    goal.look(NOBODY, queues(*LANES))
    assert goal.stalled_s == 30.0
