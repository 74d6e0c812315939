"""An anchor: a position, its hash, and whose ledger it is, kept where the database's owner can't change it.

Whoever rewrites history and recomputes the whole chain ends with other hashes than the anchor's. The hash at
a position covers every row up to it, so a full run, which recomputes the chain from the rows, proves with it
that nothing at or before the anchor was changed. A run over a part proves that the hash is still there.
"""

from datetime import datetime
from typing import NamedTuple

from ledger.store.connection.database import Connection, faults
from ledger.store.reads.history import moment
from ledger.store.rules.audit import CheckFinding
from ledger.store.tables import identity, journal
from ledger.verify.chain import stored_hash


class Anchor(NamedTuple):
    """What is kept elsewhere. `recorded_at` is the entry's time, None at position 0; `group` and `cluster_id`
    say whose ledger it is, None where no worker has run yet."""

    position: int
    hash: bytes
    recorded_at: datetime | None
    group: str | None
    cluster_id: str | None


def anchor_at(conn: Connection, tip: journal.Tip) -> Anchor:
    """The anchor of this ledger at the tip."""
    with faults():
        return Anchor(*tip, moment(conn, tip.position).recorded_at, *identity.read(conn))


def check_anchor(conn: Connection, anchor: Anchor) -> CheckFinding:
    """This ledger's history is the one that the anchor was taken of. Counts the entries up to it."""
    whose, ours = (anchor.group, anchor.cluster_id), identity.read(conn)
    if None not in whose and whose != ours:
        names = ("group", "cluster_id")
        pair = dict(zip(names, ours, strict=True)), dict(zip(names, whose, strict=True))
        return CheckFinding(0, "the anchor is another ledger's", *pair)
    expected = {"position": anchor.position, "hash": anchor.hash.hex(), "recorded_at": anchor.recorded_at}
    stored = stored_hash(conn, anchor.position)
    if stored is None:
        end = journal.tip(conn)
        words = f"the anchor is at position {anchor.position}, the journal ends at {end.position}"
        return CheckFinding(0, words, {"position": end.position, "hash": end.hash.hex()}, expected)
    if stored != anchor.hash:
        words = f"position {anchor.position} has another hash than the anchor: history was rewritten"
        return CheckFinding(0, words, {"position": anchor.position, "hash": stored.hex()}, expected)
    recorded_at = moment(conn, anchor.position).recorded_at if anchor.position else None
    if recorded_at != anchor.recorded_at:
        words = f"position {anchor.position} was recorded at another time than the anchor says"
        return CheckFinding(0, words, expected | {"recorded_at": recorded_at}, expected)
    return CheckFinding(anchor.position)
