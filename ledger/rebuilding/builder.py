"""One process builds a projection, for as long as its session lasts. A dead one is taken over.

The lock fences nothing: the checkpoint's compare-and-set does. It keeps a second rebuild from starting.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from ledger.errors import RebuildRunning
from ledger.projections.projection import Projection
from ledger.store.connection import obstacle, session
from ledger.store.connection.database import Connection, faults
from ledger.store.reads import ranges
from ledger.store.tables import projection_state
from ledger.store.tables.projection_state import Generation

TAKE_OVER_S = 5.0
ENDING_S = 1.0
"""A session that was just closed may still hold its lock: the server hears of it a little later."""
WORK_MEM = "256MB"
"""The server may take it twice: to group a chunk, and to sort it."""

Connect = Callable[[], Connection]
"""Makes a connection in autocommit."""


@contextmanager
def builder(connect: Connect, projection: Projection) -> Iterator[Connection]:
    """A connection that is the projection's one builder. Raises RebuildRunning, naming the other one."""
    with closing(connect()) as conn:
        with faults():
            session.prepare_session(conn, WORK_MEM)
            if not session.try_builder_lock(conn, projection.name):
                _take_over(conn, projection)
        yield conn


def _take_over(conn: Connection, projection: Projection) -> None:
    found = [g for g in projection_state.generations(conn, projection.name) if g.builder_pid]
    other = max(found, key=lambda g: (g.status == "building", g.started_at), default=None)
    dead = other is None or (other.builder_host == socket.gethostname() and not _alive(other.builder_pid))
    deadline = time.monotonic() + (TAKE_OVER_S if dead else ENDING_S)
    while time.monotonic() < deadline:
        if dead and other:
            session.terminate(conn, other.backend_pid, other.backend_start)
        if session.try_builder_lock(conn, projection.name):
            return
        time.sleep(0.05)
    held_by = obstacle.holder(conn, session.builder_key(conn, projection.name), only_key=True)
    if held_by and (other is None or held_by.pid != other.backend_pid):
        raise RebuildRunning(
            f"the lock of {projection.name}'s builder is held by {held_by}", remedy=held_by.remedy
        )
    raise _running(conn, projection, other)


def _running(conn: Connection, projection: Projection, other: Generation | None) -> RebuildRunning:
    who = "somebody else"
    if other:
        total = ranges.events_between(conn, 0, other.target)
        percent = ranges.events_between(conn, 0, other.position) * 100 // total if total else 100
        since = other.started_at.isoformat(sep=" ", timespec="seconds")
        who = f"{other.builder_host} pid {other.builder_pid} (since {since}, {percent} %)"
    remedy = "stockledger status"
    return RebuildRunning(f"{projection.name} is being rebuilt by {who}", remedy=remedy)


def _alive(pid: int | None) -> bool:
    try:
        os.kill(pid or 0, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
