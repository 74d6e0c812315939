"""The two codecs, a worker each in turn, beside the limit. Both make the same rows of the same records."""

from functools import partial
from typing import Any

from benchmarks.limit import Limit
from benchmarks.ours import ours
from benchmarks.processes import Layout
from benchmarks.result import Options, Runs, cell, spread_cell, table
from benchmarks.testbed import Testbed
from benchmarks.workload import Workload, encoded
from ledger import codec
from ledger.codec import CodecName

COMMANDS, QUICK_COMMANDS = 200_000, 5_000
BATCH = 5_000
LIMIT = "limit"


def run(bed: Testbed, options: Options) -> dict[str, Any]:
    """The codecs that this machine has, and the limit, interleaved."""
    workload = Workload(QUICK_COMMANDS if options.quick else COMMANDS)
    load = encoded(workload)
    limit = Limit(bed, workload, load)
    runs = Runs()
    layouts = {name: Layout(batch=BATCH, codec=name) for name in codecs(bed)}
    field = {name: partial(ours, bed, workload, load, layout) for name, layout in layouts.items()}
    runs.play(options.rounds, field | {LIMIT: partial(limit.run, len(load), 1, BATCH)})
    return {"workload": vars(workload), "batch": BATCH, "runs": runs.as_json()}


def codecs(bed: Testbed) -> list[CodecName]:
    """Those that this machine has."""
    if codec.named(None) is codec.PYTHON:
        bed.skip("the native codec isn't installed here: make native")
        return ["python"]
    return ["python", "native"]


def tables(found: dict[str, Any]) -> str:
    """Rates, ratios and costs."""
    runs = Runs.from_json(found["runs"])
    rows = [
        [
            name, spread_cell(runs.rate(name)), spread_cell(runs.ratio(name, LIMIT), 2),
            spread_cell(runs.ratio(name, "python"), 2), cell(runs.middle(name, "cpu_worker_us")),
            cell(runs.middle(name, "cpu_postgres_us")), cell(runs.middle(name, "memory_mb"), 0),
        ]
        for name in runs.by_name
    ]  # fmt: skip
    return table(
        ["codec", "commands/s", "of the limit", "of the one in Python", "CPU worker, us",
         "CPU Postgres, us", "memory, MB"],
        rows,
    )  # fmt: skip


def plot(found: dict[str, Any]) -> None:
    """The table says it."""
