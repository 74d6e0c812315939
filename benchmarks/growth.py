"""Does it slow down with age? Rate, WAL and latency after so many processed messages, by kind of id.

The past is written by INSERT ... SELECT in the order of the primary keys (see fill.py), then VACUUM ANALYZE
and CHECKPOINT; then the worker is measured on fresh commands. Meant for shared_buffers of 128 MB, which ten
million rows don't fit into; another setting is said to be one. A CHECKPOINT comes before each measurement, so
that the first change of each page is written whole to the WAL: random ids pay most for that.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import psycopg

from benchmarks import fill, latency
from benchmarks.ours import ours_on
from benchmarks.plot import Series, chart
from benchmarks.processes import Layout
from benchmarks.result import Options, Runs, cell, spread_cell, table
from benchmarks.testbed import Testbed
from benchmarks.workload import Workload, encoded

SIZES = (0, 1_000_000, 5_000_000, 10_000_000)
QUICK_SIZES = (0, 20_000)
ID_VERSIONS = (7, 4)
COMMANDS = 300_000
"""170 MB of rows and indexes: more than the buffers hold, so an empty ledger's pages are written back too."""
QUICK_COMMANDS = 4_000
RATE = 2_000
SECONDS = 5
QUICK_SECONDS = 1
BUFFERS = "128MB"


def run(bed: Testbed, options: Options) -> dict[str, Any]:
    """Grow a ledger and measure it, size by size, for each kind of id."""
    sizes = QUICK_SIZES if options.quick else SIZES
    if bed.machine()["settings"]["shared_buffers"] != BUFFERS:
        bed.skip(
            f"shared_buffers of {BUFFERS}: this server has other ones, and the figures of growth with it"
        )
    runs, waits = Runs(), {}
    for id_version in ID_VERSIONS:
        workload = Workload(QUICK_COMMANDS if options.quick else COMMANDS, id_version=id_version)
        with bed.ledger(workload) as dsn:
            grown = 0
            for size in sizes:
                with psycopg.connect(dsn, autocommit=True) as conn:
                    fill.add_past(conn, workload, grown, size)
                grown = size
                name = f"UUIDv{id_version} {size}"
                waits[name] = _measure(bed, dsn, workload, options, runs, name, sizes.index(size))
    return {"sizes": sizes, "runs": runs.as_json(), "latency": waits}


def _measure(
    bed: Testbed, dsn: str, workload: Workload, options: Options, runs: Runs, name: str, step: int
) -> list[dict[str, float]]:
    """Rates into `runs`; the latencies. Each round has commands of its own: known ids would be duplicates."""
    waits = []
    for number in range(options.rounds):
        seed = 1_000 + (step * options.rounds + number) * 2
        load = encoded(replace(workload, seed=seed))
        runs.play(1, {name: partial(ours_on, bed, dsn, load, Layout())})
        seconds = QUICK_SECONDS if options.quick else SECONDS
        calm = replace(workload, seed=seed + 1, commands=RATE * (latency.WARM_S + seconds))
        waits.append(latency.ours(bed, dsn, calm, RATE).as_json())
    return waits


def tables(found: dict[str, Any]) -> str:
    """Rate, ratio to the empty ledger, costs and latency by size."""
    runs = Runs.from_json(found["runs"])
    rows = []
    for name, waits in found["latency"].items():
        ids, size = name.split()
        ratio = runs.rate(name).median / runs.rate(f"{ids} {found['sizes'][0]}").median
        rows.append(
            [
                f"{int(size):,}", ids, spread_cell(runs.rate(name)), f"{ratio:.2f}",
                cell(runs.middle(name, "wal_bytes"), 0), cell(runs.middle(name, "cpu_worker_us")),
                cell(runs.middle(name, "cpu_postgres_us")), cell(runs.middle(name, "memory_mb"), 0),
                *(spread_cell(latency.spread(waits, share), 1) for share in latency.SHARES),
            ]
        )  # fmt: skip
    head = [
        "processed before", "ids", "commands/s", "of the empty ledger's", "WAL, bytes", "CPU worker, us",
        "CPU Postgres, us", "memory, MB", *(f"{share} at {RATE:,}/s, ms" for share in latency.SHARES),
    ]  # fmt: skip
    said = (
        "One worker, batches of up to 5,000. The past was written set-wise, then VACUUM ANALYZE and "
        "CHECKPOINT; a CHECKPOINT before each measurement. Sizes follow one another: the ratio is across "
        "them, not in a round."
    )
    return f"{said}\n\n{table(head, rows)}\n"


def plot(found: dict[str, Any]) -> str:
    """Rate by size; an empty ledger stands at 1,000."""
    runs = Runs.from_json(found["runs"])
    series = [
        Series(
            f"UUIDv{version}",
            [(max(size, 1_000), runs.rate(f"UUIDv{version} {size}").median) for size in found["sizes"]],
        )
        for version in ID_VERSIONS
    ]
    return chart("Commands a second by age", "processed before (empty: at 1,000)", "commands/s", series)
