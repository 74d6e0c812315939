"""Is it the log that was applied? Judged by the last applied record, before what follows it is handed on."""

import pytest

from consumer.known_log import elsewhere, require_same_record, same
from consumer.lane_queue import LaneQueue
from ledger.domain.delivery import Bad, Delivery, Gap, Lane, Mark, pack
from ledger.errors import TopicReplaced
from ledger.store.tables.lane import Claim

LANE = Lane("commands", 3)


def record(offset, text="", epoch=1):
    packed = pack(None, f"{offset}{text}".encode(), None, epoch, 1_000 + offset)
    return Delivery(offset, Bad("json", "not a command"), packed)


def queue_after(next_offset, last=None):
    """A lane that is applied up to here; `last`: the offset of its last record, if there is one."""
    mark = None if last is None else record(last).mark
    return LaneQueue(LANE, Claim(next_offset, 7, 0, mark), lambda made: made)


def arrive(queue, *records):
    for each in records:
        queue.offer(each.offset, each)


def test_reading_begins_at_the_last_applied_record_and_hands_on_what_follows():
    """It is compared and not applied again."""
    queue = queue_after(5, last=4)
    assert (queue.start, queue.proven) == (4, False)
    arrive(queue, record(4), record(5), record(6))
    batch = queue.take(100)
    assert (batch.first_offset, [d.offset for d in batch.deliveries]) == (5, [5, 6])
    assert queue.proven


def test_a_lane_that_has_applied_nothing_begins_at_its_next_offset():
    """There is nothing to compare."""
    queue = queue_after(5)
    assert (queue.start, queue.proven) == (5, True)


@pytest.mark.parametrize("other", [record(4, "x"), record(4, epoch=2), record(5)])
def test_another_record_there_halts_before_anything_is_applied(other):
    """Other bytes, another leader's epoch, or no record at all (looked at twice)."""
    queue = queue_after(5, last=4)
    for _ in range(2):
        arrive(queue, other, record(6))
        if queue.seek_to is not None:
            queue.sought()
    with pytest.raises(TopicReplaced, match=r"at offset 4 the ledger has applied .*, and the log holds "):
        queue.take(100)


def test_a_record_where_the_ledger_saw_a_hole_halts():
    """The offsets between the last record and the next one held none: else they were skipped in silence."""
    queue = queue_after(7, last=4)
    arrive(queue, record(4), record(5), record(6), record(7))
    with pytest.raises(TopicReplaced):
        queue.take(100)


def test_the_hole_before_the_next_offset_is_no_second_gap():
    """It is read again, and accounted for already; what of it lies after is a gap."""
    queue = queue_after(7, last=4)
    for _ in range(2):
        arrive(queue, record(4), record(9))
        if queue.seek_to is not None:
            queue.sought()
    batch = queue.take(100)
    assert (batch.first_offset, batch.gaps, batch.next_offset) == (7, [Gap(7, 9, "log_hole")], 10)


def test_a_new_leader_has_the_lane_read_again_from_the_last_applied_record():
    """What was read under the old one and isn't applied may be gone; what is applied is compared."""
    queue = queue_after(5, last=4)
    arrive(queue, record(4), record(5), record(6))
    queue.read_under(1)
    queue.take(1)
    queue.advance(6)
    arrive(queue, record(7, epoch=2))
    queue.read_under(2)
    assert (queue.seek_to, len(queue), queue.proven) == (5, 0, False)
    queue.sought()
    arrive(queue, record(5), record(6, "other", epoch=2), record(7, epoch=2))
    queue.read_under(2)
    assert queue.seek_to is None
    assert [d.mark for d in queue.take(9).deliveries] == [
        record(6, "other", epoch=2).mark,
        record(7, epoch=2).mark,
    ]


def test_a_new_leader_without_the_applied_records_halts_the_lane():
    """Although the log holds what comes next."""
    queue = queue_after(5, last=4)
    arrive(queue, record(4), record(5))
    queue.read_under(1)
    queue.take(100)
    queue.advance(6)
    arrive(queue, record(6, epoch=2))
    queue.read_under(2)
    queue.sought()
    arrive(queue, record(5, "other", epoch=2), record(6, epoch=2))
    with pytest.raises(TopicReplaced, match=r"leader epoch 1.*leader epoch 2"):
        queue.take(100)


def test_records_under_an_older_leader_read_again_are_no_sign_of_anything():
    """After a look back, or a rebalance, lower epochs come again."""
    queue = queue_after(0)
    arrive(queue, record(0, epoch=1), record(1, epoch=5))
    queue.read_under(5)
    queue.look_again()
    queue.sought()
    arrive(queue, record(0, epoch=1))
    queue.read_under(1)
    while queue.seek_to is not None:
        queue.sought()
        arrive(queue, record(0, epoch=1), record(1, epoch=5))
        queue.read_under(5)
    assert [d.offset for d in queue.take(9).deliveries] == [0, 1]


def test_what_is_not_known_of_a_record_is_not_compared():
    """A broker or a test that knows no epochs; the digest always counts."""
    mark = Mark(4, 2, 1_000, b"digest")
    assert same(mark, mark._replace(leader_epoch=-1, timestamp_ms=-1))
    assert not same(mark, mark._replace(leader_epoch=3))
    assert not same(mark, mark._replace(timestamp_ms=1_001))
    assert not same(mark._replace(leader_epoch=-1), mark._replace(digest=b"other"))
    require_same_record(LANE, mark, mark)


@pytest.mark.parametrize(
    ("name", "following"), [("orders", "orders-2"), ("orders-2", "orders-3"), ("a-9", "a-10"), ("x-", "x--2")]
)
def test_the_way_on_is_a_topic_of_another_name(name, following):
    """Its command can be pasted."""
    assert elsewhere(name, 6) == f"stockledger migrate --topic {following} --partitions 6"
