"""Beside its next offset a lane keeps what identifies its last applied record."""

import pytest

from ledger.batch import apply_batch
from ledger.domain.commands import RegisterUser
from ledger.domain.delivery import Bad, Delivery, Headers, Lane, Mark, Record
from ledger.errors import Contended
from ledger.store.connection.database import connect
from ledger.store.tables import lane
from tests.support.batches import Hole, Lanes, says


@pytest.fixture
def lanes(ledger_dsn):
    with connect(ledger_dsn, purpose="test") as conn:
        yield Lanes(conn)


def stored(lanes):
    [row] = lane.read_all(lanes.conn)
    return row.mark


def register(name):
    return says(f"register-{name}", RegisterUser(user_id=name))


def test_a_batch_leaves_the_mark_of_its_last_record(lanes):
    """Also where it ends in a gap: the offset before the next one then holds no record."""
    assert lanes.claim(0).mark is None
    lanes.apply(0, register("anna"), register("bert"), Hole(2))
    batch = lanes.delivered[Lane(lanes.topic, 0)]
    assert stored(lanes) == batch[1].mark != batch[0].mark._replace(offset=1)
    assert lanes.claim(0).mark == batch[1].mark


def test_a_batch_of_gaps_alone_leaves_the_mark_alone(lanes):
    """What was applied last was applied before the gap."""
    lanes.apply(0, Hole(3, "before_start", "--start"))
    assert stored(lanes) is None
    lanes.apply(0, register("anna"))
    mark = stored(lanes)
    assert mark is not None
    assert mark.offset == 3
    lanes.apply(0, Hole(5, "records_deleted", "olga"))
    assert stored(lanes) == mark


def test_the_mark_moves_with_the_offset_or_not_at_all(lanes):
    """A fenced writer can't leave one."""
    lanes.apply(0, register("anna"))
    before = stored(lanes)
    late = lanes.batch(0, register("bert"))
    with pytest.raises(Contended):
        apply_batch(lanes.conn, late, lanes.claims[0].epoch - 1)
    assert stored(lanes) == before


def test_a_mark_tells_apart_what_an_offset_can_hold():
    """Key, value, each header, their borders, the leader's epoch and the time all count."""
    parts: list[tuple[bytes | None, bytes | None, Headers | None]] = [
        (b"k", b"v", [("a", b"b")]),
        (None, b"v", [("a", b"b")]),
        (b"kv", b"", [("a", b"b")]),
        (b"k", None, [("a", b"b")]),
        (b"k", b"v", [("a", None)]),
        (b"k", b"v", [("ab", b"")]),
        (b"k", b"v", [("a", b"b"), ("a", b"b")]),
        (b"k", b"v", None),
    ]
    marks = {Delivery(7, Bad("json", ""), Record(*each).packed()).mark for each in parts}
    assert len(marks) == len(parts)
    first = next(iter(marks))
    assert (first.offset, first.leader_epoch, first.timestamp_ms) == (7, -1, -1)
    assert isinstance(first, Mark)
    assert len(first.digest) == 32
