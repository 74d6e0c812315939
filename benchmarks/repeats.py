"""What duplicates and rejections cost: deliveries a second as a ratio to clean input of the same round."""

from functools import partial
from typing import Any

from benchmarks.ours import ours
from benchmarks.processes import Layout
from benchmarks.result import Options, Runs, cell, spread_cell, table
from benchmarks.testbed import Testbed
from benchmarks.workload import Workload, encoded

CLEAN = "clean"
DUPLICATES = (0.01, 0.1, 0.5)
COMMANDS = 100_000
QUICK_COMMANDS = 4_000


def run(bed: Testbed, options: Options) -> dict[str, Any]:
    """All shares in turn."""
    commands = QUICK_COMMANDS if options.quick else COMMANDS
    clean = Workload(commands)
    # One at a time in memory: each encodes its own before it starts.
    field = {CLEAN: partial(_ours, bed, clean)}
    for share in DUPLICATES:
        field[f"{share:.0%} duplicates"] = partial(_ours, bed, Workload(commands, duplicates=share))
    field["100% duplicates"] = partial(_ours, bed, clean, known=True)
    field["100% rejections (sold out)"] = partial(_ours, bed, Workload(commands, rejections=1.0))
    runs = Runs()
    runs.play(options.rounds, field)
    return {"commands": commands, "runs": runs.as_json()}


def _ours(bed: Testbed, workload: Workload, *, known: bool = False):
    return ours(bed, workload, encoded(workload), Layout(), known=known)


def tables(found: dict[str, Any]) -> str:
    """Ratios and costs."""
    return ratios(Runs.from_json(found["runs"]), CLEAN, "One worker, batches of up to 5,000, deliveries.")


def ratios(runs: Runs, base: str, said: str) -> str:
    """A table of all runs beside the base's."""
    rows = [
        [
            name, spread_cell(runs.rate(name)), spread_cell(runs.ratio(name, base), 2),
            cell(runs.middle(name, "batch_mean"), 0), cell(runs.middle(name, "cpu_worker_us")),
            cell(runs.middle(name, "cpu_postgres_us")), cell(runs.middle(name, "wal_bytes"), 0),
            cell(runs.middle(name, "memory_mb"), 0),
        ]
        for name in runs.by_name
    ]  # fmt: skip
    head = [
        "input", "a second", f"of {base}", "batch, mean", "CPU worker, us", "CPU Postgres, us", "WAL, bytes",
        "memory, MB",
    ]  # fmt: skip
    return f"{said}\n\n{table(head, rows)}\n"


def plot(found: dict[str, Any]) -> None:
    """The table says it."""
