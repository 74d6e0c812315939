"""Ours: workers with everything that the ledger promises."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import psycopg

from benchmarks import checks
from benchmarks.measure import Run
from benchmarks.processes import Crew, Layout
from benchmarks.testbed import Testbed
from benchmarks.workload import Load, Workload

DONE = "SELECT coalesce(sum(next_offset), 0) FROM ledger.lane WHERE topic = %s"


def ours(bed: Testbed, workload: Workload, load: Load, layout: Layout, *, known: bool = False) -> Run:
    """On a fresh ledger. With `known` the same load was applied before: every delivery is a duplicate."""
    with bed.ledger(workload) as dsn:
        if known:
            ours_on(bed, dsn, load, layout)
        return ours_on(bed, dsn, load, layout, known=known)


def ours_on(
    bed: Testbed,
    dsn: str,
    load: Load,
    layout: Layout,
    *,
    known: bool = False,
    beside: Callable[[], object] = lambda: None,
) -> Run:
    """On this ledger. The workers have joined and are frozen while the topic is filled.

    So the clock runs from the moment that they may begin until the last command is committed: no joining, no
    producer beside them. `beside` is called again and again meanwhile. Raises WrongResult.
    """
    with (
        bed.topic(layout.partitions) as topic,
        psycopg.connect(dsn, autocommit=True) as conn,
        Crew(bed, dsn, topic, layout) as crew,
    ):
        crew.wait_assigned(conn)
        before = checks.number(conn, checks.ON_HAND)
        crew.freeze()
        bed.publish(topic, load.records, layout.partitions, spread=layout.spread)

        def done() -> bool:
            beside()
            return checks.number(conn, DONE, topic) == len(load)

        def work() -> None:
            crew.thaw()
            crew.wait(done)

        run = bed.measured(len(load), crew.pids, work)
        expected = Counter(duplicate=len(load)) if known else load.expected
        entries = checks.ledger(conn, topic, expected, 0 if known else sum(load.pieces), before)
    return replace(run, batch_mean=len(load) / entries)
