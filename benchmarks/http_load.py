"""HTTP load from one light process: an open loop on keep-alive connections, or so many requests in flight.

In the open loop a request's time runs from the moment it was *meant* to be sent, so a stall counts for all
who waited because of it. What comes back is looked at no further than its status and its length.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from benchmarks.measure import percentile
from consumer.worker import rarely_collect_cycles

CONNECTIONS_MAX = 1_000
CONNECTIONS_FIRST = 32
SLEEP_MIN_S = 0.0005
READ_EACH = 20
"""However late it is, answers are read after so many requests."""
LEAD_S = 0.3
DRAIN_S = 60.0
LENGTH = b"content-length: "


class Served(NamedTuple):
    """What became of the requests: sorted milliseconds of those that count, statuses, seconds in all."""

    waited_ms: list[float]
    statuses: dict[int, int]
    seconds: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return sum(self.statuses.values()) / self.seconds

    def at(self, share: float) -> float:
        """This percentile, in milliseconds."""
        return percentile(self.waited_ms, share)


class _Connection(asyncio.Protocol):
    """One request after the other; `load` is told of each answer."""

    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._asked: tuple[bytes, float] | None = None
        self._found = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._load.open.add(self)
        self._load.ready(self)

    def end(self) -> None:
        """Close it."""
        self._transport.abort()

    def ask(self, request: bytes, meant_at: float) -> None:
        """Send it."""
        self._asked = request, meant_at
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        found = self._found = self._found + data
        end = found.find(b"\r\n\r\n") + 4
        at = found.find(LENGTH, 0, end) + len(LENGTH)
        if end < 4 or len(found) < end + int(found[at : found.index(b"\r", at)]):
            return
        assert self._asked
        (_, began), self._asked, self._found = self._asked, None, b""
        self._load.answered(self, int(found[9:12]), began)

    def connection_lost(self, error: Exception | None) -> None:
        self._load.lost(self, self._asked)


class _Load:
    """The connections, and what was answered on them."""

    def __init__(self, address: str) -> None:
        self._place = urlsplit(address)
        self._loop = asyncio.get_running_loop()
        self._is_over = False
        self._due: deque[tuple[bytes, float]] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self.open: set[_Connection] = set()
        self.idle: deque[_Connection] = deque()
        self.again: Iterator[bytes] = iter(())
        """What is sent at once in place of what was answered."""
        self.waited: list[tuple[float, float]] = []
        """When each was meant to be sent, and how many seconds it took."""
        self.statuses: Counter[int] = Counter()

    async def opens(self, number: int) -> None:
        """So many connections more."""
        host, port = str(self._place.hostname), self._place.port or 80
        made = (self._loop.create_connection(lambda: _Connection(self), host, port) for _ in range(number))
        await asyncio.gather(*made)

    def send(self, request: bytes, meant_at: float) -> None:
        """On an idle connection, or as soon as there is one."""
        if self.idle:
            self.idle.pop().ask(request, meant_at)
            return
        self._due.append((request, meant_at))
        if len(self.open) + len(self._opening) < CONNECTIONS_MAX:
            task = self._loop.create_task(self.opens(1))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def lost(self, connection: _Connection, asked: tuple[bytes, float] | None) -> None:
        """A server ends what is silent for long. What was asked there is asked again, as clients do."""
        self.open.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        if asked and not self._is_over:
            self.send(*asked)

    def ready(self, connection: _Connection) -> None:
        """It can be asked the next."""
        if self._due:
            connection.ask(*self._due.popleft())
        elif request := next(self.again, None):
            connection.ask(request, time.monotonic())
        else:
            self.idle.append(connection)

    def answered(self, connection: _Connection, status: int, meant_at: float) -> None:
        """One more was."""
        self.statuses[status] += 1
        self.waited.append((meant_at, time.monotonic() - meant_at))
        self.ready(connection)

    async def served(self, number: int, begin: float, until: float, warm_s: float) -> Served:
        """What became of so many by then, at the latest; all connections end."""
        while len(self.waited) < number and time.monotonic() < until:
            await asyncio.sleep(SLEEP_MIN_S)
        ms = sorted(1000 * wait for meant_at, wait in self.waited if meant_at >= begin + warm_s)
        found = Served(ms, dict(self.statuses), time.monotonic() - begin)
        self._is_over = True
        await asyncio.gather(*self._opening, return_exceptions=True)
        for connection in self.open:
            connection.end()
        while self.open:
            await asyncio.sleep(SLEEP_MIN_S)
        return found


async def _open_loop(address: str, requests: Sequence[bytes], rate: float, warm_s: float) -> Served:
    load = _Load(address)
    await load.opens(CONNECTIONS_FIRST)
    begin = time.monotonic() + LEAD_S
    for number, request in enumerate(requests):
        due = begin + number / rate
        while (left := due - time.monotonic()) > 0:
            await asyncio.sleep(max(left, SLEEP_MIN_S))
        if number % READ_EACH == 0:
            await asyncio.sleep(0)
        load.send(request, due)
    return await load.served(len(requests), begin, due + DRAIN_S, warm_s)


async def _in_flight(address: str, requests: Sequence[bytes], number: int, warm_s: float) -> Served:
    load = _Load(address)
    load.again = iter(requests)
    begin = time.monotonic()
    await load.opens(number)
    return await load.served(len(requests), begin, begin + DRAIN_S, warm_s)


def drive(make: Callable[[int, int], list[bytes]], pipe: Any) -> None:
    """The process: is told address, seed, number and either a rate or how many in flight; says `Served`."""
    rarely_collect_cycles()
    while True:
        address, seed, number, rate, in_flight, warm_s = pipe.recv()
        requests = make(seed, number)
        asked = (
            _in_flight(address, requests, in_flight, warm_s)
            if in_flight
            else _open_loop(address, requests, rate, warm_s)
        )
        pipe.send(asyncio.run(asked))
