"""An anchor that was kept elsewhere finds what the chain can't: history that was rewritten as a whole."""

import pytest

from ledger.store import check, database, identity, journal
from ledger.store.copy import receive
from ledger.verify import BUDGETS
from ledger.verify.anchor import anchor_at, check_anchor
from ledger.verify.chain import LINES
from ledger.verify.scope import Sample, scope
from tests.postgres.test_verify import LOOSEN, differences
from tests.support.history import buys, history


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test", budgets=BUDGETS) as conn:
        yield conn


def reseal(conn) -> None:
    """What a forger who owns the database does last: make digests, chain and head fit the rows again."""
    previous = journal.GENESIS
    for row in journal.rows(conn, 1, journal.tip(conn).position):
        tables = [receive(conn, lines, row.entry, row.entry) for lines in LINES]
        digest = journal.stored_digest(row, [table.get(row.entry, []) for table in tables])
        previous = journal.chain(previous, digest)
        conn.execute(
            "UPDATE ledger.journal SET digest = %s, hash = %s WHERE position = %s",
            (digest, previous, row.position),
        )
    conn.execute("UPDATE ledger.head SET hash = %s", (previous,))


FORGERIES = {
    "a price": "UPDATE ledger.event SET payload = replace(payload::text, '250', '1')::json WHERE id = 'p1'",
    "a reason": "UPDATE ledger.processed_message SET reason = 'goods_not_found' WHERE id = 'p3'",
    "a dead letter's bytes": r"""UPDATE ledger.dead_letter SET value = '\x00' WHERE "offset" = 8""",
    "who accepted a gap": "UPDATE ledger.gap SET accepted_by = 'nobody' WHERE cause = 'records_deleted'",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_rewritten_history_is_found_by_an_anchor(conn, forgery):
    """Whoever changes a row and recomputes the whole chain passes every check, but not the anchor."""
    lanes = history(conn)
    anchor = anchor_at(conn, journal.tip(conn))
    lanes.apply(1, buys("p6", "anna", 1))
    assert differences(conn, anchors=[anchor]) == {}
    conn.execute(LOOSEN)
    assert conn.execute(FORGERIES[forgery]).rowcount > 0
    assert differences(conn, anchors=[anchor]).keys() == {"chain"}
    reseal(conn)
    assert differences(conn) == {}
    sentence = "position 7 has another hash than the anchor: history was rewritten"
    for looked_at in (None, scope(conn, since=7), scope(conn, sample=Sample(10, 1))):
        assert differences(conn, scope=looked_at, anchors=[anchor]) == {"anchor": sentence}


def test_what_follows_the_anchor_is_not_its_matter(conn):
    """An anchor proves history up to its position: what was rewritten behind it, a later one has to find."""
    lanes = history(conn)
    early = anchor_at(conn, journal.tip(conn))
    lanes.apply(1, buys("p6", "anna", 1, 100))
    late = anchor_at(conn, journal.tip(conn))
    conn.execute(LOOSEN)
    conn.execute("UPDATE ledger.event SET payload = replace(payload::text, '100', '1')::json WHERE id = 'p6'")
    reseal(conn)
    assert differences(conn, anchors=[early]) == {}
    assert differences(conn, anchors=[early, late]).keys() == {"anchor"}


def test_history_that_was_cut_short_is_found(conn):
    """Where the last entries are gone, and all else fits, the anchor is behind the end."""
    lanes = history(conn)
    lanes.apply(3, buys("nope", "ghost", 1))
    anchor = anchor_at(conn, journal.tip(conn))
    conn.execute(LOOSEN)
    conn.execute("DELETE FROM ledger.journal WHERE position = 8")
    conn.execute("DELETE FROM ledger.processed_message WHERE id = 'nope'")
    conn.execute("UPDATE ledger.lane SET next_offset = 0 WHERE partition = 3")
    conn.execute(
        "UPDATE ledger.head h SET (position, hash, recorded_at) = (SELECT position, hash, recorded_at"
        " FROM ledger.journal j WHERE j.position = 7)"
    )
    assert differences(conn) == {}
    assert differences(conn, anchors=[anchor]) == {
        "anchor": "the anchor is at position 8, the journal ends at 7"
    }


def test_the_anchor_of_another_ledger_is_refused(conn):
    """An anchor says whose it is, so that one of another ledger isn't taken for a forgery, or for a proof."""
    history(conn)
    identity.claim(conn, "stockledger", "this-cluster")
    anchor = anchor_at(conn, journal.tip(conn))
    assert (anchor.group, anchor.cluster_id) == ("stockledger", "this-cluster")
    assert check_anchor(conn, anchor).difference is None
    found = check_anchor(conn, anchor._replace(cluster_id="another"))
    assert found.difference == "the anchor is another ledger's"
    assert found.stored == {"group": "stockledger", "cluster_id": "this-cluster"}
    assert found.expected == {"group": "stockledger", "cluster_id": "another"}


def test_an_anchor_of_a_ledger_without_entries(conn):
    """Also a ledger that has just begun can be anchored; what comes later doesn't change that."""
    anchor = anchor_at(conn, journal.tip(conn))
    assert (anchor.position, anchor.recorded_at, anchor.group) == (0, None, None)
    assert differences(conn, anchors=[anchor]) == {}
    history(conn)
    assert differences(conn, anchors=[anchor]) == {}


def test_the_difference_is_shown_as_rows(conn):
    """The hash that is stored, and the one that the anchor makes expect."""
    history(conn)
    anchor = anchor_at(conn, journal.tip(conn))
    found = check_anchor(conn, anchor._replace(hash=bytes(32)))
    assert found.stored == {"position": 7, "hash": anchor.hash.hex()}
    assert found.expected == {"position": 7, "hash": bytes(32).hex()}
    assert check.Finding(7) == check_anchor(conn, anchor)
