"""A shop's first load: a few set-up rows, ANALYZE, then 43,000 purchases; beside the same on a grown ledger.

The statistics say that the tables are small while they grow a hundredfold, until autovacuum comes by. A plan
that believes them reads the whole register for each batch.
"""

from typing import Any

import psycopg

from benchmarks import fill
from benchmarks.measure import Run
from benchmarks.ours import ours_on
from benchmarks.processes import Layout
from benchmarks.repeats import ratios
from benchmarks.result import Options, Runs
from benchmarks.testbed import Testbed
from benchmarks.workload import Workload, encoded

ANALYSED = "a grown ledger, analysed"
NATURAL = "a fresh ledger"
COMMANDS = 43_000
QUICK_COMMANDS = 4_000
FEW = 100


def run(bed: Testbed, options: Options) -> dict[str, Any]:
    """Both in turn."""
    workload = Workload(QUICK_COMMANDS if options.quick else COMMANDS, goods=FEW, users=FEW)
    runs = Runs()
    runs.play(
        options.rounds,
        {
            ANALYSED: lambda: _load(bed, workload, past=workload.commands),
            NATURAL: lambda: _load(bed, workload, past=0),
        },
    )
    return {"commands": workload.commands, "runs": runs.as_json()}


def _load(bed: Testbed, workload: Workload, past: int) -> Run:
    """The ledger's statistics are those of its set-up rows, or of the past that it is given."""
    with bed.ledger(workload) as dsn:
        if past:
            with psycopg.connect(dsn, autocommit=True) as conn:
                fill.add_past(conn, workload, 0, past)
        return ours_on(bed, dsn, encoded(workload), Layout())


def tables(found: dict[str, Any]) -> str:
    """Rates, ratios and costs."""
    said = f"One worker, batches of up to 5,000, {found['commands']:,} purchases after {4 * FEW} set-up rows."
    return ratios(Runs.from_json(found["runs"]), ANALYSED, said)


def plot(found: dict[str, Any]) -> None:
    """The table says it."""
