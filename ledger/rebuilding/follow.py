"""Following: what the journal says after a generation's checkpoint is folded into it, range by range.

A range and the checkpoint's move over it are one transaction, begun by holding the generation's row, so
several projectors may run: one works, the others pass by. The checkpoint moves by compare-and-set all the
same. A projector and a rebuild go forward by the same `advance`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ledger import failpoints
from ledger.projections.projection import Projection
from ledger.rebuilding.fold import fold_range, in_transaction
from ledger.store.connection.database import Connection, faults
from ledger.store.reads import ranges
from ledger.store.reads.ranges import Range
from ledger.store.tables import projection_state
from ledger.store.tables.projection_state import Generation, Moving

FOLLOWED = ["live", "standby"]
RANGE_EVENTS = 100_000
"""A transaction applies about so many events; an entry is never cut."""
ROUND_EVENTS = 200_000
"""The same, where a rebuild catches up."""
REST_EVENTS = 5_000
"""What the last round of catching up may apply."""
BUSY_WAIT_S = 0.01


@dataclass(frozen=True)
class Step:
    """The outcome of one look at a generation: the range applied; if None, whether another one is at it."""

    applied: Range | None
    busy: bool = False


def follow_once(conn: Connection, projection: Projection, events: int = RANGE_EVENTS) -> list[Step]:
    """One range, of about so many events, for each generation that this build can follow.

    The connection must be in autocommit.
    Raises ProjectionFault where an event can't be applied; what was applied before it stays.
    """
    with faults():
        found = projection_state.generations(conn, projection.name)
    mine = [each.generation for each in found if follows(projection, each)]
    return [advance(conn, projection, generation, events=events) for generation in mine]


def follows(projection: Projection, generation: Generation) -> bool:
    """Whether a projector moves it, as it was read: not what batches write, nor what another version made.

    A hint, to pass it by; the statements that hold and move the checkpoint decide.
    """
    by_batches = projection.inline and generation.status == "live"
    return generation.status in FOLLOWED and not by_batches and generation.version == projection.version


def advance(
    conn: Connection,
    projection: Projection,
    generation: int,
    *,
    upto: int | None = None,
    events: int = RANGE_EVENTS,
    statuses: Sequence[str] = FOLLOWED,
) -> Step:
    """Fold the next range into the generation, in a transaction of its own."""
    with faults():
        at = projection_state.position(conn, moving(projection, generation, statuses))
        found = ranges.next_range(conn, at, ranges.head(conn) if upto is None else upto, events)
    if found is None:
        return Step(None)
    applied = _fold_and_move(conn, projection, generation, found, statuses)
    return Step(applied, busy=applied is None)


def _fold_and_move(
    conn: Connection, projection: Projection, generation: int, events: Range, statuses: Sequence[str]
) -> Range | None:
    """Fold the range and move the checkpoint over it, in one transaction. None: another one holds it.

    Raises ProjectionFault naming the event that can't be applied; nothing of the range is then.
    """

    which = moving(projection, generation, statuses)

    def fold() -> bool:
        if projection_state.hold(conn, which) != events.first - 1:
            return False
        fold_range(conn, projection, generation, events)
        failpoints.hit("follow.applied")
        projection_state.move(conn, which, events.first, events.last)
        return True

    return events if in_transaction(conn, projection, generation, [events], fold) else None


def moving(projection: Projection, generation: int, statuses: Sequence[str]) -> Moving:
    """The generation, to be moved by this build while it has one of these statuses."""
    return Moving(projection.name, generation, projection.version, list(statuses))


def catch_up(conn: Connection, projection: Projection, live: Generation, number: int, status: str) -> None:
    """Bring the generation to where it can be compared with the live one, but for what comes meanwhile.

    The last round applies `REST_EVENTS` at most, so little comes while it lasts: that is left for the lock.
    """
    ranges.summarize_events(conn)
    while True:
        upto = _goal(conn, projection, live)
        at = projection_state.find(conn, projection.name, number).position
        with faults():
            left = ranges.events_between(conn, at, upto)
        while at < upto:
            step = advance(conn, projection, number, upto=upto, events=ROUND_EVENTS, statuses=[status])
            at = projection_state.find(conn, projection.name, number).position
            if step.busy:
                time.sleep(BUSY_WAIT_S)  # a projector is at it
        if left <= REST_EVENTS:
            return


def _goal(conn: Connection, projection: Projection, live: Generation) -> int:
    """The position to which another generation may be brought, to be compared with the live one.

    It is the head where batches write the live one; else where the live one is, once it was brought on.
    """
    if live.inline or not follows(projection, live):
        with faults():
            return ranges.head(conn)
    while True:
        step = advance(conn, projection, live.generation, events=ROUND_EVENTS)
        if step.busy:
            time.sleep(BUSY_WAIT_S)  # a projector is at it
        elif step.applied is None:
            return projection_state.find(conn, projection.name, live.generation).position
