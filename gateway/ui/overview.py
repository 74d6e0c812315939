"""How things stand at a glance; and again whenever that changes, as long as somebody looks.

However many look, the ledger and Kafka are asked once in a while for all of them.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from gateway.door import Door
from gateway.problem import Problem
from gateway.streams import MEDIA_TYPE
from gateway.ui import chart
from gateway.ui.pages import ROOT, html, page, shared
from ledger.errors import LedgerError
from ledger.store.reads import paces
from ledger.store.reads.paces import Pace

FRESH_S = 2.0
STRETCHES, STRETCH_S = 30, 10
RATED = 6
"""The rates are those of so many stretches: a minute."""
STREAM_S = 300.0
"""A stream ends then, and the browser asks for the next one: who may look is judged again."""


class Glance:
    """How things stood a moment ago; asked for by one at a time."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._turn = asyncio.Lock()
        self._until = 0.0
        self._seen: dict[str, Any] = {}

    async def now(self) -> dict[str, Any]:
        """What the page shows. What can't be had is a `problem` in it."""
        async with self._turn:
            if time.monotonic() >= self._until:
                self._seen = await self._look()
                self._until = time.monotonic() + FRESH_S
            return self._seen

    async def _look(self) -> dict[str, Any]:
        seen_at = datetime.now(UTC)
        try:
            standing = await self._door.ask(self._door.reads.operations.standing)
            lately = await self._door.read(lambda conn: paces.lately(conn, STRETCHES, STRETCH_S))
            proof = await self._door.read(self._door.reads.operations.proof)
        except LedgerError as error:
            return {"problem": Problem.of(error).body, "seen_at": seen_at}
        rates = [sum(each) / (RATED * STRETCH_S) for each in zip(*lately[-RATED:], strict=True)]
        return {
            "problem": None,
            "seen_at": seen_at,
            "standing": standing,
            "rates": dict(zip(Pace._fields, rates, strict=True)),
            "bars": chart.bars(lately),
            "waits": self._door.meter.purchases(),
            "proof": proof,
            "cares": cares(standing, proof),
        }


def cares(standing: dict[str, Any], proof: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What somebody should look at, and where; nothing: all is well."""
    found = []
    if proof and proof["trouble"]:
        found.append((f"the last proof doesn't hold: {proof['trouble']}", "#proof"))
    if standing["error"]:
        found.append((f"Kafka: {standing['error']['message']}", "lanes"))
    if still := len(standing["still"]):
        found.append(
            (f"{still} of {len(standing['lanes'])} lanes have records to apply and don't move", "lanes")
        )
    if standing["hidden"]:
        found.append((f"open transactions hide records of {len(standing['hidden'])} lanes", "lanes"))
    if parked := standing["letters"].get("parked"):
        found.append((f"{parked} dead letters are parked", "dead-letters?status=parked"))
    return found


def routes(door: Door) -> APIRouter:
    """The page, and the stream of what moves on it."""
    router = APIRouter()
    glance = Glance(door)

    @router.get(ROOT)
    async def overview(request: Request) -> Response:
        return page(request, "overview.html", **await glance.now())

    @router.get(f"{ROOT}live")
    async def live(request: Request) -> Response:
        door.streams.require(1)
        return StreamingResponse(_told(door, glance, shared(request.scope)), media_type=MEDIA_TYPE)

    return router


async def _told(door: Door, glance: Glance, common: dict[str, Any]) -> AsyncIterator[bytes]:
    until = time.monotonic() + STREAM_S
    with door.streams.taken():
        while not door.is_draining and time.monotonic() < until:
            text = html("_glance.html", common | await glance.now())
            data = "".join(f"data: {line}\n" for line in text.splitlines())
            yield f"event: glance\n{data}\n".encode()
            await _pause(door)


async def _pause(door: Door) -> None:
    until = time.monotonic() + FRESH_S
    while time.monotonic() < until and not door.is_draining:
        await asyncio.sleep(0.1)
