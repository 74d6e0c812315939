"""Generations that nobody needs any more: cancelled, superseded, left over by a crash. Made for repetition.

A generation is first marked `dropping`, which ends whoever builds or follows it, then its table is dropped,
then its row: a crash in between is finished by the next one. Needs the database's owner, in autocommit.
"""

import time
from collections.abc import Callable

from ledger import failpoints
from ledger.errors import Contended
from ledger.projections.projection import Projection
from ledger.store import generation as tables
from ledger.store import projection as pointer
from ledger.store import session
from ledger.store.database import Budgets, Connection, faults, transaction
from ledger.store.projection import Generation

DROP_ATTEMPTS = 20
BATCH_LONGEST_S = Budgets().transaction_timeout_ms / 1000


def resumable(projection: Projection, generation: Generation) -> bool:
    """Whether a rebuild by this build of the code goes on with it."""
    return generation.status == "building" and generation.version == projection.version


def newest_standby(found: list[Generation]) -> Generation | None:
    """The generation that was live before the live one."""
    standbys = [g for g in found if g.status == "standby" and g.swapped_at]
    return max(standbys, key=lambda g: g.swapped_at or g.started_at, default=None)


def cancel(conn: Connection, projection: Projection) -> int | None:
    """End the rebuild of this projection, running or not, and drop what it built. Returns the generation."""
    dropped = _retire(conn, projection, lambda found: [g for g in found if g.status == "building"])
    return dropped[0] if dropped else None


def drop_old(conn: Connection, projection: Projection) -> list[int]:
    """Drop the standby generations: no way back any more. Returns their numbers."""
    return _retire(conn, projection, lambda found: [g for g in found if g.status == "standby"])


def clear(conn: Connection, projection: Projection) -> None:
    """Drop what nobody needs: older standbys, builds of another version, what a crash left over."""

    def unneeded(found: list[Generation]) -> list[Generation]:
        newest = newest_standby(found)
        old = [g for g in found if g.status == "standby" and newest and g.generation != newest.generation]
        foreign = [g for g in found if g.status == "building" and not resumable(projection, g)]
        return old + foreign

    _retire(conn, projection, unneeded)


def _retire(
    conn: Connection, projection: Projection, choose: Callable[[list[Generation]], list[Generation]]
) -> list[int]:
    """Mark the chosen generations and drop all that are marked. Returns the numbers of the chosen."""
    with transaction(conn):
        pointer.lock(conn, projection.name)
        chosen = choose(pointer.generations(conn, projection.name))
        for each in chosen:
            pointer.set_status(conn, projection.name, each.generation, was=each.status, now="dropping")
    _drop_all(conn, projection)
    return [each.generation for each in chosen]


def _drop_all(conn: Connection, projection: Projection) -> None:
    """Drop the tables that are to be dropped, then forget them; waits for transactions that still use one."""
    with faults():
        found = [g for g in pointer.generations(conn, projection.name) if g.status == "dropping"]
    if found and projection.inline:
        _outwait_batches(conn)
    for each in found:
        for attempt in range(DROP_ATTEMPTS):
            try:
                with faults():
                    tables.drop(conn, projection.table, each.generation)
                break
            except Contended:
                if attempt == DROP_ATTEMPTS - 1:
                    raise
                time.sleep(0.2)
        failpoints.hit("rebuild.drop")
        with faults():
            pointer.forget(conn, projection.name, each.generation)


def _outwait_batches(conn: Connection) -> None:
    """Wait for the batches that loaded a generation before it ceased to be live.

    They can't seal, but they may still read and write it: a partition that is detached under their hands
    would look like a defect to them, which halts a worker, instead of a lost race.
    """
    deadline = time.monotonic() + BATCH_LONGEST_S
    with faults():
        mark = session.horizon(conn)
        while not session.passed(conn, mark) and time.monotonic() < deadline:
            time.sleep(0.02)
