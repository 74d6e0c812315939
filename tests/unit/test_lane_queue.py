"""A lane's queue: what it hands on is consecutive and complete; a gap is a hole that was looked at twice."""

import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.lane_queue import LaneQueue, first
from ledger.domain.delivery import Bad, Batch, Delivery, Gap, Lane, Record
from ledger.store.tables.lane import Claim

LANE = Lane("commands", 3)
EPOCH = 7


def record(offset: int) -> Delivery:
    return Delivery(offset, Bad("json", "not a command"), Record(None, b"%d" % offset, None).packed())


def queue_at(next_offset: int) -> LaneQueue[int]:
    return LaneQueue(LANE, Claim(next_offset, EPOCH), record)


def arrive(queue: LaneQueue[int], *offsets: int) -> list[int]:
    """Offer the records in this order; returns those that were taken."""
    taken = []
    for offset in offsets:
        if queue.offer(offset, offset):
            taken.append(offset)
    return taken


def offsets(queue: LaneQueue[int], size_max: int = 100) -> list[int]:
    batch = queue.take(size_max)
    return [d.offset for d in batch.deliveries] if batch else []


def taken(queue: LaneQueue[int]) -> Batch:
    batch = queue.take(100)
    assert batch
    return batch


def test_consecutive_records_become_one_batch_that_begins_at_the_stored_offset():
    """A batch carries the lane, its offsets without a hole, and what is between them."""
    queue = queue_at(5)
    assert arrive(queue, 5, 6, 7) == [5, 6, 7]
    batch = taken(queue)
    assert (batch.lane, batch.first_offset, batch.next_offset, batch.gaps) == (LANE, 5, 8, [])
    assert [d.offset for d in batch.deliveries] == [5, 6, 7]
    assert queue.epoch == EPOCH


def test_nothing_to_take_is_no_batch():
    """An empty queue gives no batch, so no empty entry is written."""
    queue = queue_at(5)
    assert queue.take(100) is None
    queue.reached_end(5)
    assert queue.take(100) is None


def test_a_batch_stays_the_next_one_until_it_is_applied():
    """What was taken and not applied is taken again; what was applied never is."""
    queue = queue_at(0)
    arrive(queue, *range(5))
    assert offsets(queue, 2) == offsets(queue, 2) == [0, 1]
    queue.advance(2)
    assert queue.next_offset == 2
    assert offsets(queue) == [2, 3, 4]
    assert len(queue) == 3


def test_a_record_that_is_here_already_is_dropped():
    """Records read twice, before and after a seek or a takeover, are queued once."""
    queue = queue_at(5)
    assert arrive(queue, 3, 4, 5, 5, 4, 6) == [5, 6]


def test_a_hole_is_sought_back_once_and_then_is_a_gap():
    """The first sight of a hole may be the client's loss, the second is the log's own."""
    queue = queue_at(0)
    assert arrive(queue, 0, 3, 4) == [0]
    assert queue.seek_to == 1
    queue.sought()
    assert arrive(queue, 3, 4) == [3, 4]
    batch = taken(queue)
    assert batch.gaps == [Gap(1, 3, "log_hole")]
    assert (batch.first_offset, batch.next_offset) == (0, 5)


def test_a_hole_that_was_the_clients_loss_is_filled():
    """Records that the client had dropped are read again: no gap, none missing."""
    queue = queue_at(0)
    arrive(queue, 0, 3)
    queue.sought()
    assert arrive(queue, 1, 2, 3) == [1, 2, 3]
    assert taken(queue).gaps == []


def test_what_was_on_its_way_before_the_seek_is_dropped():
    """Between the seek's request and its effect nothing is queued, and no end is believed."""
    queue = queue_at(0)
    arrive(queue, 2)
    assert arrive(queue, 0, 1, 2, 3) == []
    queue.reached_end(4)
    assert (len(queue), queue.seek_to) == (0, 0)


def test_one_way_back_serves_all_holes_that_were_read():
    """A lane full of transaction markers costs one seek for all that was read, not one for each."""
    queue = queue_at(0)
    assert arrive(queue, 0, 2, 3, 5, 9) == [0]
    queue.reached_end(10)
    queue.reached_end(11)
    queue.sought()
    assert arrive(queue, 2, 3, 5, 9) == [2, 3, 5, 9]
    queue.reached_end(11)
    assert queue.seek_to is None
    batch = taken(queue)
    assert [(g.first_offset, g.next_offset) for g in batch.gaps] == [(1, 2), (4, 5), (6, 9), (10, 11)]
    assert batch.next_offset == 11


def test_a_hole_first_seen_on_the_way_back_is_looked_at_again():
    """What the client lost while it read again is no gap either."""
    queue = queue_at(0)
    arrive(queue, 1, 2, 3)
    queue.sought()
    assert arrive(queue, 1, 3) == [1]
    assert queue.seek_to == 2
    queue.sought()
    assert arrive(queue, 2, 3) == [2, 3]
    assert taken(queue).gaps == [Gap(0, 1, "log_hole")]


def test_only_what_both_looks_agree_on_is_a_gap():
    """A record that was seen once exists: a second look that misses it, too, is no proof against it."""
    queue = queue_at(0)
    arrive(queue, 3)
    queue.sought()
    assert arrive(queue, 6) == []
    assert queue.seek_to == 3
    queue.sought()
    assert arrive(queue, 3, 4, 5, 6) == [3, 4, 5, 6]
    assert taken(queue).gaps == [Gap(0, 3, "log_hole")]


