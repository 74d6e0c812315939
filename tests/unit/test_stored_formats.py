"""What is kept for good has one format: digests, hashes and anchors of today are those of every release.

A ledger's digests and chain can't be made anew, and an anchor lies elsewhere, so what stands here is frozen.
"""

import re
from datetime import UTC, datetime

from ledger.domain.delivery import Bad, Batch, Delivery, Gap, Lane, pack
from ledger.domain.events import EVENTS
from ledger.domain.goods import goods_stream
from ledger.domain.outcome import Outcome
from ledger.domain.user import user_stream
from ledger.projections import registry
from ledger.store.connection.copy import TableLines
from ledger.store.schema import dump
from ledger.store.tables import event, journal
from ledger.verify import chain
from ledger.verify.anchor import Anchor
from stockledger.reports.anchor_file import write_anchor

COUNTS = {
    Outcome.APPLIED: 2, Outcome.REJECTED: 1, Outcome.DUPLICATE: 4, Outcome.CONFLICT: 3, Outcome.DEAD: 5,
}  # fmt: skip
BATCH = Batch(Lane("purchase-commands", 3), 100, 122, [], [Gap(100, 107, "log_hole")])
TABLES = [
    ["7\t107\t1\t\\N\tx\n", "7\t108\t2\t\\N\ty\n"],
    ["7\t0\te\n", "7\t1\tf\n"],
    [],
    ["d\n"],
    ["c\n"],
    ["g\n"],
]
DIGEST = "4dc62d3ae77c7c6cca2c2d54a1deee74517bfedea3a66db062276d895737888b"
ROW = journal.StoredEntry(
    position=9, entry=7, topic="purchase-commands", partition=3, epoch=4, first_offset=100, next_offset=122,
    applied=2, rejected=1, duplicate=4, conflict=3, dead=5, skipped=7, recorded_us="1291191960123456",
    digest=bytes.fromhex(DIGEST), hash=b"",
)  # fmt: skip
HASH = "4ef877dad37947bcaf975fc7dc029bea4f5af0d1d89b9a8bd35d83205f366429"
ANCHOR = """\
{
  "format": "stockledger.anchor.v1",
  "position": 9,
  "hash": "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
  "recorded_at": "2010-12-01T08:26:00.123456+00:00",
  "group": "stockledger",
  "cluster_id": "cluster-1"
}
"""


def test_the_digest_is_frozen():
    """An entry's digest covers its lane, offsets, counts and rows in this form, as sent and as stored."""
    assert journal.digest(BATCH, COUNTS, map(TableLines, TABLES)).hex() == DIGEST
    stored = [[line.encode() for line in lines] for lines in TABLES]
    assert journal.stored_digest(ROW, stored).hex() == DIGEST


def test_the_hash_is_frozen():
    """An entry's hash covers the hash before it, its digest and all its columns in this very form."""
    assert journal.GENESIS.hex() == "9b21cb8328990f27fc1dc77f6aa46957035502dc8e2da6f429a53f11af3705a7"
    assert journal.chain(journal.GENESIS, ROW).hex() == HASH


def test_no_order_of_the_outcomes_changes_them():
    """Counts are taken by name: whoever declares the outcomes in another order changes no digest."""
    turned = dict(reversed(COUNTS.items()))
    assert journal.digest(BATCH, turned, map(TableLines, TABLES)).hex() == DIGEST
    assert [str(outcome) for outcome in journal.COUNTED] == [
        "applied", "rejected", "duplicate", "conflict", "dead",
    ]  # fmt: skip


def test_the_anchors_file_is_frozen(tmp_path):
    """An anchor is written in this very form; its format's name changes with it."""
    recorded_at = datetime(2010, 12, 1, 8, 26, 0, 123456, tzinfo=UTC)
    write_anchor(
        tmp_path / "anchor.json", Anchor(9, bytes(range(32)), recorded_at, "stockledger", "cluster-1")
    )
    assert (tmp_path / "anchor.json").read_text() == ANCHOR


def test_the_mark_of_a_record_is_frozen():
    """What tells a lane's last record from any other covers key, value and headers, in this order."""
    packed = pack(b"tea", b"{}", [("ce_id", b"1"), ("note", None)], 4, 1291191960123)
    mark = Delivery(7, Bad("json", ""), packed).mark
    assert (mark.offset, mark.leader_epoch, mark.timestamp_ms) == (7, 4, 1291191960123)
    assert mark.digest.hex() == "de52dd8364d620632675204e1c90d0f2f18096cd44da5bb7ecce7df164510316"


def test_a_digest_covers_the_tables_in_this_order():
    """Register, events, cancellations, dead letters, conflicts, gaps: `verify` reads what a batch wrote."""
    tables = [str(lines).split("ledger.")[1].split()[0] for lines, _ in chain.LINES]
    assert tables == [
        "processed_message", "event", "cancellation", "dead_letter", "conflict", "gap",
    ]  # fmt: skip


def test_statements_know_all_types_of_events_and_both_kinds_of_streams():
    """SQL's list of types is the one that events are stored by; so are its names of streams."""
    assert re.findall(r"'(\w+)'", event.TYPES) == list(EVENTS)
    for part, stream in ((event.GOODS_ID, goods_stream("tea")), (event.USER_ID, user_stream("tea"))):
        [first] = re.findall(r"^substr\(stream, (\d)\)$", part)
        assert stream[int(first) - 1 :] == "tea"


def test_statements_know_all_shipped_projections():
    """SQL's list of them, by name and version, is the registry's."""
    listed = re.findall(r"\('(\w+)', (\d+)\)", dump.SHIPPED)
    assert listed == [(each.name, str(each.version)) for each in registry.SHIPPED]
