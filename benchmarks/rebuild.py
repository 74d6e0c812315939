"""Rebuild: `stock` and `purchases_by_user` from 2,000,000 events, against the limit and a loop in Python.

    limit   a sequential scan of the same rows: SELECT sum(delta) FROM ledger.event
    loop    every event fetched, decoded and folded one by one in Python; the result written by COPY, then
            its key and its statistics. `fast`: msgspec, types only; `checked`: as the ledger reads events
    ours    `rebuild`: built in chunks with checkpoints, caught up, compared row by row, swapped

and what a rebuild costs two busy workers, unthrottled and with `--max-rate`. Only ratios within one run mean
something: the machine drifts. Run it by

    STOCKLEDGER_DSN=... python -m benchmarks.rebuild [--events 2000000] [--rounds 3]
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import msgspec
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ledger.domain.commands import PurchaseGoods
from ledger.domain.events import EVENTS, AnyEvent, GoodsPurchased, PurchaseCancelled
from ledger.domain.upcast import load
from ledger.errors import Contended
from ledger.projections.projection import Projection
from ledger.projections.purchases_by_user import PurchasesByUser
from ledger.projections.sales_by_day import SalesByDay
from ledger.projections.stock import Stock
from ledger.rebuilding.pace import RebuildProgress
from ledger.rebuilding.projector import Projector
from ledger.rebuilding.rebuild import BUDGETS, RebuildOptions, rebuild
from ledger.rebuilding.retire import cancel, drop_old
from ledger.store.connection import database
from ledger.store.connection.database import Connection
from ledger.store.schema import migrate
from tests.support.batches import Lanes, says

PER_ENTRY = 5_000
GOODS = USERS = 1_000
BATCH = 500
BUSY_S = 8.0
RATES = (None, 400_000, 100_000)
BUILDS: list[tuple[Projection, int]] = [
    (Stock(), 1),
    (PurchasesByUser(), 1),
    (PurchasesByUser(), 2),
    (SalesByDay(), 1),
    (SalesByDay(), 2),
]

JOURNAL = """
INSERT INTO ledger.journal
SELECT p, nextval('ledger.entry_number'), 't', 0, 1, (p - 1) * %(size)s, p * %(size)s,
       %(size)s, 0, 0, 0, 0, 0,
       timestamptz '2026-01-01' + p * interval '10 minutes', '', ''
FROM generate_series(1, %(events)s / %(size)s) p
"""
# Each item: listed, received once, then bought by anybody; every 50th event of an item is a cancellation.
EVENT = """
INSERT INTO ledger.event
SELECT n / %(size)s + 1, n %% %(size)s, 'goods-' || goods, version, type,
       CASE type
           WHEN 'GoodsListed' THEN json_build_object('goods_id', goods)
           WHEN 'StockReceived' THEN json_build_object('goods_id', goods, 'quantity', 1000000000)
           WHEN 'GoodsPurchased' THEN
               json_build_object('user_id', buyer, 'goods_id', goods, 'quantity', q, 'unit_price_minor', 250)
           ELSE json_build_object('goods_id', goods, 'purchase_source', 'bench', 'purchase_id', 'p' || n,
                                  'user_id', buyer, 'quantity', q)
       END,
       CASE type WHEN 'GoodsListed' THEN 0 WHEN 'StockReceived' THEN 1000000000
                 WHEN 'GoodsPurchased' THEN -q ELSE q END,
       CASE WHEN version > 2 THEN buyer END, 'bench', to_char(n, 'FM000000000000')
FROM (SELECT n, 'sku' || to_char(n %% %(goods)s, 'FM00000') AS goods, n / %(goods)s + 1 AS version,
             1 + n * 7 %% 9 AS q, 'user' || to_char(abs(hashint8(n)) %% %(users)s, 'FM00000') AS buyer,
             CASE WHEN n / %(goods)s = 0 THEN 'GoodsListed' WHEN n / %(goods)s = 1 THEN 'StockReceived'
                  WHEN (n / %(goods)s + 1) %% 50 = 0 THEN 'PurchaseCancelled' ELSE 'GoodsPurchased'
             END AS type
      FROM generate_series(0, %(events)s - 1) n) x
