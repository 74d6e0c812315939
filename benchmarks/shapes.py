"""Input that hurts: everything on one item, heavy skew, very many goods, a moving catalogue, lanes that
share their goods; and batches of one, where the head lets one commit through at a time.
"""

from functools import partial
from typing import Any

from benchmarks import measure
from benchmarks.measure import Run
from benchmarks.ours import ours
from benchmarks.processes import Layout
from benchmarks.repeats import ratios
from benchmarks.result import Options, Runs
from benchmarks.testbed import Testbed
from benchmarks.workload import Workload, encoded

BASE = "uniform, 1,000 goods"
WORKERS = 2
COMMANDS = 100_000
MANY_GOODS = 1_000_000
QUICK_COMMANDS = 4_000
QUICK_MANY_GOODS = 20_000
SINGLES = (1, 4, 12)
SINGLE_COMMANDS = 3_000
QUICK_SINGLE_COMMANDS = 100


def run(bed: Testbed, options: Options) -> dict[str, Any]:
    """All shapes in turn, then the batches of one, each round."""
    commands = QUICK_COMMANDS if options.quick else COMMANDS
    goods = QUICK_MANY_GOODS if options.quick else MANY_GOODS
    shaped = partial(Workload, commands)
    field = {
        BASE: partial(_ours, bed, shaped()),
        "all on one item": partial(_ours, bed, shaped(hot=1.0)),
        "Zipf 1.1, 10,000 goods": partial(_ours, bed, shaped(goods=10_000, zipf=1.1)),
        f"uniform, {goods:,} goods": partial(_ours, bed, shaped(goods=goods)),
        "10% register users": partial(_ours, bed, shaped(registrations=0.1)),
        "the same goods on all lanes": partial(_ours, bed, shaped(), Layout(WORKERS, spread=True)),
    }
    runs = Runs()
    runs.play(options.rounds, field)
    singles, few = Runs(), Workload(QUICK_SINGLE_COMMANDS if options.quick else SINGLE_COMMANDS)
    disk = [measure.fdatasync_us()]
    singles.play(
        options.rounds,
        {
            f"batch of 1, {workers} workers": partial(_ours, bed, few, Layout(workers, 1, max(SINGLES)))
            for workers in (SINGLES[:2] if options.quick else SINGLES)
        },
    )
    disk.append(measure.fdatasync_us())
    return {
        "commands": commands,
        "runs": runs.as_json(),
        "singles": singles.as_json(),
        "fdatasync_us": disk,
    }


def _ours(bed: Testbed, workload: Workload, layout: Layout = Layout(WORKERS)) -> Run:  # noqa: B008
    return ours(bed, workload, encoded(workload), layout)


def tables(found: dict[str, Any]) -> str:
    """Ratios to uniform input, and the batches of one beside the disk."""
    singles = Runs.from_json(found["singles"])
    base = next(iter(singles.by_name))
    before, after = (each["median"] for each in found["fdatasync_us"])
    ceiling = 1e6 / max(before, after), 1e6 / min(before, after)
    disk = (
        "fdatasync of 8 KiB in this folder, which should be on Postgres's disk: "
        f"{before:,.0f} µs before and {after:,.0f} µs after (median), so one commit after the other allows "
        f"{ceiling[0]:,.0f} to {ceiling[1]:,.0f} a second. A commit holds the head to its end: that is the "
        "ceiling of all workers together."
    )
    shapes = ratios(
        Runs.from_json(found["runs"]), BASE, f"{WORKERS} workers, batches of up to 5,000, 4 partitions."
    )
    return f"{shapes}\n{ratios(singles, base, disk)}"


def plot(found: dict[str, Any]) -> None:
    """The table says it."""
