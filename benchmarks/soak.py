"""Ten minutes of purchases under four readers: does a version ever fall, is a write ever not there?

Two processes read copies of their own and two a host's folder. Each looks at a hundred items at a time and
notes their versions and their age. Again and again it asks the ledger itself for a token, and reads with it.
After it a whole catalogue is compared with the ledger as of the cache's own position, while a worker commits.
"""

import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg

from benchmarks import checks
from benchmarks.cache import GOODS, GOODS_ID, MEMORY, Log
from benchmarks.ours import DONE
from benchmarks.processes import Crew, Layout, helpers
from benchmarks.result import Options, table
from benchmarks.testbed import PARTITIONS, Testbed
from benchmarks.workload import TIME, Record, Workload, encoded, put
from consumer.worker import rarely_collect_cycles
from ledger.api import Ledger
from ledger.cache.files import About
from ledger.cache.host_cache import HostCache
from ledger.cache.host_feeder import keep
from ledger.cache.stock_cache import StockCache
from ledger.domain import envelope
from ledger.domain.commands import ListGoods, MessageKey, ReceiveStock, record_key
from producer import client
from stockledger.reports.cache_check import CacheComparison, compare

SECONDS, RATE = 600, 20_000
QUICK_SECONDS, QUICK_RATE = 10, 1_000
CHUNK_S = 5
AT_ONCE = 100
PAUSE_S = 0.02
TOKEN_EACH = 5
"""Every fifth look is one with a token."""
BUCKETS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)
CATALOGUE, COMPARISONS = 100_000, 10_000_000
CHANGES = 200_000
READERS = ("copy", "update", "host", "host")


def run(bed: Testbed, options: Options) -> dict[str, Any]:
    """The readers, then the comparisons; `rounds` doesn't matter."""
    seconds, rate = (QUICK_SECONDS, QUICK_RATE) if options.quick else (SECONDS, RATE)
    found = _read_while_writing(bed, seconds, rate)
    goods, wanted = (1_000, 50_000) if options.quick else (CATALOGUE, COMPARISONS)
    return {"asked_rate": rate, **found, **_compare(bed, goods, wanted)}


def _read_while_writing(bed: Testbed, seconds: int, rate: int) -> dict[str, Any]:
    with ExitStack() as stack:
        enter = stack.enter_context
        dsn, topic = enter(bed.ledger(Workload(0))), enter(bed.topic())
        folder = enter(tempfile.TemporaryDirectory(dir=MEMORY))
        conn = enter(psycopg.connect(dsn, autocommit=True))
        crew = enter(Crew(bed, dsn, topic, Layout()))
        crew.wait_assigned(conn)
        _, [feeder] = enter(helpers(_feed, (dsn, folder)))
        feeder.recv()
        _, readers = enter(helpers(_read, *[(how, dsn, folder) for how in READERS]))
        for reader in readers:
            reader.recv()
        _, [sender] = enter(helpers(_send, (bed.kafka, topic, seconds, rate)))
        begun = time.monotonic()
        sent = sender.recv()
        crew.wait(lambda: checks.number(conn, DONE, topic) == sent)
        took = time.monotonic() - begun
        for reader in readers:
            reader.send("enough")
        told = [reader.recv() for reader in readers]
    ages: Counter[int] = sum((each["ages"] for each in told), Counter())
    found = {name: sum(each[name] for each in told) for name in ("reads", "tokens", "decreases", "faults")}
    print(f"{sent:,} commands in {took:.0f} s; {found}", flush=True)
    return {
        **found,
        "commands": sent,
        "seconds": took,
        "ages": {f"{ms}": ages[ms] for ms in (*BUCKETS_MS, 0)},
    }


def _feed(dsn: str, folder: str, pipe: Any) -> None:
    keep(dsn, Path(folder), About(), threading.Event(), Log(pipe.send))


