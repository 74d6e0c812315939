"""Reads of the stock from a cache, beside what people use instead; how soon a commit is seen; what it costs.

Each contender reads the same goods in the same order, in a process of its own, while nobody writes. A commit
is seen when a cache stands at its position. That is compared with when its batch was sealed, a little before
the commit, so times are a little too long and never too short.
"""

import importlib
import os
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from benchmarks import measure
from benchmarks.latency import LEAD_S, _send
from benchmarks.measure import Run, Spread, percentile
from benchmarks.ours import ours_on
from benchmarks.processes import Crew, Layout, helpers
from benchmarks.result import Options, Runs, spread_cell, table
from benchmarks.testbed import Testbed
from benchmarks.workload import Workload, encoded
from ledger.api import Ledger
from ledger.cache.files import About
from ledger.cache.host_cache import HostCache
from ledger.cache.host_feeder import FeederLog, keep
from ledger.cache.stock_cache import StockCache

GET = "get, update"
ALONE, BESIDE = "a worker alone", "beside 20 polling caches"
GOODS = 1_000
READS = {"fast": 1_000_000, "slow": 10_000}
RATE, SECONDS = 20_000, 8.0
CACHES = 20
COMMANDS = 100_000
CATALOGUE = 1_000_000
LOOK_S = 0.001
GOODS_ID = "sku{:07}"
SEALED = "SELECT position, extract(epoch FROM recorded_at)::float8 FROM ledger.journal ORDER BY position"
MEMORY = Path("/dev/shm")


def run(bed: Testbed, options: Options) -> dict[str, Any]:
    """Reads, then what is seen when, then a worker beside many caches, then a large catalogue."""
    runs, small = Runs(), Workload(0, goods=GOODS)
    with (
        bed.ledger(small) as dsn,
        tempfile.TemporaryDirectory(dir=MEMORY) as folder,
        helpers(_feed, (dsn, folder)) as (_, [pipe]),
    ):
        pipe.recv()
        contenders = {
            name: partial(_reads, options, how, (dsn, folder), processes, kind)
            for name, (how, processes, kind) in _contenders(bed).items()
        }
        runs.play(options.rounds, contenders)
    seen = [_seen(bed, 2_000 if options.quick else RATE) for _ in range(options.rounds)]
    workload = Workload(4_000 if options.quick else COMMANDS)
    runs.play(
        options.rounds,
        {ALONE: lambda: _worker(bed, workload, 0), BESIDE: lambda: _worker(bed, workload, CACHES)},
    )
    catalogue = Workload(0, goods=10_000 if options.quick else CATALOGUE)
    with bed.ledger(catalogue) as dsn:
        loads = [_load(dsn) for _ in range(options.rounds)]
    return {"runs": runs.as_json(), "seen": seen, "loads": loads, "goods": int(loads[0]["goods"])}


def _contenders(bed: Testbed) -> dict[str, tuple[str, int, str]]:
    """How each reads, in how many processes, and how many reads are enough."""
    found = {
        GET: ("update", 1, "fast"),
        "get, copy": ("copy", 1, "fast"),
        "get, notify": ("notify", 1, "fast"),
        "HostCache.get": ("host", 1, "fast"),
        "HostCache.get, two processes": ("host", 2, "fast"),
    }
    for name, how, kind in (("cachetools.TTLCache", "cachetools", "fast"), ("Redis GET", "redis", "slow")):
        try:
            importlib.import_module(how)
        except ImportError:
            bed.skip(f"{name}: the package {how} isn't installed")
        else:
            found[name] = (how, 1, kind)
    return found | {"Ledger.stock": ("ledger", 1, "slow")}


def _reads(options: Options, how: str, where: tuple[str, str], processes: int, kind: str) -> Run:
    reads = READS[kind] // (100 if options.quick else 1)
    with helpers(_read, *[(how, *where, reads)] * processes) as (_, pipes):
        for pipe in pipes:
            pipe.recv()
        for pipe in pipes:
            pipe.send("go")
        seconds = max(pipe.recv() for pipe in pipes)
    return Run(reads * processes, seconds)


