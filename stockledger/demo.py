"""The main job in under a minute, on services that this program brings along.

A real day of a shop: set up, then its purchases with a quarter of them sent twice, applied by three workers
of which one is killed (SIGKILL) in the middle. What it shows is a feeling, never a proof: the broker is
librdkafka's mock. The proof is `make test` on a real one.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from consumer import topic as kafka_topic
from ledger.api import Ledger
from ledger.domain.commands import COMMANDS, MessageKey
from ledger.domain.decider import State, decide, evolve
from ledger.domain.envelope import request
from ledger.domain.outcome import Reason, Rejection
from ledger.errors import BadSettings, Defect
from ledger.store import database, migrate
from ledger.verify import BUDGETS, verify
from producer.progress import Progress
from producer.publish import publish_lines
from producer.publisher import Publisher
from stockledger.embedded.kafka import EmbeddedKafka
from stockledger.embedded.postgres import EmbeddedPostgres

TOPIC = "purchase-commands"
PARTITIONS = 4
WORKERS = 3
DAY = "2010-12-01"
DUPLICATES = 0.25
RATE = 2_000.0
DEADLINE_S = 60.0
STOP_TIMEOUT_S = 10.0
SEED = 20101201
SESSION_TIMEOUT_MS = 1_500
EXAMPLES = Path(__file__).parents[1] / "examples"


@dataclass(frozen=True)
class Report:
    """What the demo did and found.

    Of the commands, `lost` have no outcome and `wrong` another one than a sequential run of the file gives;
    `doubled` goods have another stock than that run leaves. `red` are the checks of `verify` that failed.
    """

    published: int
    delivered: int
    applied: int
    rejected: dict[str, int]
    duplicates: int
    lost: int
    wrong: int
    doubled: int
    killed_pid: int
    recovered_s: float
    checks: int
    red: list[str]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether everything is as promised."""
        accounted = self.applied + sum(self.rejected.values()) + self.duplicates
        whole = self.published == self.delivered == accounted
        return whole and not (self.lost or self.wrong or self.doubled or self.red)


def run(tell: Callable[[str], None]) -> Report:
    """Run the demo, telling what happens.

    Raises LedgerError if it can't be run here, KeyboardInterrupt soon after Ctrl-C or SIGTERM.
    """
    with _flag_on_signal() as stop:

        def note(text: str) -> None:
            if stop.is_set():
                raise KeyboardInterrupt
            tell(text)

        try:
            return _run(note)
        except Exception:
            if stop.is_set():  # Ctrl-C goes to what we started, too
                raise KeyboardInterrupt from None
            raise


def _run(note: Callable[[str], None]) -> Report:
    begun = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stockledger-demo-")))
        setup, purchases = _input(folder)
        note(f"input: a real shop's {DAY}, every fourth purchase sent twice")
        broker = stack.enter_context(EmbeddedKafka({TOPIC: PARTITIONS}))
        broker.set_session_timeout(SESSION_TIMEOUT_MS)
        dsn = stack.enter_context(EmbeddedPostgres()).dsn()
        conn = stack.enter_context(database.connect(dsn, purpose="demo"))
        migrate.migrate(conn)
        note(f"PostgreSQL and an embedded broker are up, {time.monotonic() - begun:.1f} s after the start")
        demo = _Demo(note, dsn, {"bootstrap.servers": broker.bootstrap_servers}, folder)
        with Ledger(dsn) as ledger, demo.workers():
            published = demo.publish(setup)
            demo.wait(ledger, published)
            published += demo.publish(purchases, kill_owner_of=ledger)
            demo.wait(ledger, published)
            demo.recovered_s = time.monotonic() - demo.killed_at
            note(f"all applied, {demo.recovered_s:.1f} s after the kill; now the proof")
        return _report(ledger_dsn=dsn, demo=demo, files=(setup, purchases), published=published, begun=begun)


