"""SIGKILL at every step: the process that takes the lane over makes of it what no crash would have made."""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ledger import failpoints
from ledger.domain.commands import (
    CancelPurchase,
    CloseUser,
    ListGoods,
    PurchaseGoods,
    ReceiveStock,
    RegisterUser,
)
from ledger.domain.delivery import Lane, Record
from ledger.store.connection import database
from tests.support.batches import TOPIC, Lanes, read, says
from tests.support.stepper import Stepper

ROOT = Path(__file__).parents[2]
STEPS = [step for step in failpoints.STEPS if step not in ("claim", "decode", "advanced")]
"""The batch's own; the others are the consumer's."""
SIZES = (1, 2, 7)
CLEAN = 0
RESULTS = """
SELECT rtrim(o.id, '0123456789') AS id, o.outcome, o.reason, e.type, rtrim(e.stream, '0123456789'), e.version
FROM ledger.outcomes o LEFT JOIN ledger.events e USING (source, id)
WHERE o.partition = %s ORDER BY 1
"""
STOCK = "SELECT on_hand, version FROM ledger.stock_levels WHERE goods_id = %s"
SERVE = "from tests.postgres.test_interleavings_crashes import serve; serve()"


def log(partition: int) -> list[Record]:
    """What the lane's log holds: every kind of outcome but a dead letter, on names of its own."""
    user, goods = f"anna{partition}", f"tea{partition}"
    return [
        says(f"user-{partition}", RegisterUser(user_id=user)),
        says(f"list-{partition}", ListGoods(goods_id=goods)),
        says(f"fill-{partition}", ReceiveStock(goods_id=goods, quantity=5)),
        says(f"buy-{partition}", PurchaseGoods(user_id=user, goods_id=goods, quantity=3)),
        says(f"buy-{partition}", PurchaseGoods(user_id=user, goods_id=goods, quantity=3)),
        says(f"more-{partition}", PurchaseGoods(user_id=user, goods_id=goods, quantity=3)),
        says(f"cancel-{partition}", CancelPurchase(goods_id=goods, purchase_id=f"buy-{partition}")),
        says(f"close-{partition}", CloseUser(user_id=user)),
    ]


def consume(dsn: str, partition: int, size: int) -> None:
    """A worker's life: claim the lane, go on where it stands, batch by batch, to the end of the log."""
    with database.connect(dsn, purpose="crash") as conn:
        lanes = Lanes(conn)
        lanes.claim(partition)
        records = log(partition)
        while rest := records[lanes.claims[partition].next_offset :]:
            lanes.apply(partition, *rest[:size])


def serve() -> None:
    """Read one order a line, live and die for each in a process of its own, and write its exit code."""
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            try:
                os.environ["STOCKLEDGER_FAILPOINTS"] = order.pop("failpoints")
                importlib.reload(failpoints)
                consume(**order)
                os._exit(0)
            finally:
                os._exit(1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


class Server:
    """Processes that start in no time, forked from one that has everything imported."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert self.process.stdin
        assert self.process.stdout
        self._orders, self._codes = self.process.stdin, self.process.stdout

    def run(self, partition: int, size: int, failpoints: str = "") -> int:
        """The exit code of a worker."""
        order = {"dsn": self.dsn, "partition": partition, "size": size, "failpoints": failpoints}
        self._orders.write(json.dumps(order) + "\n")
        self._orders.flush()
        return int(self._codes.readline())

    def close(self) -> None:
        with self.process:
            self._orders.close()


@pytest.fixture
def server(ledger_dsn) -> Iterator[Server]:
    with closing(Server(ledger_dsn)) as server:
        yield server


def test_a_worker_killed_at_any_step_of_any_batch_leaves_what_its_successor_completes(server, ledger_dsn):
    """However the log is cut into batches and wherever the process is killed, the next one ends with the
    clean run's outcomes, events and stock; nothing is applied twice and nothing is counted twice."""
    assert server.run(CLEAN, 7) == 0
    partition, killed = CLEAN, 0
    with Stepper(ledger_dsn) as stepper:
        clean = stepper.ask(RESULTS, CLEAN)
        for size in SIZES:
            batches = -(-len(log(CLEAN)) // size)
            for step in STEPS:
                # Only what has rows to send is ever in the middle of it: the repeat alone isn't.
                repeats = int(step == "sending" and size == 1)
                for nth, batch in ((1, 1), (batches - repeats, batches)):
                    partition += 1
                    case = f"{step}=kill@{nth}, batches of {size}"
                    assert server.run(partition, size, f"{step}=kill@{nth}") == -signal.SIGKILL, case
                    killed += 1
                    stands = stepper.ask(
                        "SELECT next_offset FROM ledger.lane WHERE partition = %s", partition
                    )
                    done = batch if step == "committed" else batch - 1
                    assert stands == [(min(done * size, len(log(CLEAN))),)], case
                    assert server.run(partition, size) == 0, case
                    assert stepper.ask(RESULTS, partition) == clean, case
                    assert stepper.ask(STOCK, f"tea{partition}") == stepper.ask(STOCK, f"tea{CLEAN}")
        for n in range(partition + 1):
            stepper.delivered[Lane(TOPIC, n)] = {o: read(o, record) for o, record in enumerate(log(n))}
        stepper.judge()
    assert killed == partition == 2 * len(SIZES) * len(STEPS)
