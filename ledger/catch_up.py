"""Bring a generation to where the live one is, or so near that the rest fits under a lock."""

import time

from ledger.errors import ProjectionRefused
from ledger.follow import advance, follows
from ledger.projections.projection import Projection
from ledger.store import projection as pointer
from ledger.store import spans
from ledger.store.database import Connection, faults
from ledger.store.projection import Generation

REST_EVENTS = 5_000
"""What the last round may apply."""
CHUNK_EVENTS = 200_000


def find(conn: Connection, projection: Projection, number: int) -> Generation:
    """The generation as it is now. Raises ProjectionRefused if it is gone."""
    with faults():
        for each in pointer.generations(conn, projection.name):
            if each.generation == number:
                return each
    raise ProjectionRefused(f"generation {number} of {projection.name} was removed meanwhile")


def live_of(conn: Connection, projection: Projection) -> Generation:
    """The live generation. Raises ProjectionRefused if the projection isn't known here yet."""
    with faults():
        for each in pointer.generations(conn, projection.name):
            if each.status == "live":
                return each
    remedy = f"stockledger project {projection.name} --until-caught-up"
    raise ProjectionRefused(f"{projection.name} was never built here", remedy=remedy)


def goal(conn: Connection, projection: Projection, live: Generation) -> int:
    """Up to which position another generation may be brought to be compared with the live one.

    That is the head where batches write the live one; else where the live one is, once it was brought on.
    """
    if live.inline or not follows(projection, live):
        with faults():
            return spans.head(conn)
    while True:
        step = advance(conn, projection, live.generation, events=CHUNK_EVENTS)
        if step.busy:
            time.sleep(0.01)  # a projector is at it
        elif step.applied is None:
            return find(conn, projection, live.generation).position


def catch_up(conn: Connection, projection: Projection, live: Generation, number: int, status: str) -> None:
    """Bring the generation to where it can be compared with the live one, but for what comes meanwhile.

    The last round applies `REST_EVENTS` at most, so little comes while it lasts: that is left for the lock.
    """
    spans.summarize(conn)
    while True:
        upto = goal(conn, projection, live)
        at = find(conn, projection, number).position
        with faults():
            left = spans.events_between(conn, at, upto)
        while at < upto:
            step = advance(conn, projection, number, upto=upto, events=CHUNK_EVENTS, statuses=[status])
            at = find(conn, projection, number).position
            if step.busy:
                time.sleep(0.01)  # a projector is at it
        if left <= REST_EVENTS:
            return
