"""Commands a second, from Kafka into Postgres, beside the limit and the usual ways; by stage and batch size.

Every contender runs once a round, in turn. A ratio is taken inside a round; what is shown is its minimum,
median and maximum over the rounds. Absolute figures are this machine's, this hour's.
"""

from functools import partial
from typing import Any

from benchmarks import measure
from benchmarks.limit import Limit
from benchmarks.ours import ours
from benchmarks.plot import Series, chart
from benchmarks.processes import Layout
from benchmarks.result import Options, Runs, cell, spread_cell, table
from benchmarks.stages import stage
from benchmarks.testbed import Testbed
from benchmarks.usual import executemany, one_by_one
from benchmarks.workload import Workload, encoded

BATCHES = {1: 2_000, 100: 30_000, 1_000: 150_000, 5_000: 300_000, 20_000: 400_000}
"""Commands by batch size: about two to six seconds each, so that the first fetch doesn't count."""
QUICK_BATCHES = {100: 2_000, 1_000: 5_000}
WORKERS = (1, 2)
NAIVE = 1_500
EXECUTEMANY = 20_000
QUICK_NAIVE = 500
STAGE = 100_000
"""Commands that the first stages alone read."""


def run(bed: Testbed, options: Options) -> dict[str, Any]:
    """All contenders, interleaved."""
    batches = QUICK_BATCHES if options.quick else BATCHES
    workload = Workload(max(batches.values()))
    load = encoded(workload)
    limit = Limit(bed, workload, load)
    runs = Runs()
    first = load.head(STAGE)
    with bed.topic() as topic:
        bed.publish(topic, first.records)
        usual = (QUICK_NAIVE, QUICK_NAIVE) if options.quick else (NAIVE, EXECUTEMANY)
        field = {
            "naive": partial(one_by_one, bed, workload, topic, usual[0]),
            "executemany": partial(executemany, bed, workload, topic, usual[1]),
        }
        for workers in WORKERS:
            for batch, commands in batches.items():
                place = f"{workers} x {batch}"
                layout = Layout(workers, batch)
                field[f"limit {place}"] = partial(limit.run, commands, workers, batch)
                field[f"consume {place}"] = partial(stage, bed, topic, first, layout, decodes=False)
                field[f"decode {place}"] = partial(stage, bed, topic, first, layout, decodes=True)
                field[f"ours {place}"] = partial(ours, bed, workload, load.head(commands), layout)
        runs.play(options.rounds, field)
    return {
        "workload": vars(workload),
        "batches": batches,
        "fdatasync_us": measure.fdatasync_us(),
        "runs": runs.as_json(),
    }


def tables(found: dict[str, Any]) -> str:
    """Rates, ratios and costs."""
    runs, batches = Runs.from_json(found["runs"]), [int(b) for b in found["batches"]]
    rows = []
    for workers in WORKERS:
        for batch in batches:
            place = f"{workers} x {batch}"
            name, limit = f"ours {place}", f"limit {place}"
            rows.append(
                [
                    place, spread_cell(runs.rate(name)), spread_cell(runs.ratio(name, limit), 2),
                    spread_cell(runs.ratio(name, "naive")), spread_cell(runs.ratio(name, "executemany"), 1),
                    cell(runs.middle(name, "batch_mean"), 0), cell(runs.middle(name, "cpu_worker_us")),
                    cell(runs.middle(name, "cpu_postgres_us")), cell(runs.middle(name, "cpu_broker_us")),
                    cell(runs.middle(name, "wal_bytes"), 0), cell(runs.middle(name, "memory_mb"), 0),
                ]
            )  # fmt: skip
    ratios = table(
        ["ours, workers x batch", "commands/s", "of the limit", "times naive", "times executemany",
         "batch, mean", "CPU worker, us", "CPU Postgres, us", "CPU broker, us", "WAL, bytes", "memory, MB"],
        rows,
    )  # fmt: skip
    others = ["naive", "executemany"] + [
        f"{name} {workers} x {batch}"
        for name in ("limit", "consume", "decode")
        for workers in WORKERS
        for batch in batches
    ]
    beside = table(
        ["beside it", "commands/s", "CPU client, us", "CPU Postgres, us", "CPU broker, us", "WAL, bytes"],
        [
            [
                name, spread_cell(runs.rate(name)), cell(runs.middle(name, "cpu_worker_us")),
                cell(runs.middle(name, "cpu_postgres_us")), cell(runs.middle(name, "cpu_broker_us")),
                cell(runs.middle(name, "wal_bytes"), 0),
            ]
            for name in others
        ],
    )  # fmt: skip
    disk = found["fdatasync_us"]["median"]
    return (
        "Minimum / median / maximum of the rounds; CPU and WAL are a command's, medians.\n\n"
        f"{ratios}\n\n{beside}\n\nfdatasync of 8 KiB beside the run: {disk:,.0f} µs, median.\n"
    )


def plot(found: dict[str, Any]) -> str:
    """Rate by batch size."""
    runs, batches = Runs.from_json(found["runs"]), [int(b) for b in found["batches"]]
    series = [
        Series(f"{name}, {workers} x", [(b, runs.rate(f"{name} {workers} x {b}").median) for b in batches])
        for name in ("limit", "ours")
        for workers in WORKERS
    ]
    ends = (batches[0], batches[-1])
    series += [Series(name, [(b, runs.rate(name).median) for b in ends]) for name in ("executemany", "naive")]
    return chart("Commands a second by batch size", "commands a batch, at most", "commands/s", series)
