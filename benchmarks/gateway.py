"""The HTTP door: from a purchase's request to its final outcome, and how many a second, beside a constant.

The constant is what the same framework and server answer to a request that they read as far, without judging
it. Capacity is the highest rate at which 99 of 100 are answered within 250 ms of when they were to be sent.
One worker, the gateway, Postgres, the broker and the load share the cores.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import psycopg
import uvicorn
from fastapi import FastAPI, Request, Response

from benchmarks import measure
from benchmarks.http_load import Served, drive
from benchmarks.measure import Spread
from benchmarks.processes import Crew, Layout, helpers
from benchmarks.result import Options, spread_cell, table
from benchmarks.testbed import Testbed
from benchmarks.workload import Workload, commands
from consumer.worker import rarely_collect_cycles
from stockledger.embedded.postgres import free_port

RATE, SECONDS, WARM_S = 500, 20, 2.0
BESIDE_SLOW_RATE, SLOW = 200, 1_000
DRIP_S = 1.0
BOUND_MS = 250
IN_FLIGHT = 128
PROBE_S, STEP_S = 2, 4
SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
GUESS = 1_500
READY_S = 60.0
PURCHASE, STOCK = "purchases", "stock"
KINDS = {PURCHASE: "POST /v1/purchases", STOCK: "GET /v1/stock/{goods_id}"}
SLOWLORIS = b"POST /v1/purchases HTTP/1.1\r\nHost: localhost\r\n"
CONSTANT = b'{"source":"bench","id":"constant","outcome":"applied"}\n'


def run(bed: Testbed, options: Options) -> dict[str, Any]:
    """Latency, latency beside slow clients, then each capacity."""
    seconds, rate = (3, 100) if options.quick else (SECONDS, RATE)
    found: dict[str, Any] = {"rate": rate, "latency": [], "slow": [], "capacity": defaultdict(list)}
    with ExitStack() as stack:
        enter = stack.enter_context
        dsn, topic = enter(bed.ledger(Workload(0))), enter(bed.topic())
        conn = enter(psycopg.connect(dsn, autocommit=True))
        crew = enter(Crew(bed, dsn, topic, Layout()))
        crew.wait_assigned(conn)
        ours, pid = enter(_gateway(bed, dsn, topic))
        _, [constant] = enter(helpers(_constant, ()))
        beside = constant.recv()
        _, [buys] = enter(helpers(drive, (_purchases,)))
        _, [reads] = enter(helpers(drive, (_reads,)))
        seeds = iter(range(1, 1_000_000))
        _asked(buys, ours, next(seeds), BESIDE_SLOW_RATE * options.broker_warm_s, BESIDE_SLOW_RATE)
        for number in range(options.rounds):
            before = measure.cpu_s([pid])
            served = _asked(buys, ours, next(seeds), int(rate * (seconds + WARM_S)), rate, warm_s=WARM_S)
            cpu_us = 1e6 * (measure.cpu_s([pid]) - before) / sum(served.statuses.values())
            found["latency"].append(_say(number, "latency", served) | {"cpu_us": cpu_us})
            with helpers(_drip, (ours,)) as (_, [slow]):
                slow.recv()
                asked = _asked(
                    buys, ours, next(seeds), BESIDE_SLOW_RATE * seconds, BESIDE_SLOW_RATE, warm_s=1
                )
                found["slow"].append(_say(number, f"beside {SLOW} slow", asked))
            for kind, pipe in ((PURCHASE, buys), (STOCK, reads)):
                for name, address in ((kind, ours), (f"constant, {kind}", beside)):
                    found["capacity"][name].append(_capacity(pipe, address, seeds, options.quick))
                    print(f"round {number + 1}  {name:24} {found['capacity'][name][-1]:,.0f}/s", flush=True)
    return found


def _asked(
    pipe: Any, address: str, seed: int, number: int, rate: float, in_flight: int = 0, warm_s: float = 0
) -> Served:
    pipe.send((address, seed, number, rate, in_flight, warm_s))
    served: Served = pipe.recv()
    if set(served.statuses) != {200} or sum(served.statuses.values()) != number:
        raise RuntimeError(f"of {number} requests: {served.statuses}")
    return served


def _say(number: int, name: str, served: Served) -> dict[str, float]:
    found = {"p50": served.at(0.5), "p99": served.at(0.99), "max": served.waited_ms[-1], "rate": served.rate}
    print(f"round {number + 1}  {name:24} p50 {found['p50']:.1f} ms  p99 {found['p99']:.1f} ms", flush=True)
    return found


def _capacity(pipe: Any, address: str, seeds: Iterator[int], quick: bool) -> float:
    """The highest rate that is served in time: as many as it can, and then ever fewer."""
    probe_s, step_s = (0.2, 0.5) if quick else (PROBE_S, STEP_S)
    rate = GUESS * 1.0
    for _ in range(2):  # the first one warms it up, and says how many are two seconds' worth
        rate = _asked(pipe, address, next(seeds), int(rate * probe_s), 0, IN_FLIGHT).rate
    for share in SHARES:
        asked = rate * share
        served = _asked(pipe, address, next(seeds), int(asked * step_s), asked)
        if served.at(0.99) <= BOUND_MS:
            return asked
    return 0.0


def _request(method: str, path: str, headers: str = "", body: bytes = b"") -> bytes:
    length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}{length}\r\n".encode() + body


def _purchases(seed: int, number: int) -> list[bytes]:
    """Purchases that nobody has sent before."""
    return [
        _request(
            "POST",
            "/v1/purchases",
            f"Idempotency-Key: {key.id}\r\nPrefer: wait=30\r\n",
            json.dumps(command.model_dump(exclude_none=True)).encode(),
        )
        for key, command in commands(Workload(number, seed=seed))
    ]


def _reads(seed: int, number: int) -> list[bytes]:
    """Reads of the stock of a thousand items in turn."""
    return [_request("GET", f"/v1/stock/sku{n % 1_000:07}") for n in range(number)]


@contextmanager
def _gateway(bed: Testbed, dsn: str, topic: str) -> Iterator[tuple[str, int]]:
    """`stockledger serve` in a process of its own: its address and its pid."""
    named = {"DSN": dsn, "TOPIC": topic, "KAFKA_BOOTSTRAP_SERVERS": bed.bootstrap_servers, "SOURCE": "bench"}
    words = ["serve", "--port", "0", "--rate", "1e9", "--waiting", "100000", "--log-format", "json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "stockledger", *words],
        env=os.environ | {f"STOCKLEDGER_{name}": value for name, value in named.items()},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr
    with process.stderr as said:
        try:
            told = (json.loads(line) for line in said if line.startswith("{"))
            address = next(str(line["address"]) for line in told if line["event"] == "ready")
            threading.Thread(target=said.read, daemon=True).start()
            _wait_for(address)
            yield address, process.pid
        finally:
            process.terminate()  # before the file is closed: that waits for whoever reads it
            process.wait()


def _constant(pipe: Any) -> None:
    """The constant's process, with the gateway's own server."""
    app = FastAPI(openapi_url=None)

    @app.post("/v1/purchases")
    async def purchase(request: Request) -> Response:
        await request.body()
        return Response(CONSTANT, media_type="application/json")

    @app.get("/v1/stock/{goods_id}")
    async def stock(goods_id: str) -> Response:
        return Response(CONSTANT, media_type="application/json")

    port = free_port()
    address = f"http://127.0.0.1:{port}"

    def tell() -> None:
        _wait_for(address)
        pipe.send(address)

    threading.Thread(target=tell).start()
    rarely_collect_cycles()
    uvicorn.run(
        app, port=port, http="h11", ws="none", lifespan="off", log_config=None, access_log=False,
        server_header=False, proxy_headers=False,
    )  # fmt: skip


def _wait_for(address: str) -> None:
    """Until it is answered there."""
    place, until = urlsplit(address), time.monotonic() + READY_S
    while time.monotonic() < until:
        with suppress(OSError), closing(socket.create_connection((place.hostname, place.port), 1)) as asks:
            asks.sendall(_request("GET", "/readyz"))
            if asks.recv(100).startswith((b"HTTP/1.1 200", b"HTTP/1.1 404")):
                return
        time.sleep(0.1)
    raise RuntimeError(f"nobody answers at {address}")


def _drip(address: str, pipe: Any) -> None:
    """So many connections that send a header's line a second; where one is cut another takes its place."""
    place = urlsplit(address)

    def opened() -> socket.socket:
        made = socket.create_connection((place.hostname, place.port))
        made.setblocking(False)
        made.send(SLOWLORIS)
        return made

    slow = [opened() for _ in range(SLOW)]
    pipe.send("ready")
    while True:
        for number, each in enumerate(slow):
            time.sleep(DRIP_S / SLOW)
            try:
                each.send(b"X: y\r\n")
            except OSError:
                each.close()
                slow[number] = opened()


