"""Work spread over connections, its results in order. Ctrl-C, or a result that isn't wanted, ends it all."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar

import psycopg

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
    free: SimpleQueue[Connection] = SimpleQueue()
    for conn in connections:
        free.put(conn)

    def do(piece: Callable[[Connection], T]) -> T:
        conn = free.get()
        try:
            return piece(conn)
        finally:
            free.put(conn)

    running: deque[Future[T]] = deque()
    with ThreadPoolExecutor(len(connections), thread_name_prefix="verify") as pool:
        try:
            for piece in work:
                running.append(pool.submit(do, piece))
                if len(running) == AHEAD * len(connections):
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        except BaseException:
            _cancel(running, connections)
            raise


def _cancel(running: Iterable[Future[T]], connections: Sequence[Connection]) -> None:
    """Begin nothing more, and end what runs. Again and again: a piece may be between two statements."""
    left = {piece for piece in running if not piece.cancel()}
    while left:
        for conn in connections:
            with suppress(psycopg.Error):  # there may be nothing to cancel, or nobody
                conn.cancel_safe(timeout=CANCEL_TIMEOUT_S)
        left = wait(left, timeout=CANCEL_INTERVAL_S).not_done
