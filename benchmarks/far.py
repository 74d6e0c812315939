"""Postgres as if it were farther away: a proxy that hands on each byte half a round trip later."""

import asyncio
import selectors
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from benchmarks.processes import helpers


@contextmanager
def at_a_distance(dsn: str, round_trip_ms: float) -> Iterator[str]:
    """The DSN of the same database, so many milliseconds away; the same DSN for 0."""
    if not round_trip_ms:
        yield dsn
        return
    known = conninfo_to_dict(dsn)
    target = str(known["host"]), int(str(known["port"]))
    with helpers(_forward, (*target, round_trip_ms / 2000)) as (_, [pipe]):
        yield make_conninfo(dsn, host="127.0.0.1", port=pipe.recv())


class _End(asyncio.Protocol):
    """One end of a connection; what arrives here is written to the other end, a while later."""

    def __init__(self, delay_s: float) -> None:
        self.other: asyncio.WriteTransport | None = None
        self._delay_s = delay_s
        self._early: list[bytes] = []
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self._delay_s, self._hand_on, data)

    def _hand_on(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)
        else:
            self.other.write(data)

    def join(self, other: asyncio.WriteTransport) -> None:
        """This is the other end."""
        self.other = other
        for data in self._early:
            other.write(data)

    def connection_lost(self, _: Exception | None) -> None:
        if self.other is not None:
            self.other.close()


def _forward(host: str, port: int, delay_s: float, pipe: Any) -> None:
    """The proxy's process, until it is ended."""
    with asyncio.Runner(loop_factory=_precise_loop) as runner:
        runner.run(_serve(host, port, delay_s, pipe))


def _precise_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(selectors.SelectSelector())  # the others wait for whole milliseconds


async def _serve(host: str, port: int, delay_s: float, pipe: Any) -> None:
    loop = asyncio.get_running_loop()
    joining: set[asyncio.Task[None]] = set()

    async def join(near: _End) -> None:
        _, far = await loop.create_connection(lambda: _End(delay_s), host, port)
        near.join(far.transport)
        far.join(near.transport)

    def accept() -> _End:
        near = _End(delay_s)
        task = loop.create_task(join(near))
        joining.add(task)
        task.add_done_callback(joining.discard)
        return near

    server = await loop.create_server(accept, "127.0.0.1", 0)
    pipe.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def round_trip_ms(dsn: str) -> float:
    """How long the shortest question takes, in milliseconds: the median of a hundred."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        times = []
        for _ in range(100):
            begun = time.perf_counter()
            conn.execute("SELECT 1")
            times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times)