"""
SETTLE = (
    """INSERT INTO ledger.stock SELECT 1, substr(stream, 7), sum(delta), max(version)
       FROM ledger.event GROUP BY stream""",
    """INSERT INTO ledger.account
       SELECT 'user' || to_char(n, 'FM00000'), 1, false FROM generate_series(0, 999) n""",
    """UPDATE ledger.head SET position = (SELECT max(position) FROM ledger.journal),
           recorded_at = (SELECT max(recorded_at) FROM ledger.journal)""",
    "VACUUM (ANALYZE) ledger.event, ledger.journal, ledger.stock",
)
SCAN = "SELECT sum(delta) FROM ledger.event"
ROWS = "COPY (SELECT type, payload FROM ledger.event) TO STDOUT"  # as stored: it needn't even sort


@contextmanager
def ledger(dsn: str, events: int) -> Iterator[str]:
    """A ledger of its own with so many events, as if batches of 5,000 had written them."""
    name = f"proj_bench_{os.getpid()}"
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            own = make_conninfo(dsn, dbname=name)
            with Connection.connect(own, autocommit=True) as conn:
                migrate.migrate(conn)
                facts = {"events": events, "size": PER_ENTRY, "goods": GOODS, "users": USERS}
                for statement in (JOURNAL, EVENT):
                    conn.execute(statement, facts)
                for statement in SETTLE:
                    conn.execute(statement)
            yield own
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def timed(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


Decode = Callable[[str, str], AnyEvent]


def fast(type_: str, payload: str) -> AnyEvent:
    """The fastest way to an event: the JSON straight into its struct."""
    return DECODERS[type_](payload)


DECODERS: dict[str, Callable[[str], AnyEvent]] = {
    name: msgspec.json.Decoder(event).decode for name, event in EVENTS.items()
}
LOOPS: dict[str, Decode] = {"fast": fast, "checked": load}
"""`load` is the ledger's own way: it checks all bounds."""


class Bench:
    def __init__(self, dsn: str, events: int) -> None:
        self.dsn, self.events = dsn, events

    def connect(self) -> database.Connection:
        return database.connect(self.dsn, purpose="bench", budgets=BUDGETS)

    def ask(self, statement: str) -> None:
        with self.connect() as conn:
            conn.execute(statement)

    def scan_s(self) -> float:
        return timed(lambda: self.ask(SCAN))

    def rebuild_s(self, projection: Projection, jobs: int = 1) -> tuple[float, float]:
        """Seconds of the build alone, and of all, comparison and swap included."""
        built: list[float] = []
        begun = time.perf_counter()

        def report(now: RebuildProgress) -> None:
            if now.phase == "compare":
                built.append(time.perf_counter() - begun)

        rebuild(self.connect, projection, RebuildOptions(jobs=jobs), report)
        total = time.perf_counter() - begun
        with self.connect() as conn:
            drop_old(conn, projection)
            conn.execute("CHECKPOINT")
        return built[0], total

    def loop_s(self, projection: Projection, decode: Decode) -> float:
        """The fold in Python, the result written as one would: sorted COPY, then the key, then ANALYZE."""
        seconds = timed(lambda: self._loop(projection, decode))
        self.ask("DROP TABLE loop_result")
        self.ask("CHECKPOINT")
        return seconds

    def _loop(self, projection: Projection, decode: Decode) -> None:
        rows: dict[tuple[str, ...], list[int]] = {}
        is_stock = isinstance(projection, Stock)
        with self.connect() as conn:
            with conn.cursor() as cursor, cursor.copy(ROWS) as copy:
                copy.set_types(["text", "text"])
                for type_, payload in copy.rows():
                    event = decode(type_, payload)
                    if is_stock:
                        row = rows.setdefault((event.goods_id,), [0, 0])  # type: ignore[union-attr]
                        row[0] += event.stock_delta
                        row[1] += 1
                    elif isinstance(event, GoodsPurchased | PurchaseCancelled):
                        sums = rows.setdefault((event.user_id, event.goods_id), [0, 0, 0, 0])
                        at = 0 if isinstance(event, GoodsPurchased) else 2
                        sums[at] += 1
                        sums[at + 1] += event.quantity
            table, key = sql.Identifier("ledger", projection.table), ", ".join(projection.key)
            values = "on_hand, version" if is_stock else "purchases, quantity, cancelled, cancelled_quantity"
            conn.execute(sql.SQL("CREATE TABLE loop_result (LIKE {})").format(table))
            into = f"COPY loop_result (generation, {key}, {values}) FROM STDIN"
            with conn.cursor() as cursor, cursor.copy(into) as copy:
                for of, sums in sorted(rows.items()):
                    copy.write_row((1, *of, *sums))
        self.ask(f"CREATE UNIQUE INDEX ON loop_result ({key})")
        self.ask("ANALYZE loop_result")

    def busy(self, projection: Projection | None, max_rate: int | None) -> dict[str, float]:
        """Commands a second of two workers (processes) for a while, alone or beside rebuilds."""
        spawn = multiprocessing.get_context("spawn")
        ended = spawn.Event()
        first = int(time.time() * 1000) % 10**9
        workers = [spawn.Process(target=work, args=(self.dsn, number, first, ended)) for number in (0, 1)]
        rates: list[float] = []

        def report(now: RebuildProgress) -> None:
            if now.phase == "compare":
                rates.append(now.rate)
            if ended.is_set():
                raise _Enough

        def build() -> None:
            while projection and not ended.is_set():
                with closing(self.connect()) as conn:
                    try:
                        rebuild(self.connect, projection, RebuildOptions(max_rate=max_rate), report)
                        drop_old(conn, projection)
                    except _Enough:
                        cancel(conn, projection)

        builder = threading.Thread(target=build)
        for worker in workers:
            worker.start()
        time.sleep(2)
        builder.start()
        before, begun = self.commands(), time.perf_counter()
        time.sleep(BUSY_S)
        rate = (self.commands() - before) / (time.perf_counter() - begun)
        ended.set()
        for worker in workers:
            worker.join()
        builder.join()
        return {"commands": rate, "rebuild": statistics.median(rates) if rates else 0.0}

    def commands(self) -> int:
        with self.connect() as conn:
            row = conn.execute("SELECT sum(applied + rejected) FROM ledger.journal").fetchone()
            assert row
            return int(row[0])


