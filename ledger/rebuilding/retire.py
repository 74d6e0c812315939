"""Drop generations that nobody needs any more: cancelled, superseded, left over by a crash.

A generation is first marked `dropping`, which ends whoever builds or follows it, then its table is dropped,
then its row. What a crash leaves half done, the next run finishes. Needs the database's owner, in autocommit.
"""

import time
from collections.abc import Callable

from ledger import failpoints
from ledger.errors import Contended, ProjectionRefused, ProjectionUnknown
from ledger.projections.projection import Projection
from ledger.projections.registry import SHIPPED
from ledger.store.connection import session
from ledger.store.connection.database import Budgets, Connection, faults, transaction
from ledger.store.tables import partitions, projection_state
from ledger.store.tables.projection_state import Generation

DROP_ATTEMPTS = 20
BATCH_LONGEST_S = Budgets().transaction_timeout_ms / 1000


def resumable(projection: Projection, generation: Generation) -> bool:
    """Whether a rebuild by this build of the code goes on with it."""
    return generation.status == "building" and generation.version == projection.version


def newest_standby(found: list[Generation]) -> Generation | None:
    """The generation that was live before the live one."""
    standbys = [g for g in found if g.status == "standby" and g.swapped_at]
    return max(standbys, key=lambda g: g.swapped_at or g.started_at, default=None)


def drop_projection(conn: Connection, name: str) -> list[int]:
    """Remove an own projection: its view, its generations, its table. Its package need not be there.

    Returns the generations' numbers. Raises ProjectionRefused for a shipped one, ProjectionUnknown where
    nothing of this name is there.
    """
    if name in (each.name for each in SHIPPED):
        raise ProjectionRefused(
            f"{name} is shipped, and can't be dropped", remedy=f"stockledger rebuild {name}"
        )
    with transaction(conn):
        projection_state.lock(conn, name)
        found = projection_state.generations(conn, name)
        if not found:
            raise ProjectionUnknown(f"there is no projection {name} here", remedy="stockledger status")
        partitions.unpublish(conn, name)
        for each in found:
            projection_state.set_status(conn, name, each.generation, was=each.status, now="dropping")
    _drop_all(conn, name, inline=False)
    with transaction(conn):
        for relation in {each.relation for each in found}:
            partitions.drop_table(conn, relation)
    return [each.generation for each in found]


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
        projection_state.lock(conn, projection.name)
        chosen = choose(projection_state.generations(conn, projection.name))
        for each in chosen:
            projection_state.set_status(
                conn, projection.name, each.generation, was=each.status, now="dropping"
            )
    _drop_all(conn, projection.name, inline=projection.inline)
    return [each.generation for each in chosen]


def _drop_all(conn: Connection, name: str, *, inline: bool) -> None:
    """Drop the tables that are to be dropped, then forget them; waits for transactions that still use one."""
    with faults(), session.dropping(conn, name):
        found = [g for g in projection_state.generations(conn, name) if g.status == "dropping"]
        if found and inline:
            _outwait_batches(conn)
        for each in found:
            _drop(conn, each)
            failpoints.hit("rebuild.drop")
            projection_state.forget(conn, name, each.generation)


def _drop(conn: Connection, generation: Generation) -> None:
    for attempt in range(DROP_ATTEMPTS):
        try:
            with faults():
                partitions.drop(conn, generation.relation, generation.generation)
            return
        except Contended:
            if attempt == DROP_ATTEMPTS - 1:
                raise
            time.sleep(0.2)


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