def tables(found: dict[str, Any]) -> str:
    """Latency, and capacity as ratios to the constant."""

    def row(name: str, runs: list[dict[str, float]]) -> list[str]:
        cells = [spread_cell(Spread.of([run[what] for run in runs]), 1) for what in ("p50", "p99", "max")]
        return [name, *cells, spread_cell(Spread.of([run["rate"] for run in runs]))]

    latency = [
        row(f"purchases, {found['rate']:,}/s", found["latency"]),
        row(f"{BESIDE_SLOW_RATE}/s beside {SLOW:,} slow clients", found["slow"]),
    ]
    rows = []
    for kind, endpoint in KINDS.items():
        rates, constant = found["capacity"][kind], found["capacity"][f"constant, {kind}"]
        ratios = Spread.of([ours / theirs for ours, theirs in zip(rates, constant, strict=True)])
        cells = [spread_cell(Spread.of(each)) for each in (rates, constant)]
        rows.append([endpoint, *cells, spread_cell(ratios, 2)])
    cpu = spread_cell(Spread.of([run["cpu_us"] for run in found["latency"]]))
    return f"""From the intended time of a request until its answer; for purchases that is the final outcome.
Minimum / median / maximum of the rounds. A purchase costs the gateway's process {cpu} µs of CPU.

{table(["load", "p50, ms", "p99, ms", "longest, ms", "answers/s"], latency)}

The highest rate with a p99 within {BOUND_MS} ms, beside the same framework that answers a constant.

{table(["request", "a second", "the constant", "ratio"], rows)}
"""


def plot(found: dict[str, Any]) -> None:
    """The tables say it."""