def work(dsn: str, number: int, first: int, ended: Any) -> None:
    """A worker: batches of purchases on a lane of its own, each applied until it is."""
    with database.connect(dsn, purpose="bench") as conn:
        lanes = Lanes(conn, f"busy{first}")
        done = 0
        while not ended.is_set():
            records = [
                says(
                    f"{first}-{number}-{done + n:09}",
                    PurchaseGoods(
                        user_id=f"user{(done + n * 7) % USERS:05}",
                        goods_id=f"sku{(done + n * 13) % GOODS:05}",
                        quantity=1,
                    ),
                )
                for n in range(BATCH)
            ]
            while not ended.is_set():
                try:
                    lanes.apply(number, *records)
                    break
                except Contended:
                    continue
            done += BATCH


class _Enough(Exception):
    pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dsn", default=os.environ.get("STOCKLEDGER_DSN", ""))
    parser.add_argument("--skip-busy", action="store_true")
    given = parser.parse_args()
    with ledger(given.dsn, given.events) as dsn:
        bench = Bench(dsn, given.events)
        followed: list[Projection] = [Stock(), PurchasesByUser(), SalesByDay()]
        Projector(bench.connect, followed, until_caught_up=True).run()
        bench.ask("VACUUM (ANALYZE)")
        seconds: dict[str, list[float]] = {}
        memory = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]
        for _ in range(given.rounds):
            seconds.setdefault("limit", []).append(bench.scan_s())
            for projection, jobs in BUILDS:
                built, total = bench.rebuild_s(projection, jobs)
                seconds.setdefault(f"{projection.name} built, {jobs} jobs", []).append(built)
                seconds.setdefault(f"{projection.name} all, {jobs} jobs", []).append(total)
            if len(memory) == 1:  # the loops, which keep all rows, haven't run yet
                memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            for projection, _ in BUILDS[:2]:
                for name, decode in LOOPS.items():
                    took_s = bench.loop_s(projection, decode)
                    seconds.setdefault(f"{projection.name} loop, {name}", []).append(took_s)
            seconds.setdefault("limit", []).append(bench.scan_s())
        rates = {name: given.events / statistics.median(each) for name, each in seconds.items()}
        for name, rate in rates.items():
            print(f"{name:34} {rate:12,.0f} events/s  {rate / rates['limit']:6.3f} of the limit")
        print(f"memory of the rebuilding process in MB: {[kb // 1024 for kb in memory]}")
        busy = {}
        if not given.skip_busy:
            busy["alone"] = bench.busy(None, None)
            for rate in RATES:
                busy[f"max-rate {rate}"] = bench.busy(PurchasesByUser(), rate)
            busy["alone again"] = bench.busy(None, None)
            for name, each in busy.items():
                print(f"two workers, {name:20} {each['commands']:8,.0f} commands/s", end=", ")
                print(f"rebuild {each['rebuild']:,.0f} events/s")
        print(json.dumps({"events": given.events, "rates": rates, "busy": busy}))


if __name__ == "__main__":
    main()