def _read(how: str, dsn: str, folder: str, reads: int, pipe: Any) -> None:
    """A reader's process."""
    with ExitStack() as stack:
        get = _reader(how, dsn, folder, stack)
        goods = [GOODS_ID.format(number) for number in range(GOODS)] * (reads // GOODS or 1)
        if any(get(goods_id) is None for goods_id in goods[:GOODS]):
            raise RuntimeError(f"{how} lacks goods")
        pipe.send("ready")
        pipe.recv()
        begun = time.perf_counter()
        for goods_id in goods:
            get(goods_id)
        pipe.send((time.perf_counter() - begun) * reads / len(goods))
        pipe.recv()  # until we are ended


def _reader(how: str, dsn: str, folder: str, stack: ExitStack) -> Callable[[str], object]:
    if how in ("update", "copy", "notify"):
        return stack.enter_context(StockCache(dsn, strategy=how, max_staleness_s=60)).get  # type: ignore[arg-type]
    if how == "host":
        return stack.enter_context(HostCache(folder, max_staleness_s=60)).get
    book = stack.enter_context(Ledger(dsn))
    if how == "ledger":
        return book.stock
    levels = {GOODS_ID.format(number): book.stock(GOODS_ID.format(number)) for number in range(GOODS)}
    if how == "cachetools":
        kept = importlib.import_module("cachetools").TTLCache(2 * GOODS, 3600)
        kept.update(levels)
    else:
        kept = importlib.import_module("redis").Redis()
        kept.mset({goods_id: level.on_hand for goods_id, level in levels.items() if level})
    get: Callable[[str], object] = kept.get
    return get


class Log(FeederLog):
    """Tells somebody that it is loaded."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell

    def loaded(self, position: int, loads: int) -> None:
        """Readers may come."""
        self._tell(position)


def _feed(dsn: str, folder: str, pipe: Any) -> None:
    """A host's feeder."""

    keep(dsn, Path(folder), About(), threading.Event(), Log(pipe.send))


def _seen(bed: Testbed, rate: int) -> dict[str, float]:
    """Milliseconds from a batch's seal until a cache of this process stands at its position."""
    workload = Workload(int(rate * SECONDS))
    with (
        bed.ledger(workload) as dsn,
        bed.topic() as topic,
        psycopg.connect(dsn, autocommit=True) as conn,
        Crew(bed, dsn, topic, Layout()) as crew,
        StockCache(dsn, max_staleness_s=60) as cache,
        helpers(_send, (bed.kafka, topic, workload, rate)) as (_, [pipe]),
    ):
        crew.wait_assigned(conn)
        pipe.recv()
        first = cache.status().position or 0
        pipe.send(time.monotonic() + LEAD_S)
        positions, times = [first], [0.0]
        with ExitStack() as stack:
            sent = threading.Thread(target=pipe.recv)
            sent.start()
            stack.callback(sent.join)
            while sent.is_alive():
                _look(cache, positions, times)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            _look(cache, positions, times)
        sealed = [
            (position, at) for position, at in conn.execute(SEALED) if first < position <= positions[-1]
        ]
    waited = sorted(1000 * (times[bisect_left(positions, position)] - at) for position, at in sealed)
    found = {name: percentile(waited, share) for name, share in (("p50", 0.5), ("p99", 0.99))}
    print(f"seen p50 {found['p50']:.1f} ms  p99 {found['p99']:.1f} ms", flush=True)
    return found | {"batches": len(waited), "rate": rate}


def _look(cache: StockCache, positions: list[int], times: list[float]) -> None:
    position = cache.status().position or 0
    if position > positions[-1]:
        positions.append(position)
        times.append(time.time())
    time.sleep(LOOK_S)


def _worker(bed: Testbed, workload: Workload, caches: int) -> Run:
    """One worker, and so many caches of another process that look a hundred times a second."""
    with bed.ledger(workload) as dsn, helpers(_follow, (dsn, caches)) as (_, [pipe]):
        pipe.recv()
        return ours_on(bed, dsn, encoded(workload), Layout())


def _follow(dsn: str, caches: int, pipe: Any) -> None:
    with ExitStack() as stack:
        for _ in range(caches):
            stack.enter_context(StockCache(dsn, strategy="notify"))
        pipe.send("ready")
        pipe.recv()  # until we are ended


def _load(dsn: str) -> dict[str, float]:
    """A whole catalogue: into a process, and into a host's folder."""
    with helpers(_load_here, (dsn,)) as (_, [pipe]), tempfile.TemporaryDirectory(dir=MEMORY) as above:
        found: dict[str, float] = pipe.recv()
        folder = Path(above) / "stock"
        begun = time.perf_counter()
        keep(dsn, folder, About(), threading.Event(), Log(lambda _: None), until_loaded=True)
        found |= {"host_s": time.perf_counter() - begun}
        found |= {"host_mb": (folder / "data.mdb").stat().st_blocks * 512 / 1e6}
    print(f"loaded in {found['update_s']:.1f} s, for a host in {found['host_s']:.1f} s", flush=True)
    return found


def _load_here(dsn: str, pipe: Any) -> None:
    before = measure.memory_peak_mb([os.getpid()]) or 0.0
    begun = time.perf_counter()
    with StockCache(dsn) as cache:
        seconds = time.perf_counter() - begun
        peak = measure.memory_peak_mb([os.getpid()]) or 0.0
        pipe.send({"update_s": seconds, "update_mb": peak - before, "goods": cache.status().items})
        pipe.recv()  # until we are ended


def tables(found: dict[str, Any]) -> str:
    """Reads, latency, cost to the worker, and loading."""
    runs = Runs.from_json(found["runs"])
    reads = [name for name in runs.by_name if name not in (ALONE, BESIDE)]
    rows = [[name, spread_cell(runs.rate(name)), spread_cell(runs.ratio(name, GET), 2)] for name in reads]
    ratio = spread_cell(runs.ratio(BESIDE, ALONE), 2)
    p50, p99 = (spread_cell(Spread.of([each[name] for each in found["seen"]]), 1) for name in ("p50", "p99"))
    seconds, mb, host_s, host_mb = (
        spread_cell(Spread.of([each[name] for each in found["loads"]]), 1)
        for name in ("update_s", "update_mb", "host_s", "host_mb")
    )
    return f"""Reads a second of one process, nobody writing; minimum / median / maximum of the rounds.

{table(["read by", "a second", f"of {GET}"], rows)}

From a batch's seal until a cache stands at its position, at {found["seen"][0]["rate"]:,} commands/s:
p50 {p50} ms, p99 {p99} ms.
A worker's rate beside {CACHES} polling caches on the same cores, of its rate alone: {ratio}.
{found["goods"]:,} goods: loaded into a process in {seconds} s, with {mb} MB more at its peak.
Into a host's folder in {host_s} s, {host_mb} MB.
"""


def plot(found: dict[str, Any]) -> None:
    """The table says it."""
