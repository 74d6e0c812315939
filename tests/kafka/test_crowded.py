"""A lane with a hundred thousand waiting, and its neighbour with now and then one."""

from functools import partial

import pytest

from tests.support.publish import buys
from tests.support.workers import wait_for

pytestmark = [pytest.mark.real_kafka, pytest.mark.slow]
FLOOD = 60_000
BATCH = 200


@pytest.fixture
def group(new_group):
    return new_group(partitions=2)


def applied(group, count):
    """Whether the neighbour's lane has come so far."""
    return group.next_offsets()[1] >= count


def test_a_lane_with_little_does_not_wait_for_its_neighbours_backlog(group, sender):
    """The reader's one queue isn't full of the flood: what comes for the neighbour is applied long before
    that has ended, each time; and what was held back is read on, complete."""
    sender.send(*(buys(f"flood-{n}") for n in range(FLOOD)), partition=0)
    sender.flush()
    end = group.next_offsets()[0] + FLOOD
    with group.running(batch_size_max=BATCH):
        wait_for("the flood is being applied", lambda: group.next_offsets()[0] > end - FLOOD)
        waited = []
        for number in range(5):
            before = group.next_offsets()[0]
            sender.send(buys(f"little-{number}"), partition=1)
            sender.flush()
            wait_for("it is applied", partial(applied, group, number + 1))
            waited.append(group.next_offsets()[0] - before)
        assert group.next_offsets()[0] < end, f"the flood was over first: {waited}"
        group.applies(sender)
    group.prove(sender)


def test_a_lane_that_is_held_back_can_change_hands(group, sender):
    """Its next owner reads it on: that it was held back is forgotten with the assignment, on both sides."""
    sender.send(*(buys(f"flood-{n}") for n in range(FLOOD)), partition=0)
    sender.flush()
    first = group.start("--batch", str(BATCH))
    begun = group.next_offsets()[0]
    wait_for("the flood is being applied", lambda: group.next_offsets()[0] > begun)
    for number in range(20):
        sender.send(buys(f"little-{number}"), partition=1)
        sender.flush()
    second = group.start("--batch", str(BATCH))
    second.says("assigned")
    first.terminates()
    second.says("assigned", times=2)
    third = group.start("--batch", str(BATCH))
    third.says("assigned")
    second.terminates()
    group.applies(sender)
    third.terminates()
    group.prove(sender)
