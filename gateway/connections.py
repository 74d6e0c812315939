"""Connections: how many there may be, and for how long one may keep the server waiting.

Each is either at work or waits for its client: for a whole request head, or until an answer is taken. uvicorn
bounds only the silence between two requests, so whoever drips bytes is bounded here.
"""

import asyncio
import resource
import socket
import struct
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.problem import Problem, refusal

HEAD_WAIT_S = 10.0
KEEP_ALIVE_S = 30
TAKE_WAIT_S = 30.0
LOOK_INTERVAL_S = 1.0
CONNECTIONS_MAX = 10_000
LINGERS_NOT = struct.pack("ii", 1, 0)
KEPT_FILES = 100
"""So many descriptors are no client's: Kafka's, the database's, the tokens file's."""


def places() -> int:
    """How many clients may be connected. The process's limit of open files is raised as far as it needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MAX + KEPT_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):  # some systems grant less than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = CONNECTIONS_MAX if soft == resource.RLIM_INFINITY else min(CONNECTIONS_MAX, soft - KEPT_FILES)
    return max(most, 1)


def connection_class(most: int) -> type[H11Protocol]:
    """uvicorn's connection. What it can't read is refused as all else is, and so is one more than `most`."""
    full = refusal(
        Problem(
            503,
            f"{most} clients are connected already, so this one isn't heard: nothing was published",
            remedy="send the same again later",
            retryable=True,
        )
    )
    unreadable = refusal(Problem.bad("", "this is no HTTP request that can be read"))

    class Connection(H11Protocol):
        """One client's."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > most:
                transport.write(full)
                transport.close()

        def data_received(self, data: bytes) -> None:
            if not self.transport.is_closing():
                super().data_received(data)

        def send_400_response(self, msg: str) -> None:
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # else it was answered already
                self.transport.write(unreadable)
            self.transport.close()

    return Connection


class Patience:
    """Which connections keep the server waiting, and since when."""

    def __init__(self) -> None:
        self._since: dict[H11Protocol, tuple[object, float]] = {}

    def look(self, connections: Iterable[Any]) -> None:
        """Cut those that have kept it waiting for too long."""
        now, waiting = time.monotonic(), dict[H11Protocol, tuple[object, float]]()
        for each in connections:
            if (found := _waits_for(each)) is None:
                continue
            what, at_most_s = found
            known = self._since.get(each)
            since = known[1] if known and known[0] is what else now
            if now - since > at_most_s:
                _cut(each.transport)
            waiting[each] = (what, since)
        self._since = waiting


def _cut(transport: asyncio.Transport) -> None:
    """End it at once: nobody goes on sending to a client that takes nothing."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGERS_NOT)
    transport.abort()


def _waits_for(connection: H11Protocol) -> tuple[object, float] | None:
    """What of its client, and for how long at most: that it takes an answer, or sends a request's head."""
    if connection.transport.get_write_buffer_size():
        return "taking", TAKE_WAIT_S
    cycle: Any = connection.cycle
    if cycle is None:
        return None, HEAD_WAIT_S
    return (cycle, KEEP_ALIVE_S + HEAD_WAIT_S) if cycle.response_complete else None
