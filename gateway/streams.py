"""Events as they happen: server-sent events, each with its place as its id, so who was cut off goes on there.

A stream holds no thread, and asks nobody while nothing happens: the cache of this process says when the
journal has moved. Each read proves that the history is the one that was told so far.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from gateway.door import Door
from gateway.problem import Problem, written
from ledger.domain.token import Token
from ledger.errors import LedgerError, Retry
from ledger.history import events
from ledger.history.pages import EventPage
from ledger.store.connection.database import Connection
from ledger.store.reads.history import StoredEvent

MEDIA_TYPE = "text/event-stream"
AT_A_TIME = 500
LOOK_INTERVAL_S = 0.05
KEEP_ALIVE_S = 15.0
"""So often a line is sent where nothing happens: proxies cut what is silent, and the dead are noticed."""
AGAIN_AFTER_S = 1.0

Read = Callable[[Connection, Sequence[str]], EventPage]
"""Reads the next page, in the history that the tokens are of."""


class Following(NamedTuple):
    """Where a stream stands: how to read what comes next, and how to say so after these events were told."""

    read: Read
    after: Callable[[StoredEvent], "Following"]
    ended: Callable[[int], "Following"]
    """After all up to this position was told."""


def wanted(request: Request) -> bool:
    """Whether the client asks for a stream."""
    return MEDIA_TYPE in request.headers.get("accept", "")


async def stream(door: Door, following: Following) -> Response:
    """The stream. What is wrong with the place or the history is told before it begins. Raises Problem."""
    door.streams.require(1)
    first = await _page(door, following, ())
    return StreamingResponse(_told(door, following, first), media_type=MEDIA_TYPE)


async def _page(door: Door, following: Following, known: Sequence[str]) -> EventPage:
    return await door.read(lambda conn: following.read(conn, known), surely=True)


async def _told(door: Door, following: Following, page: EventPage) -> AsyncIterator[bytes]:
    with door.streams.taken():
        while not door.is_draining:
            for each in page.events:
                yield _event(each, page.source)
            end = Token.parse(page.token).position
            if page.events:
                following = following.after(page.events[-1])
            if not page.more:
                following = following.ended(end)
                if not await _has_moved(door, end):
                    yield b": nothing yet\n\n"
            try:
                page = await _page(door, following, [page.token])
            except LedgerError as error:
                if not isinstance(error, Retry):
                    yield _fault(error)
                    return
                page = page._replace(events=[], more=False)
                await asyncio.sleep(AGAIN_AFTER_S)


async def _has_moved(door: Door, end: int) -> bool:
    """Wait until the journal has gone on, but not for longer than a proxy bears silence."""
    until = time.monotonic() + KEEP_ALIVE_S
    while time.monotonic() < until and not door.is_draining:
        position = door.reads.cache.status().position
        if position is not None and position > end:
            return True
        await asyncio.sleep(LOOK_INTERVAL_S)
    return False


def _event(stored: StoredEvent, source: str) -> bytes:
    line = events.cloud_event(stored, source).strip()
    return f"id: {stored.position}.{stored.ordinal}\ndata: {line}\n\n".encode()


def _fault(error: LedgerError) -> bytes:
    return b"event: problem\ndata: " + written(Problem.of(error).told()) + b"\n"
