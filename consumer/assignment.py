"""Taking over lanes: who may own them, where to read on, and when not to.

On assignment each lane's epoch is raised, and its stored offset and last applied record are read; the
reader starts at that record. Kafka's own committed offsets are never asked. Where the log doesn't fit what
the ledger has seen, it halts. A lane whose broker is away holds up no other: reading tells what Kafka didn't.
"""

import os
import socket
from collections.abc import Callable, Collection, Iterable

from consumer import known_log
from consumer.admin import TopicFacts, Watermarks, require_uncompacted
from consumer.clients import KafkaProperties
from consumer.known_log import require_records
from ledger import failpoints
from ledger.batch import apply_batch
from ledger.domain.delivery import Batch, Gap, Lane
from ledger.errors import Contended, RecordsLost
from ledger.store.connection.database import Connection, transaction
from ledger.store.connection.server import require_durable, require_whole, require_writable
from ledger.store.schema import migrate
from ledger.store.tables import lane
from ledger.store.tables.lane import Claim, Owner

AskMarks = Callable[[], Watermarks]


def preflight(conn: Connection, kafka: KafkaProperties, topics: Iterable[str]) -> list[TopicFacts]:
    """Check what can be wrong before anything is read or sent; changes nothing. Returns the topics.

    Raises SchemaMismatch, UnsafeSettings, IncompleteCopy, TopicReplaced or TopicUnfit, each with its remedy;
    ReadOnly, BrokerUnavailable. Whose the ledger is, is the next question: `identity.claim`.
    """
    migrate.require_current(conn)
    require_durable(conn)
    require_writable(conn)
    require_whole(conn)
    known = known_log.read(conn)
    found = [known.inspect(kafka, topic) for topic in topics]
    for facts in found:
        require_uncompacted(facts.name, facts.cleanup_policy)
    return found


def begin_lanes(conn: Connection, topics: Collection[TopicFacts], ask: AskMarks, start: str | None) -> None:
    """Make the topics' lanes known, all in one transaction, so that their start is decided once.

    `start` counts for a topic first met; a partition added to a known one is read from its beginning. One
    that is silent stays unknown, if no `start` has to be decided. Raises TopicReplaced, BrokerUnavailable, or
    RecordsLost if a log's head is already gone and no `start` says it is meant.
    """
    known = known_log.read(conn)
    begun = {row.lane for facts in topics for row in known.lanes_of(facts)}
    met = {own.topic for own in begun}
    new = {own: facts.topic_id for facts in topics for own in facts.lanes if own not in begun}
    if not new:
        return
    marks = ask()
    for own, silence in marks.silent.items():
        if own.topic not in met and start is not None:
            raise silence
    with transaction(conn):
        for own in sorted(new.keys() & marks.known.keys()):
            first, stable, _ = marks.known[own]
            if first > 0 and start is None:
                raise RecordsLost(
                    f"{own} begins at offset {first}: what was before is gone from Kafka",
                    remedy="run once with --start earliest to go on without it (recorded as a gap)",
                )
            # Not at the end: what an open transaction holds isn't there yet, and is still to come.
            begin_at = stable if start == "latest" and own.topic not in met else first
            lane.begin(conn, own, new[own], begin_at)


def claim_lanes(conn: Connection, ask: AskMarks, lanes: Iterable[Lane]) -> dict[Lane, Claim]:
    """Own these lanes, of those that are begun, from now on, and say where each is to be read from.

    Raises RecordsLost if Kafka doesn't have the lane's next record any more, or never had it. A claim has no
    mark where there is nothing to compare: nothing was applied, or retention has removed the record.
    """
    failpoints.hit("claim")
    claims: dict[Lane, Claim] = {}
    begun = {row.lane for row in lane.read_all(conn)}
    for own in sorted(begun.intersection(lanes)):
        claim = take_over(conn, own)
        if claim.next_offset < claim.start_offset:
            claim = _skip_to_start(conn, own, claim)
        claims[own] = claim
    # Not before: the last owner may have come further than an end that was asked for while he had the lane.
    marks = ask().known if claims else {}
    for own in claims.keys() & marks.keys():
        claim, there = claims[own], marks[own]
        require_records(own, claim.next_offset, there.first, there.end)
        if claim.mark and claim.mark.offset < there.first:
            claims[own] = claim._replace(mark=None)
    return claims


def take_over(conn: Connection, own: Lane) -> Claim:
    """Own the lane: raise its epoch once its last owner's transaction has ended."""
    owner = Owner(socket.gethostname(), os.getpid())
    try:
        return lane.claim(conn, own, owner)
    except Contended:
        # The last owner holds the row past our lock timeout: frozen, or its COMMIT hangs. Either way its
        # transaction ends here, as a whole, one way or the other.
        lane.terminate_owner(conn, own)
        return lane.claim(conn, own, owner)


def _skip_to_start(conn: Connection, own: Lane, claim: Claim) -> Claim:
    gap = Gap(claim.next_offset, claim.start_offset, "before_start", accepted_by="--start")
    apply_batch(conn, Batch(own, claim.next_offset, claim.start_offset, [], [gap]), claim.epoch)
    return claim._replace(next_offset=claim.start_offset)
