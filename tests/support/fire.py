"""Impatient clients of several gateways, all in one event loop: each asks until it is told an outcome."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from tests.support.raw import answers, framed

TIMEOUTS_S = (0.02, 0.1, 0.5, 10)
WAITS_S = (0, 1, 30)
PAUSE_MAX_S = 0.05
UNDECIDED = (202, 429, 503)


class Buyers:
    """So many clients that buy what is in `orders` (bodies by key), one after the other, each by itself."""

    def __init__(self, addresses: Sequence[str], orders: Mapping[str, Mapping[str, Any]], seed: int) -> None:
        self._addresses = addresses
        self._left = iter(orders.items())
        self._choose = random.Random(seed)
        self.answered: dict[str, Any] = {}
        self.told: Counter[str] = Counter()
        self._given_up = False

    def give_up(self) -> None:
        """End without the answers that are left."""
        self._given_up = True

    def buy(self, clients: int) -> None:
        """Until each key is answered with an outcome, or they give up."""
        asyncio.run(self._buy(clients))

    async def _buy(self, clients: int) -> None:
        await asyncio.gather(*(self._client() for _ in range(clients)))

    async def _client(self) -> None:
        for key, body in self._left:
            while key not in self.answered and not self._given_up:
                await self._asks(key, body)

    async def _asks(self, key: str, body: Mapping[str, Any]) -> None:
        headers = [
            "Content-Type: application/json",
            "Connection: close",
            f"Idempotency-Key: {key}",
            f"Prefer: wait={self._choose.choice(WAITS_S)}",
        ]
        request = framed("POST", "/v1/purchases", headers, json.dumps(body).encode())
        try:
            async with asyncio.timeout(self._choose.choice(TIMEOUTS_S)):
                said = await _exchange(self._choose.choice(self._addresses), request)
        except (OSError, TimeoutError):
            self.told["nothing in time"] += 1
            await asyncio.sleep(self._choose.uniform(0, PAUSE_MAX_S))
            return
        for each in answers(said):
            self.told[str(each.status)] += 1
            if each.status == 200:
                self.answered[key] = each.said
            else:
                assert each.status in UNDECIDED, each


async def _exchange(address: str, request: bytes) -> bytes:
    place = urlsplit(address)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