def test_a_hole_before_the_end_is_a_gap_too():
    """Trailing transaction markers hold no record: the lane moves over them and is caught up."""
    queue = queue_at(0)
    arrive(queue, 0)
    queue.reached_end(3)
    assert queue.seek_to == 1
    queue.sought()
    queue.reached_end(3)
    batch = taken(queue)
    assert (batch.gaps, batch.next_offset) == ([Gap(1, 3, "log_hole")], 3)


def test_an_end_below_what_is_here_says_nothing():
    """Neither an end from before the lane was taken over nor the lane's own next offset is a hole."""
    queue = queue_at(5)
    queue.reached_end(4)
    queue.reached_end(5)
    assert (len(queue), queue.seek_to) == (0, None)


@pytest.mark.parametrize("size_max", [1, 2, 3, 100])
def test_gaps_count_as_much_as_records_for_a_batchs_size(size_max):
    """A log of nothing but markers and records in turn makes batches of bounded size, too."""
    queue = queue_at(0)
    for offset in (1, 3, 5):
        arrive(queue, offset)
        queue.sought()
        arrive(queue, offset)
    taken = []
    while batch := queue.take(size_max):
        assert len(batch.deliveries) + len(batch.gaps) <= size_max
        taken += [d.offset for d in batch.deliveries]
        queue.advance(batch.next_offset)
    assert (taken, queue.next_offset) == ([1, 3, 5], 6)


@st.composite
def logs(draw) -> tuple[list[bool], int, list[tuple[int, int]], list[int]]:
    """A log (is there a record?), where to begin, what each read loses, and how large batches are."""
    present = draw(st.lists(st.booleans(), min_size=1, max_size=40))
    start = draw(st.integers(0, len(present)))
    reads = draw(st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8)), max_size=60))
    return present, start, reads, draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))


@given(logs())
def test_batches_tile_the_log_whatever_the_client_loses_once(case):
    """Records that the client drops, each at most once, are read again; gaps are exactly the log's holes."""
    present, start, reads, sizes = case
    queue, position, end = queue_at(start), start, len(present)
    lost: set[int] = set()
    tiles: list[Delivery | Gap] = []
    turn = 0
    while queue.next_offset < end:
        count, loses = reads[turn] if turn < len(reads) else (5, 0)
        turn += 1
        assert turn < 1000, "no progress"
        read = [o for o in range(position, end) if present[o]][:count]
        dropped = set(read[:loses]) - lost
        lost |= dropped
        arrive(queue, *(o for o in read if o not in dropped))
        position = read[-1] + 1 if read else end
        if position == end or not any(present[position:]):
            position = end
            queue.reached_end(end)
        queue.decode(turn % 3)  # ahead of the batch that needs it, or not
        if queue.seek_to is not None:
            position = queue.seek_to
            queue.sought()
        while batch := queue.take(sizes[turn % len(sizes)]):
            assert batch.first_offset == queue.next_offset
            tiles += sorted([*batch.deliveries, *batch.gaps], key=first)
            queue.advance(batch.next_offset)
    reached = start
    for tile in tiles:
        if isinstance(tile, Gap):
            assert tile.first_offset == reached
            assert not any(present[tile.first_offset : tile.next_offset])
            reached = tile.next_offset
        else:
            assert tile.offset == reached
            assert present[tile.offset]
            reached = tile.offset + 1
    assert reached == end


def test_a_batch_is_bounded_by_bytes_too():
    """Large records go in as many batches as it takes, one that is larger than any batch alone."""
    sizes = [40, 40, 40, 500, 10, 90, 10]
    queue: LaneQueue[int] = LaneQueue(
        LANE, Claim(0, EPOCH), lambda n: Delivery(n, Bad("json", ""), b"x" * sizes[n])
    )
    arrive(queue, *range(7))
    batches = []
    while batch := queue.take(100, 100):
        batches.append([len(d.packed) for d in batch.deliveries])
        queue.advance(batch.next_offset)
    assert batches == [[40, 40], [40], [500], [10, 90], [10]]
    assert queue.bytes == 0


def test_what_waits_is_measured_before_it_is_decoded():
    """By those decoded last: who reads ahead stops in time."""
    queue: LaneQueue[int] = LaneQueue(
        LANE, Claim(0, EPOCH), lambda n: Delivery(n, Bad("json", ""), b"x" * 1000)
    )
    arrive(queue, *range(10))
    assert queue.bytes == 0  # nothing is known yet
    queue.decode(2)
    assert queue.bytes == 10_000


class Fetched:
    """A record as a client hands it out: an object that can be seen to be gone."""

    def __init__(self, offset: int) -> None:
        self.offset = offset


def test_a_record_is_let_go_of_before_the_next_is_decoded():
    """A batch of the client's records, each with its headers, is beyond the processor's caches."""
    fetched: weakref.WeakSet[Fetched] = weakref.WeakSet()
    alive = []

    def decode(raw: Fetched) -> Delivery:
        alive.append(len(fetched))
        return record(raw.offset)

    queue = LaneQueue(LANE, Claim(0, EPOCH), decode)
    for offset in range(4):
        raw = Fetched(offset)
        fetched.add(raw)
        queue.offer(offset, raw)
    del raw
    batch = queue.take(100)
    assert batch
    assert len(batch.deliveries) == 4
    assert (alive, len(fetched)) == ([4, 3, 2, 1], 0)
