"""Rebuilds against sudden death: killed at every step, while workers write and readers read.

STOCKLEDGER_KILLS=200 asks for that many kills.
"""

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from signal import SIGKILL

import pytest

from ledger import failpoints
from ledger.projections.registry import SHIPPED
from ledger.rebuilding.projector import Projector
from ledger.rebuilding.rebuild import rebuild
from ledger.rebuilding.retire import cancel, drop_old
from ledger.store.connection import database
from ledger.verify.run import verify
from tests.support.cli import Cli
from tests.support.projections import EXPECTED, Busy, connector, follow, is_right, purchases, rows, shop

KILLS = int(os.environ.get("STOCKLEDGER_KILLS", "30"))
MAX_RATE = 4_000
"""Slow enough for a build to have several chunks, and to be hit in the middle."""
STEPS = [step for step in failpoints.REBUILD_STEPS if step.startswith("rebuild.")]
BUILD_S = 2.0

READ = """
SELECT (SELECT count(*) FROM ledger.stock_levels),
       (SELECT sum(on_hand) FROM ledger.stock_levels) = (SELECT sum(delta) FROM ledger.event),
       (SELECT count(*) FROM ledger.projection WHERE name = 'stock' AND status = 'live'),
       (SELECT count(*) FROM ledger.projection WHERE name = 'purchases_by_user' AND status = 'live'),
       (SELECT sum(purchases) FROM ledger.purchases_by_user) =
           (SELECT count(*) FROM ledger.event e JOIN ledger.journal j USING (entry)
            WHERE e.type = 'GoodsPurchased' AND j.position <=
                (SELECT position FROM ledger.projection WHERE name = 'purchases_by_user' AND status = 'live'))
"""
GENERATIONS = (
    "SELECT generation, status FROM ledger.projection WHERE name = '{}' AND status <> 'dropped' ORDER BY 2"
)
POSITION = "SELECT position FROM ledger.projections WHERE name = 'purchases_by_user' AND status = 'live'"


class Reader:
    """Reads both projections all along: never half of one, none missing, and never back in time."""

    def __init__(self, dsn: str) -> None:
        self.seen: Counter[tuple[object, ...]] = Counter()
        self.backwards = 0
        self.faults: list[BaseException] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(dsn,))

    def _read(self, dsn: str) -> None:
        try:
            with database.connect(dsn, purpose="test") as conn:
                at = 0
                while not self._stop.wait(0.005):
                    self.seen.update(rows(conn, READ))
                    [(position,)] = rows(conn, POSITION)
                    self.backwards += position < at
                    at = position
        except BaseException as fault:  # noqa: BLE001 (handed to the test)
            self.faults.append(fault)

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


class Victim:
    """`stockledger rebuild`, as an operator runs it, killed at a named step or at a random moment."""

    def __init__(self, dsn: str, choose: random.Random) -> None:
        self._environment = Cli(dsn, "nowhere:9", "none").environment
        self._choose = choose
        self.kills: Counter[str] = Counter()
        self.ends: Counter[int] = Counter()

    def strike(self) -> None:
        """Start one, and see to it that it doesn't live long."""
        name = self._choose.choice(["stock", "purchases_by_user", "sales_by_day", "user_events"])
        words = [name, "--yes", "--max-rate", str(MAX_RATE)]
        if self._choose.random() < 0.25:
            words = [name, "--rollback"]
        elif name != "stock":
            words += ["--jobs", str(self._choose.choice([1, 3]))]
        step = self._choose.choice([*STEPS, "", "", ""])
        count = self._choose.randint(1, 5) if step == "rebuild.chunk" else 1
        armed = f"{step}=kill@{count}" if step else ""
        process = subprocess.Popen(
            [sys.executable, "-m", "stockledger", "rebuild", *words, "--json"],
            env=self._environment | {"STOCKLEDGER_FAILPOINTS": armed},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if not step:
            time.sleep(0.5 + self._choose.random() * BUILD_S)  # most of the first half second is the start
            process.kill()
        _, said = process.communicate(timeout=60)
        if process.returncode == -SIGKILL:
            self.kills[step or "at random"] += 1
        else:
            self.ends[process.returncode] += 1
            assert process.returncode == 0 or "no standby" in said, said


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(60 + 10 * KILLS)
def test_rebuilds_killed_at_any_step_change_nothing(ledger_dsn, seed):
    """SIGKILL over build, catch-up, compare, swap and rollback, again and again: it always resumes, no reader
    sees a half-swapped or missing projection; in the end both generations are what the events say."""
    choose = random.Random(seed)
    with database.connect(ledger_dsn, purpose="test") as conn:
        lanes = shop(conn)
        for n in range(30):
            lanes.apply(9, *purchases(seed, f"p{n}", 80))
        projections = [*SHIPPED]
        follow(ledger_dsn, *projections)
        stop = threading.Event()
        projector = Projector(connector(ledger_dsn), projections, stop=stop)
        following = threading.Thread(target=projector.run)
        victim = Victim(ledger_dsn, choose)
        begun = time.monotonic()
        with Busy(ledger_dsn, seed, size=4, pause_s=0.1) as busy, Reader(ledger_dsn) as reader:
            following.start()
            try:
                while victim.kills.total() < KILLS:
                    victim.strike()
            finally:
                stop.set()
                following.join()
        took_s = time.monotonic() - begun
        print(f"{victim.kills.total()} kills in {took_s:.0f} s: {dict(victim.kills.most_common())}")
        print(
            f"ended by themselves: {dict(victim.ends)}; {busy.batches} batches, {reader.seen.total()} reads"
        )
        assert reader.faults == []
        assert set(reader.seen) == {(7, True, 1, 1, True)}
        assert reader.backwards == 0
        for projection in projections:
            done = rebuild(connector(ledger_dsn), projection)
            assert done.comparison is not None
            assert done.comparison.differences == []
            follow(ledger_dsn, projection)
            assert projection.name not in EXPECTED or is_right(conn, projection.name)
            found = rows(conn, GENERATIONS.format(projection.name))
            assert [status for _, status in found] == ["live", "standby"]
            live, standby = (
                [
                    row[1:]
                    for row in rows(
                        conn,
                        f"SELECT * FROM ledger.{projection.table} WHERE generation = {number} ORDER BY 2, 3",
                    )
                ]
                for number, _ in found
            )
            assert live == standby
            cancel(conn, projection)
            drop_old(conn, projection)
        assert [check for check in verify(conn) if not check.ok] == []
