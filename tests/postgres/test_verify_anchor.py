"""An anchor that was kept elsewhere finds what the chain can't: history that was rewritten as a whole."""

from datetime import timedelta

import pytest

from ledger.domain.commands import RegisterUser
from ledger.domain.delivery import Request
from ledger.store.connection import database
from ledger.store.connection.copy import receive
from ledger.store.rules import audit
from ledger.store.tables import identity, journal
from ledger.verify.anchor import anchor_at, check_anchor
from ledger.verify.chain import LINES
from ledger.verify.run import BUDGETS
from ledger.verify.scope import Sample, scope_of
from tests.postgres.test_verify import LOOSEN, differences
from tests.support.batches import read, says
from tests.support.history import buys, history


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test", budgets=BUDGETS) as conn:
        yield conn


def reseal(conn) -> None:
    """What a forger who owns the database does last: make digests, chain and head fit the rows again."""
    previous = journal.GENESIS
    for row in journal.rows(conn, 1, journal.tip(conn).position):
        tables = [receive(conn, lines, row.entry, row.entry) for lines, _ in LINES]
        digest = journal.stored_digest(row, [table.get(row.entry, []) for table in tables])
        previous = journal.chain(previous, row._replace(digest=digest))
        conn.execute(
            "UPDATE ledger.journal SET digest = %s, hash = %s WHERE position = %s",
            (digest, previous, row.position),
        )
    conn.execute("UPDATE ledger.head SET hash = %s", (previous,))


FORGERIES = {
    "a payload that was rejected": """
        UPDATE ledger.processed_message SET fingerprint = substr(sha256(''), 1, 16) WHERE id = 'p3'
    """,
    "a reason": "UPDATE ledger.processed_message SET reason = 'goods_not_found' WHERE id = 'p3'",
    "a dead letter's bytes": r"""UPDATE ledger.dead_letter SET value = '\x00' WHERE "offset" = 8""",
    "a time": "UPDATE ledger.journal SET recorded_at = recorded_at - '1 minute'::interval WHERE position = 1",
    "an epoch": "UPDATE ledger.journal SET epoch = 1 WHERE position = 5",
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
    for looked_at in (None, scope_of(conn, since=7), scope_of(conn, sample=Sample(10, 1))):
        assert differences(conn, scope=looked_at, anchors=[anchor]) == {"anchor": sentence}


SWAPPED = """
UPDATE ledger.event SET user_id = 'eve', payload = replace(payload::text, 'anna', 'eve')::json WHERE id = 'p5'
"""


def test_a_swapped_buyer_needs_no_anchor(conn):
    """Who changes an event and recomputes the whole chain leaves the register's fingerprint as it was: it is
    recomputed from the event. Who changes that, too, has another one than Kafka's record."""
    lanes = history(conn)
    lanes.apply(1, says("u9", RegisterUser(user_id="eve")))
    conn.execute(LOOSEN)
    conn.execute(SWAPPED)
    request = read(0, buys("p5", "eve", 5)).content
    assert isinstance(request, Request)
    reseal(conn)
    assert "fingerprints" in differences(conn, deliveries=lanes.deliveries)
    conn.execute(
        "UPDATE ledger.processed_message SET fingerprint = %s WHERE id = 'p5'", (request.fingerprint,)
    )
    reseal(conn)
    found = differences(conn, deliveries=lanes.deliveries)
    assert "fingerprints" not in found
    assert str(found["topic"]).endswith("message shop p5 has another payload, but there is no conflict")


def test_what_follows_the_anchor_is_not_its_matter(conn):
    """An anchor proves history up to its position: what was rewritten after it, a later one has to find."""
    lanes = history(conn)
    early = anchor_at(conn, journal.tip(conn))
    lanes.apply(1, buys("p6", "anna", 1000))
    late = anchor_at(conn, journal.tip(conn))
    conn.execute(LOOSEN)
    conn.execute("UPDATE ledger.processed_message SET reason = 'goods_not_found' WHERE id = 'p6'")
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
    time = anchor.recorded_at
    assert time
    assert found.stored
    assert found.expected == {"position": 7, "hash": bytes(32).hex(), "recorded_at": time}
    found = check_anchor(conn, anchor._replace(recorded_at=time + timedelta(microseconds=1)))
    assert found.difference == "position 7 was recorded at another time than the anchor says"
    assert found.stored
    assert found.stored["recorded_at"] == time
    assert audit.CheckFinding(7) == check_anchor(conn, anchor)
