"""Work spread over connections, its results in order. Ctrl-C, or a result that isn't wanted, ends it all."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from threading import Event
from typing import TypeVar

import psycopg

from ledger import signals
from ledger.store.connection.database import Connection

T = TypeVar("T")

AHEAD = 64
"""How many pieces of work each connection may be ahead of the first one that isn't done."""
CANCEL_TIMEOUT_S = 5.0
CANCEL_INTERVAL_S = 0.2


def in_order(work: Iterable[Callable[[Connection], T]], connections: Sequence[Connection]) -> Generator[T]:
    """Do the pieces of work, one on each connection at a time, and yield what they return, in order.

    What one of them raises is raised here in its turn; then, and where nobody takes the rest, what runs is
    cancelled. One connection does its work in the caller's own thread.
    """
    if len(connections) == 1:
        yield from (piece(connections[0]) for piece in work)
        return
    ended = Event()
    free: SimpleQueue[Connection] = SimpleQueue()
    for conn in connections:
        free.put(conn)

    def do(piece: Callable[[Connection], T]) -> T:
        conn = free.get()
        try:
            if ended.is_set():
                raise CancelledError
            return piece(conn)
        finally:
            free.put(conn)

    running: deque[Future[T]] = deque()
    with ThreadPoolExecutor(len(connections), thread_name_prefix="verify") as pool:
        try:
            for piece in work:
                running.append(pool.submit(do, piece))
                if len(running) == AHEAD * len(connections):
                    yield signals.result(running.popleft())
            while running:
                yield signals.result(running.popleft())
        except BaseException:
            # Ctrl-C may come before a piece that runs is noted; a connection that is in use always is
            ended.set()
            while free.qsize() < len(connections):
                _cancel(connections)
            raise


def _cancel(connections: Sequence[Connection]) -> None:
    """End what runs, for once: a piece may be between two statements."""
    for conn in connections:
        with suppress(psycopg.Error):  # there may be nothing to cancel, or nobody
            conn.cancel_safe(timeout=CANCEL_TIMEOUT_S)
    time.sleep(CANCEL_INTERVAL_S)