@contextmanager
def _flag_on_signal() -> Iterator[threading.Event]:
    """Set by Ctrl-C or SIGTERM. Only a flag: an exception out of a handler can strike inside a Kafka client,
    and without a handler a SIGTERM would let Postgres outlive this process."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda *_: stop.set())
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _input(folder: Path) -> tuple[Path, Path]:
    """The day as two files of JSON lines, the second with duplicates shuffled in behind the first copy."""
    script, csv = EXAMPLES / "online_retail.py", EXAMPLES / f"online_retail_{DAY}.csv"
    if not script.exists():
        raise BadSettings("the demo's input isn't installed with the program", remedy="run it in a checkout")
    subprocess.run(
        [sys.executable, str(script), str(csv), str(folder)], check=True, stdout=subprocess.DEVNULL
    )
    lines = (folder / "purchases.jsonl").read_text().splitlines(keepends=True)
    choose = random.Random(SEED)
    order = [(float(n), line) for n, line in enumerate(lines)]
    for n in choose.sample(range(len(lines)), int(len(lines) * DUPLICATES)):
        order.append((choose.uniform(n, len(lines)), lines[n]))
    path = folder / "deliveries.jsonl"
    path.write_text("".join(line for _, line in sorted(order, key=lambda item: item[0])))
    return folder / "setup.jsonl", path


class _Demo:
    """The moving parts: workers, publisher, and the kill."""

    def __init__(self, note: Callable[[str], None], dsn: str, kafka: dict[str, str], folder: Path) -> None:
        self.kafka = kafka
        self.killed_pid = 0
        self.killed_at = 0.0
        self.recovered_s = 0.0
        self._note = note
        self._dsn = dsn
        self._log = folder / "workers.log"
        self._process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def workers(self) -> Iterator[None]:
        """`stockledger run --workers 3`, stopped at the end; what it says goes to a file."""
        command = [sys.executable, "-m", "stockledger", "run", "--workers", str(WORKERS)]
        environment = {
            **os.environ,
            "STOCKLEDGER_DSN": self._dsn,
            "STOCKLEDGER_TOPIC": TOPIC,
            "STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS": self.kafka["bootstrap.servers"],
            "STOCKLEDGER_KAFKA_GROUP_PROTOCOL": "consumer",
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # in a group of its own: a Ctrl-C is ours to pass on, once
                command, env=environment, stdout=subprocess.DEVNULL, stderr=log, process_group=0
            )
        try:
            self._note(f"{WORKERS} workers started")
            yield
        finally:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def publish(self, path: Path, kill_owner_of: Ledger | None = None) -> int:
        """Publish the file; halfway through, kill a worker. Returns how many records were acknowledged."""

        def progress(now: Progress) -> None:
            halfway = now.phase == "publish" and now.bytes_done * 2 > now.bytes_total
            if kill_owner_of and halfway and not self.killed_pid:
                self._kill_an_owner(kill_owner_of)

        with Publisher(self.kafka, TOPIC) as publisher:
            rate = RATE if kill_owner_of else None  # so slow that there is a middle to be killed in
            done = publish_lines(publisher, path, rate=rate, progress=progress)
        if done.interrupted:  # it takes the signals for itself
            raise KeyboardInterrupt
        return done.published

    def _kill_an_owner(self, ledger: Ledger) -> None:
        owners = [lane.owner_pid for lane in ledger.status().lanes if lane.owner_pid]
        self.killed_pid, self.killed_at = owners[0], time.monotonic()
        os.kill(self.killed_pid, signal.SIGKILL)
        self._note(f"worker {self.killed_pid} killed in the middle (SIGKILL)")

    def wait(self, ledger: Ledger, deliveries: int) -> None:
        """Until so many deliveries are accounted for. Raises Defect where that takes too long."""
        deadline = time.monotonic() + DEADLINE_S
        while (done := sum(ledger.status().deliveries.values())) < deliveries:
            if time.monotonic() > deadline or (self._process and self._process.poll() is not None):
                tail = self._log.read_text()[-2000:]
                raise Defect(f"only {done} of {deliveries} deliveries were applied; the workers said: {tail}")
            time.sleep(0.05)


def _report(*, ledger_dsn: str, demo: _Demo, files: tuple[Path, ...], published: int, begun: float) -> Report:
    outcomes, stock = _predict(files)
    with (
        closing(database.connect(ledger_dsn, purpose="demo", budgets=BUDGETS)) as conn,
        Ledger(ledger_dsn) as ledger,
    ):
        status = ledger.status()
        found = {key: ledger.outcome(key.id, key.source) for key in outcomes}
        checks = list(verify(conn, deliveries=partial(kafka_topic.deliveries, demo.kafka)))
        return Report(
            published=published,
            delivered=sum(status.deliveries.values()),
            applied=status.deliveries["applied"],
            rejected={str(reason): n for reason, n in sorted(status.rejected.items())},
            duplicates=status.deliveries["duplicate"],
            lost=sum(not found[key] for key in outcomes),
            wrong=sum(
                bool(found[key]) and found[key][0].reason != reason for key, reason in outcomes.items()
            ),
            doubled=sum(_on_hand(ledger, goods_id) != on_hand for goods_id, on_hand in stock.items()),
            killed_pid=demo.killed_pid,
            recovered_s=demo.recovered_s,
            checks=len(checks),
            red=[f"{check.name}: {check.difference}" for check in checks if not check.ok],
            seconds=time.monotonic() - begun,
        )


def _on_hand(ledger: Ledger, goods_id: str) -> int | None:
    level = ledger.stock(goods_id)
    return level.on_hand if level else None


def _predict(files: Iterable[Path]) -> tuple[dict[MessageKey, Reason | None], dict[str, int]]:
    """What a sequential run of the files gives: each command's rejection (None: applied), and the stock."""
    state = State()
    outcomes: dict[MessageKey, Reason | None] = {}
    for path in files:
        for line in path.read_text().splitlines():
            fields = json.loads(line)
            model = COMMANDS[fields.pop("type")]
            key = MessageKey(fields.pop("source"), fields.pop("id"))
            if key in outcomes:
                continue
            decision = decide(state, request(key, model.model_validate(fields)))
            if isinstance(decision, Rejection):
                outcomes[key] = decision.reason
            else:
                outcomes[key] = None
                evolve(state, key, decision)
    return outcomes, {goods_id: goods.on_hand for goods_id, goods in state.goods.items()}
