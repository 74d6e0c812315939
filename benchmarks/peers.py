"""Ours with both codecs beside Kafka Streams and the usual ways: rates, CPU time, and what each promises.

All read the same records from the same broker. Kafka Streams counts once it is warm; all others count from
their first command on.
"""

from functools import partial
from typing import Any

from benchmarks.codec import codecs
from benchmarks.limit import Limit
from benchmarks.ours import ours
from benchmarks.processes import Layout
from benchmarks.result import Options, Runs, cell, spread_cell, table
from benchmarks.streams import fetched, streams
from benchmarks.testbed import Testbed
from benchmarks.usual import executemany, one_by_one
from benchmarks.workload import Workload, encoded
from tests.support.java_kafka import NotUsable

COMMANDS = 400_000
"""What Kafka Streams is given; ours have half of it, as many as count there."""
QUICK = 4_000
NAIVE, EXECUTEMANY = 1_500, 20_000
THREADS = 2
BATCHES = {1: 5_000, 2: 20_000}
"""The size of a batch by the number of workers."""
COSTS = ("cpu_worker_us", "cpu_postgres_us", "cpu_broker_us")
STREAMS = f"Kafka Streams, {THREADS} threads"
PROMISES = {
    "naive": "no conflicts, no order, no proof",
    "executemany": "no conflicts, no order, no proof",
    STREAMS: "once on Kafka, to which the past is bound: no conflicts, no journal, no SQL, no proof",
    "ours": "all that GUARANTEES says",
    "limit": "nothing: rows that were made beforehand",
}


def run(bed: Testbed, options: Options) -> dict[str, Any]:
    """All that this machine has, in turn."""
    workload = Workload(QUICK if options.quick else COMMANDS)
    load = encoded(workload)
    mine = load.head(len(load) // 2)
    limit = Limit(bed, workload, mine)
    runs = Runs()
    with bed.topic() as topic:
        bed.publish(topic, mine.records)
        field = {
            "naive": partial(one_by_one, bed, workload, topic, min(NAIVE, len(mine))),
            "executemany": partial(executemany, bed, workload, topic, min(EXECUTEMANY, len(mine))),
        }
        for workers, batch in BATCHES.items():
            field[f"limit {workers} x {batch}"] = partial(limit.run, len(mine), workers, batch)
            for codec in codecs(bed):
                layout = Layout(workers, batch, codec=codec)
                field[f"ours {workers} x {batch}, {codec}"] = partial(ours, bed, workload, mine, layout)
        if _has_streams(bed):
            field[STREAMS] = partial(streams, bed, load, THREADS)
        runs.play(options.rounds, field)
    return {"workload": vars(workload), "runs": runs.as_json()}


def _has_streams(bed: Testbed) -> bool:
    try:
        fetched()
    except NotUsable as why:
        bed.skip(f"Kafka Streams: {why}")
        return False
    return True


def tables(found: dict[str, Any]) -> str:
    """Rates, ratios inside a round, costs, promises."""
    runs = Runs.from_json(found["runs"])
    others = [name for name in ("executemany", "naive", STREAMS) if name in runs.by_name]
    rows = [
        [
            name, spread_cell(runs.rate(name)),
            *(spread_cell(runs.ratio(name, other), 2) for other in others),
            spread_cell(runs.ratio(name, limit), 2) if (limit := _limit(name)) else "-",
            *(cell(runs.middle(name, each)) for each in COSTS),
            cell(runs.middle(name, "memory_mb"), 0), PROMISES[name if name in PROMISES else name.split()[0]],
        ]
        for name in runs.by_name
    ]  # fmt: skip
    head = [
        "contender", "commands/s", *(f"times {other}" for other in others), "of the limit",
        "CPU client, us", "CPU Postgres, us", "CPU broker, us", "memory, MB", "it promises",
    ]  # fmt: skip
    return f"Minimum / median / maximum of the rounds; CPU is a command's, medians.\n\n{table(head, rows)}\n"


def _limit(name: str) -> str:
    """The limit that has as many connections and rows a transaction; empty if there is none."""
    return name.partition(",")[0].replace("ours", "limit") if name.startswith("ours") else ""


def plot(found: dict[str, Any]) -> None:
    """The table says it."""