def _send(kafka: dict[str, str], topic: str, seconds: int, rate: int, pipe: Any) -> None:
    """The sender's process: an open loop, encoded a few seconds' worth at a time."""
    rarely_collect_cycles()
    producer = client.make_producer(client.complete(kafka), lambda _: None)
    begin, number = time.monotonic(), 0
    for chunk in range(seconds // CHUNK_S):
        for record in encoded(Workload(rate * CHUNK_S, seed=chunk)).records:
            while (left := begin + number / rate - time.monotonic()) > 0:
                producer.poll(0)
                time.sleep(left)
            put(producer, topic, record, record.lane(PARTITIONS))
            number += 1
    assert producer.flush(60) == 0
    pipe.send(number)
    pipe.recv()  # until we are ended


def _read(how: str, dsn: str, folder: str, pipe: Any) -> None:
    """A reader's process: looks until it is told that this is enough, then says what it has seen."""
    choose, goods = random.Random(how), [GOODS_ID.format(number) for number in range(GOODS)]
    seen, position, number = dict.fromkeys(goods, 0), 0, 0
    ages: Counter[int] = Counter()
    found: Counter[str] = Counter(dict.fromkeys(("reads", "tokens", "decreases", "faults"), 0))
    with Ledger(dsn) as book, _cache(how, dsn, folder) as cache:
        pipe.send("ready")
        while not pipe.poll(PAUSE_S):
            number += 1
            token = None if number % TOKEN_EACH else book.stock_now(goods[:1]).moment.token
            try:
                snapshot = cache.get_many(choose.sample(goods, AT_ONCE), token, timeout_s=10)
            except Exception as fault:  # noqa: BLE001 (counted, and said)
                found["faults"] += 1
                print(f"{how}: {fault!r}", flush=True)
                continue
            found["reads"] += AT_ONCE
            found["tokens"] += token is not None
            age_ms = 1000 * snapshot.age_s
            ages[next((ms for ms in BUCKETS_MS if age_ms <= ms), 0)] += 1
            found["decreases"] += snapshot.position < position
            position = snapshot.position
            for goods_id, level in snapshot.items():
                version = level.version if level else 0
                found["decreases"] += version < seen[goods_id]
                seen[goods_id] = version
    pipe.send({**found, "ages": ages})
    pipe.recv()  # until we are ended


def _cache(how: str, dsn: str, folder: str) -> StockCache | HostCache:
    if how == "host":
        return HostCache(folder, max_staleness_s=10, dsn=dsn)
    return StockCache(dsn, strategy="copy" if how == "copy" else "update", max_staleness_s=10)


def _compare(bed: Testbed, goods: int, wanted: int) -> dict[str, int]:
    """Until so many values were compared, a worker committing meanwhile. RuntimeError for a wrong one."""
    with ExitStack() as stack:
        enter = stack.enter_context
        dsn, topic = enter(bed.empty_ledger()), enter(bed.topic())
        folder = enter(tempfile.TemporaryDirectory(dir=MEMORY))
        conn = enter(psycopg.connect(dsn, autocommit=True))
        crew = enter(Crew(bed, dsn, topic, Layout(batch=500)))
        crew.wait_assigned(conn)
        bed.publish(topic, list(_records(ListGoods(goods_id=GOODS_ID.format(n)) for n in range(goods))))
        crew.wait(lambda: checks.number(conn, DONE, topic) == goods)
        _, [feeder] = enter(helpers(_feed, (dsn, folder)))
        feeder.recv()
        bed.publish(topic, list(_records(_received(goods))))
        book, cache = enter(Ledger(dsn)), enter(HostCache(folder, max_staleness_s=60, dsn=dsn))
        done = CacheComparison()
        while done.compared < wanted:
            compare(cache, book, None, done)
            if done.difference:
                raise RuntimeError(f"{done.difference}")
    print(f"{done.compared:,} values compared in {done.rounds} rounds", flush=True)
    return {"compared": done.compared, "rounds_compared": done.rounds}


def _received(goods: int) -> Iterator[ReceiveStock]:
    choose = random.Random(goods)
    for _ in range(CHANGES):
        yield ReceiveStock(goods_id=GOODS_ID.format(choose.randrange(goods)), quantity=choose.randint(1, 9))


def _records(commands: Iterable[ListGoods | ReceiveStock]) -> Iterator[Record]:
    for number, command in enumerate(commands):
        key, subject = MessageKey("soak", f"{type(command).__name__}-{number}"), record_key(command)
        headers, value = envelope.encode(key, command, time=TIME, subject=subject)
        yield Record(subject.encode(), value, headers)


def tables(found: dict[str, Any]) -> str:
    """How old what was read could be, and what was wrong."""
    looks = sum(found["ages"].values())
    rows = [
        [f"up to {int(ms):,} ms" if int(ms) else "more", f"{count:,}", f"{count / looks:.2%}"]
        for ms, count in found["ages"].items()
    ]
    asked, commands, seconds = found["asked_rate"], found["commands"], found["seconds"]
    return f"""{commands:,} commands in {seconds:.0f} s; {asked:,}/s were asked for. Four readers read
{found["reads"]:,} values and {found["tokens"]:,} tokens back: {found["decreases"]} decreases,
{found["faults"]} faults. Then {found["compared"]:,} values were compared with the ledger as of
their position, without a difference.

{table(["may be so old", "looks", "of all"], rows)}
"""


def plot(found: dict[str, Any]) -> None:
    """The table says it."""
