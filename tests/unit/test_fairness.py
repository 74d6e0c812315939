"""Lanes take turns by work: how long one waits is bounded by a batch, not by what its neighbours have."""

from collections import Counter
from collections.abc import Iterator

import pytest

from consumer.fairness import CROWDED_MAX, HELD_AT, Fairness
from consumer.lane_queue import PORTION, LaneQueue
from ledger.domain.delivery import Bad, Delivery, Lane, Record
from ledger.store.tables.lane import Claim

BATCH = 100


def delivery(offset: int) -> Delivery:
    return Delivery(offset, Bad("json", "not a command"), Record(None, b"%d" % offset, None).packed())


class Lanes:
    """Lanes by name, what is in hand of each, and the turns that they have had: name and size."""

    def __init__(self, *names: str, size_max: int = BATCH) -> None:
        self.by_name = {name: Lane("commands", n) for n, name in enumerate(names)}
        self.queues = {lane: LaneQueue(lane, Claim(0, 1), delivery) for lane in self.by_name.values()}
        self.fairness = Fairness(self.queues, size_max)

    def queue(self, name: str) -> LaneQueue[int]:
        return self.queues[self.by_name[name]]

    def come(self, name: str, count: int) -> None:
        queue = self.queue(name)
        begin = queue._expected
        for offset in range(begin, begin + count):
            assert queue.offer(offset, offset)

    def at_end(self, name: str) -> None:
        self.queue(name).reached_end(self.queue(name)._expected)

    def turns(self, count: int) -> Iterator[tuple[str, int]]:
        for _ in range(count):
            found = self.fairness.next_turn()
            if found is None:
                return
            queue, size_max = found
            batch = queue.take(size_max)
            assert batch
            self.fairness.had(queue.lane, len(batch.deliveries))
            queue.advance(batch.next_offset)
            yield (
                next(name for name, lane in self.by_name.items() if lane == queue.lane),
                len(batch.deliveries),
            )


def test_nothing_in_hand_is_nobodys_turn():
    """Without a lane, or with empty ones."""
    assert Lanes().fairness.next_turn() is None
    assert Lanes("a", "b").fairness.next_turn() is None


def test_lanes_that_all_have_much_get_the_same_in_whole_batches():
    """As long as none of them keeps up, none is made smaller."""
    lanes = Lanes("a", "b", "c")
    for name in "abc":
        lanes.come(name, 1_000)
    turns = list(lanes.turns(12))
    assert Counter(name for name, _ in turns) == {"a": 4, "b": 4, "c": 4}
    assert {size for _, size in turns} == {BATCH}


@pytest.mark.parametrize("crowds", [1, 11])
def test_a_lane_with_little_waits_for_one_batch_at_most(crowds):
    """However many neighbours have a million: what comes in is applied in the next turn."""
    names = [f"crowd{n}" for n in range(crowds)]
    lanes = Lanes(*names, "little")
    for name in names:
        lanes.come(name, 2_000)
    for _ in range(5):
        list(lanes.turns(3))
        lanes.come("little", 2)
        assert list(lanes.turns(1)) == [("little", 2)]


def test_what_a_lane_left_unused_is_no_claim():
    """One that was idle for long and then has a million doesn't shut out those that worked meanwhile."""
    lanes = Lanes("busy", "late")
    lanes.come("busy", 3_000)
    list(lanes.turns(20))
    lanes.come("late", 3_000)
    turns = Counter(name for name, _ in lanes.turns(10))
    assert abs(turns["busy"] - turns["late"]) <= 2


def test_a_crowded_lane_is_not_read_on_without_end():
    """It is again when less than a portion of it is left, or when no neighbour keeps up any more."""
    lanes = Lanes("crowd", "little")
    crowd = {lanes.by_name["crowd"]}
    lanes.come("crowd", HELD_AT * PORTION)
    assert lanes.fairness.full(set()) == set()
    lanes.come("little", 1)
    lanes.at_end("little")
    assert lanes.fairness.full(set()) == crowd
    list(lanes.turns(2))
    assert lanes.fairness.full(set()) == set()
    assert lanes.fairness.full(crowd) == crowd
    lanes.queue("little").ended_at = 0.0
    assert lanes.fairness.full(crowd) == set()
    lanes.come("little", 1)
    lanes.at_end("little")
    list(lanes.turns(1 + PORTION // BATCH))
    assert lanes.fairness.full(crowd) == set()


def test_a_crowded_lanes_batches_are_smaller():
    """Beside a neighbour that had little lately; not beside an idle one, nor one that has as much itself."""
    lanes = Lanes("crowd", "other", size_max=PORTION)
    lanes.come("crowd", 6 * PORTION)
    lanes.at_end("other")
    assert list(lanes.turns(1)) == [("crowd", PORTION)]
    lanes.come("other", 1)
    lanes.at_end("other")
    assert list(lanes.turns(2)) == [("other", 1), ("crowd", CROWDED_MAX)]
    lanes.queue("other").ended_at = 0.0
    assert list(lanes.turns(1)) == [("crowd", PORTION)]
    lanes.come("other", 2 * PORTION)
    lanes.at_end("other")
    assert {size for _, size in lanes.turns(2)} == {PORTION}


def test_an_end_that_was_met_before_is_no_sign_of_work():
    """An idle lane reads its last record again now and then, and meets the same end."""
    lanes = Lanes("idle")
    lanes.at_end("idle")
    assert lanes.queue("idle").ended_at < 0
