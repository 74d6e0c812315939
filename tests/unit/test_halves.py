"""Cutting a batch in halves: whatever is cut, nothing is lost, doubled or moved."""

from hypothesis import given
from hypothesis import strategies as st

from consumer.processor import BACKOFF_MAX_S, _backoff_s, halves
from ledger.domain.delivery import Bad, Batch, Delivery, Gap, Lane, Record

LANE = Lane("commands", 0)


@st.composite
def batches(draw) -> Batch:
    """Records and gaps in any order, at least one record, and more than a record alone."""
    sizes = draw(st.lists(st.integers(0, 4), min_size=2, max_size=12).filter(lambda s: 0 in s))
    offset = first = draw(st.integers(0, 2**40))
    deliveries, gaps = [], []
    for size in sizes:  # 0: a record; else a gap of so many offsets
        if size:
            gaps.append(Gap(offset, offset + size, "log_hole"))
        else:
            deliveries.append(Delivery(offset, Bad("json", ""), Record(None, b"", None).packed()))
        offset += size or 1
    return Batch(LANE, first, offset, deliveries, gaps)


def tiles(batch: Batch) -> bool:
    """Whether records and gaps cover the batch's range, each offset once."""
    covered = [(d.offset, d.offset + 1) for d in batch.deliveries]
    covered += [(g.first_offset, g.next_offset) for g in batch.gaps]
    reached = batch.first_offset
    for first, following in sorted(covered):
        if first != reached:
            return False
        reached = following
    return reached == batch.next_offset > batch.first_offset


@given(batches())
def test_halves_are_consecutive_and_have_everything(batch):
    """The left one begins where the batch did, the right one goes on to its end; order is kept."""
    left, right = halves(batch)
    assert left.lane == right.lane == LANE
    assert (left.first_offset, left.next_offset) == (batch.first_offset, right.first_offset)
    assert right.next_offset == batch.next_offset
    assert left.deliveries + right.deliveries == batch.deliveries
    assert left.gaps + right.gaps == batch.gaps
    assert tiles(left)
    assert tiles(right)


@given(batches())
def test_cutting_on_ends_at_single_records_without_gaps(batch):
    """Isolation ends: each record comes to stand alone, in about as many steps as a search takes."""
    alone, rest, depth = [], [batch], 0
    while rest:
        depth += 1
        assert depth < 10
        cut = [half for part in rest for half in halves(part)]
        alone += [half for half in cut if len(half.deliveries) == 1 and not half.gaps]
        rest = [half for half in cut if half.deliveries and half not in alone]
    assert sorted(d.offset for half in alone for d in half.deliveries) == [d.offset for d in batch.deliveries]


def test_the_wait_between_two_tries_is_bounded():
    """However often a batch lost, it tries again within a second."""
    assert all(0 <= _backoff_s(attempt) <= BACKOFF_MAX_S for attempt in range(100))
