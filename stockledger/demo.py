"""The main job in under a minute, on services that this program brings along.

A real day of a shop: set up, then its purchases with a quarter of them sent twice, applied by three workers
of which one is killed (SIGKILL) in the middle. What it shows is a feeling, never a proof: the broker is
librdkafka's mock. The proof is `make test` on a real one.
"""

import json
import os
import random
import shlex
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
from typing import Self

from consumer import records
from ledger import signals
from ledger.api import Ledger
from ledger.domain.commands import COMMANDS, MessageKey
from ledger.domain.decider import State, decide, evolve
from ledger.domain.envelope import request
from ledger.domain.outcome import Reason, Rejection
from ledger.errors import Defect, Unavailable
from ledger.figures import count
from ledger.store.connection import database
from ledger.store.connection.roundtrip import execute
from ledger.store.schema import migrate
from ledger.store.tables import processed_message
from ledger.verify.run import BUDGETS, verify
from producer.progress import InputProgress
from producer.publish import publish_lines
from producer.publisher import Publisher
from stockledger import online_retail
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
SILENCE_S = 2.0
"""How long the demo is silent before it says what it is at."""


@dataclass(frozen=True)
class DemoReport:
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


def run(tell: Callable[[str], None]) -> DemoReport:
    """Run the demo, telling what happens.

    Raises LedgerError if it can't be run here, KeyboardInterrupt soon after Ctrl-C or SIGTERM.
    """
    stop = signals.Asked()  # however often: an end before the clean-up would let Postgres outlive us
    with signals.installed(lambda number, _: stop.ask(number)), _Voice(tell, stop) as voice:
        try:
            return _run(voice)
        except OSError as error:
            if stop.is_set():
                raise KeyboardInterrupt from None
            place = error.filename or os.environ.get("TMPDIR", "/tmp")
            raise Unavailable(
                f"the demo can't use {place}: {error.strerror}; nothing is left of it",
                remedy=f"df -h {shlex.quote(str(place))}",
            ) from None
        except Exception:
            if stop.is_set():  # Ctrl-C goes to what we started, too
                raise KeyboardInterrupt from None
            raise


class _Voice:
    """What the demo says; never silent for long. A context manager.

    Raises KeyboardInterrupt out of whoever speaks after `stop` was set.
    """

    def __init__(self, tell: Callable[[str], None], stop: signals.Asked) -> None:
        self._tell = tell
        self._stop = stop
        self._doing = ""
        self._over = threading.Event()
        self._spoken = threading.Event()
        self._pulse = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self._pulse.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._spoken.set()
        self._pulse.join()

    def note(self, text: str, then: str) -> None:
        """Something has happened; until the next one the demo is at `then`."""
        self.at(then)
        self._spoken.set()
        self._tell(text)

    def at(self, doing: str) -> None:
        """What the demo is at, said only if it takes long."""
        if self._stop.is_set():
            raise KeyboardInterrupt
        self._doing = doing

    def _beat(self) -> None:
        while not self._over.is_set():
            if self._spoken.wait(SILENCE_S):
                self._spoken.clear()
            else:
                self._tell(f"  ... {self._doing}")


def _run(voice: _Voice) -> DemoReport:
    begun = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stockledger-demo-")))
        setup, purchases = _input(folder)
        voice.note(f"input: a real shop's {DAY}, every fourth purchase sent twice", "starting PostgreSQL")
        broker = stack.enter_context(EmbeddedKafka({TOPIC: PARTITIONS}))
        broker.set_session_timeout(SESSION_TIMEOUT_MS)
        dsn = stack.enter_context(EmbeddedPostgres()).dsn()
        conn = stack.enter_context(database.connect(dsn, purpose="demo"))
        migrate.migrate(conn)
        up_s = time.monotonic() - begun
        voice.note(
            f"PostgreSQL and an embedded broker are up, {up_s:.1f} s after the start", "starting workers"
        )
        demo = _Demo(voice, dsn, {"bootstrap.servers": broker.bootstrap_servers}, folder)
        with Ledger(dsn) as ledger, demo.workers():
            published = demo.publish(setup)
            demo.wait(ledger, published)
            published += demo.publish(purchases, kill_owner_of=ledger)
            demo.wait(ledger, published)
            demo.recovered_s = time.monotonic() - demo.killed_at
            voice.note(f"all applied, {demo.recovered_s:.1f} s after the kill; now the proof", "the proof")
        return _report(voice, dsn, demo, files=(setup, purchases), published=published, begun=begun)


def _input(folder: Path) -> tuple[Path, Path]:
    """The day as two files of JSON lines, the second with duplicates shuffled in after the first copy."""
    online_retail.write_files(online_retail.read_rows(online_retail.DAY), folder)
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

    def __init__(self, voice: _Voice, dsn: str, kafka: dict[str, str], folder: Path) -> None:
        self.kafka = kafka
        self.killed_pid = 0
        self.killed_at = 0.0
        self.recovered_s = 0.0
        self._voice = voice
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
            self._voice.note(f"{WORKERS} workers started", "setting up: users, goods and their stock")
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

        def progress(now: InputProgress) -> None:
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
        self._voice.note(f"worker {self.killed_pid} killed in the middle (SIGKILL)", "publishing")

    def wait(self, ledger: Ledger, deliveries: int) -> None:
        """Wait until so many deliveries are accounted for. Raises Defect where that takes too long."""
        deadline = time.monotonic() + DEADLINE_S
        while (done := sum(ledger.status().deliveries.values())) < deliveries:
            if time.monotonic() > deadline or (self._process and self._process.poll() is not None):
                tail = self._log.read_text()[-2000:]
                applied = f"only {count(done)} of {count(deliveries)} deliveries were applied"
                raise Defect(f"{applied}; the workers said: {tail}")
            self._voice.at(f"{count(done)} of {count(deliveries)} deliveries are applied")
            time.sleep(0.05)


def _report(
    voice: _Voice, dsn: str, demo: _Demo, *, files: tuple[Path, ...], published: int, begun: float
) -> DemoReport:
    outcomes, stock = _predict(files)
    with (
        closing(database.connect(dsn, purpose="demo", budgets=BUDGETS)) as conn,
        Ledger(dsn) as ledger,
    ):
        status = ledger.status()
        found = execute(conn, processed_message.find_statement(outcomes))
        levels = {level.goods_id: level.on_hand for level in ledger.stock_levels(as_of=status.position)}
        topic = partial(records.deliveries, demo.kafka)
        checks = list(
            verify(conn, deliveries=topic, on_progress=lambda what, *_: voice.at(f"verify: {what}"))
        )
        return DemoReport(
            published=published,
            delivered=sum(status.deliveries.values()),
            applied=status.deliveries["applied"],
            rejected={str(reason): n for reason, n in sorted(status.rejected.items())},
            duplicates=status.deliveries["duplicate"],
            lost=len(outcomes.keys() - found.keys()),
            wrong=sum(found[key].reason != reason for key, reason in outcomes.items() if key in found),
            doubled=sum(levels.get(goods_id) != on_hand for goods_id, on_hand in stock.items()),
            killed_pid=demo.killed_pid,
            recovered_s=demo.recovered_s,
            checks=len(checks),
            red=[f"{check.name}: {check.difference}" for check in checks if not check.ok],
            seconds=time.monotonic() - begun,
        )


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
