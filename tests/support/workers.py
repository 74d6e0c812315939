"""A consumer group on one topic and one ledger: workers as processes, or in this one where that is enough.

    group = Group(dsn, kafka, topic)
    worker = group.start(failpoints="seal=kill@2")   # `stockledger run`, in a process of its own
    assert worker.ended() == -SIGKILL
    group.catch_up()                                   # in this thread, to the end of the topic
    group.prove(publisher)                             # audit and verify

Whatever was started is ended by `close`, by its own pid.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import structlog
from structlog.testing import LogCapture

from consumer import records
from consumer.log import logger
from consumer.worker import Totals, Worker, WorkerSettings
from ledger.store.connection.database import Connection, connect
from ledger.verify.run import BUDGETS, verify
from tests.support.cli import Cli
from tests.support.environment import inherited
from tests.support.model import Model
from tests.support.publish import Publisher, audit

PATIENCE_S = 90
STOP_BUDGET_S = 5
WORKERS = """FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'stockledger/run'"""
LOOK_INTERVAL_S = 0.02


def wait_for(what: str, check: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """What `check` gives, once that is something true."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(LOOK_INTERVAL_S)
    raise AssertionError(f"not within {patience_s} s: {what}")


class Told:
    """What runs and says what it does."""

    logged: list[Any]
    """Its log so far, a dictionary a line."""

    @property
    def alive(self) -> bool:
        raise NotImplementedError

    def said(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """The log's lines of this event that have these fields."""
        wanted = {"event": event, **fields}.items()
        return [line for line in list(self.logged) if wanted <= line.items()]

    def says(self, event: str, times: int = 1, **fields: object) -> list[dict[str, Any]]:
        """Wait until it has said so, so many times."""

        def enough() -> list[dict[str, Any]] | None:
            alive, found = self.alive, self.said(event, **fields)
            assert len(found) >= times or alive, f"it ended: {self.logged[-5:]}"
            return found if len(found) >= times else None

        return wait_for(f"{event} {fields or ''}", enough)  # type: ignore[no-any-return]


class Process(Told):
    """One `stockledger run`, or another `verb` that goes on, and what it says."""

    def __init__(
        self,
        arguments: list[str],
        environment: Mapping[str, str],
        shell: bool = False,
        verb: str = "run",
        program: Sequence[str] = ("-m", "stockledger"),
    ) -> None:
        self.logged = []  # what is no JSON is a line with the one field `text`
        command = [sys.executable, *program, verb, "--json", "--log-format", "json", *arguments]
        if shell:
            command = ["sh", "-c", '"$@"; exit', "sh", *command]
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a signal to its group is none to ours
        )
        self.pid = self._process.pid
        self._stdout = ""
        self._readers = [threading.Thread(target=read) for read in (self._read_log, self._read_result)]
        for reader in self._readers:
            reader.start()

    def _read_log(self) -> None:
        assert self._process.stderr
        with self._process.stderr as stream:
            for line in stream:
                try:
                    self.logged.append(json.loads(line))
                except ValueError:
                    self.logged.append({"text": line.rstrip()})

    def _read_result(self) -> None:
        assert self._process.stdout
        with self._process.stdout as stream:
            self._stdout = stream.read()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ended(self, within_s: float = PATIENCE_S) -> int:
        """Wait for its end; returns the exit code, negative for a signal."""
        try:
            code = self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {within_s} s: {self.logged[-5:]}") from None
        for reader in self._readers:
            reader.join()
        return code

    def result(self) -> dict[str, Any]:
        """What it printed on stdout at its end."""
        return json.loads(self._stdout)  # type: ignore[no-any-return]

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def send_to_all(self, number: signal.Signals) -> None:
        """As a terminal does at Ctrl-C: to the process and all of its children."""
        os.killpg(self.pid, number)

    def terminates(self, within_s: float = STOP_BUDGET_S) -> None:
        """Ask it to end; it must do so in time and say that all is well."""
        self.send(signal.SIGTERM)
        code = self.ended(within_s)
        assert code == 0, (code, self.logged[-3:])

    def frozen(self) -> None:
        """Wait until it has been stopped by SIGSTOP, and not before."""
        wait_for(f"{self.pid} stops", lambda: not self.alive or state(self.pid) == "T")
        assert self.alive, f"it ended by itself: {self.logged[-5:]}"

    def children(self) -> list[int]:
        """The pids of its worker processes."""
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [pid for pid in map(int, listed) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def close(self) -> None:
        """End it and its children, whatever state they are in."""
        with suppress(ProcessLookupError):
            self.send_to_all(signal.SIGKILL)  # children whose parent is gone, too
        self.ended()


def state(pid: int) -> str:
    """The letter of the process' state, "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return ""


class Group:
    """A group of its own on one topic and ledger, and everything of it that runs."""

    def __init__(self, dsn: str, kafka: Mapping[str, str], topic: str) -> None:
        self.dsn = dsn
        self.kafka = dict(kafka)
        self.topic = topic
        self.name = f"group-of-{topic}"  # nobody waits for another test's dead members
        self.processes: list[Process] = []

    def settings(self, kafka: Mapping[str, str] | None = None, **changes: Any) -> WorkerSettings:
        """A worker's settings, with these Kafka properties besides the test's own."""
        made = WorkerSettings(self.dsn, {**self.kafka, **(kafka or {})}, (self.topic,), self.name)
        return replace(made, **changes)

    def catch_up(self, **changes: Any) -> Totals:
        """Apply the topic up to its end, in this thread."""
        return Worker(self.settings(until_caught_up=True, **changes), logger("json")).run()

    def running(self, **changes: Any) -> "Running":
        """A worker in a thread of this process; a context manager."""
        return Running(self.settings(**changes))

    def start(
        self, *arguments: str, failpoints: str = "", dsn: str = "", shell: bool = False, **kafka: str
    ) -> Process:
        """Start `stockledger run` with these arguments; with `shell`, as the child of one."""
        properties = self.kafka | {name.replace("_", "."): value for name, value in kafka.items()}
        given = [part for name, value in properties.items() for part in ("-X", f"{name}={value}")]
        environment = inherited()
        environment |= {"STOCKLEDGER_DSN": dsn or self.dsn, "STOCKLEDGER_FAILPOINTS": failpoints}
        process = Process(
            ["--topic", self.topic, "--group", self.name, *given, *arguments],
            environment,
            shell,
        )
        self.processes.append(process)
        return process

    @property
    def cli(self) -> Cli:
        """The verbs of this ledger and topic."""
        return Cli(self.dsn, self.kafka["bootstrap.servers"], self.topic, GROUP=self.name)

    def connect(self) -> Connection:
        return connect(self.dsn, purpose="test")

    def ask(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """The rows of a query on the ledger."""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            return conn.execute(query, parameters).fetchall()

    def do(self, statement: str) -> None:
        """Execute a statement on the ledger's database."""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            conn.execute(statement)

    def next_offsets(self) -> dict[int, int]:
        """How far each lane is applied."""
        rows = self.ask("SELECT partition, next_offset FROM ledger.lane WHERE topic = %s", self.topic)
        return dict(rows)

    def epochs(self) -> dict[int, int]:
        """How often each lane was taken over."""
        rows = self.ask("SELECT partition, epoch FROM ledger.lane WHERE topic = %s", self.topic)
        return dict(rows)

    def in_transaction(self) -> bool:
        """Whether a worker stands in the middle of a batch (and doesn't just pass)."""
        stands = "state = 'idle in transaction' AND clock_timestamp() - state_change > interval '200 ms'"
        return bool(self.ask(f"SELECT 1 {WORKERS} AND {stands}"))

    def cut_off_workers(self) -> int:
        """End the database sessions of all workers; returns how many there were."""
        return len(self.ask(f"SELECT pg_terminate_backend(pid, 5000) {WORKERS}"))

    def applies(self, publisher: Publisher) -> None:
        """Wait until all that was acknowledged is applied, or accounted for in another way."""
        ends = publisher.ends()

        def applied() -> bool:
            at = self.next_offsets()
            return all(at.get(partition, 0) >= end for partition, end in ends.items())

        wait_for(f"{self.topic} applied up to {ends}", applied)

    def prove(self, *publishers: Publisher, tally: Mapping[str, int] | None = None) -> Model:
        """Both judges: the audit of what was sent, and `verify` with the topic record by record."""
        model = audit(self.dsn, *publishers, tally=tally)
        with connect(self.dsn, purpose="test", budgets=BUDGETS) as conn:
            checks = list(verify(conn, deliveries=partial(records.deliveries, self.kafka)))
        failed = [f"{check.name}: {check.difference}" for check in checks if not check.ok]
        assert not failed, failed
        assert checks[-1].name == "topic"
        return model

    def close(self) -> None:
        for process in self.processes:
            process.close()


class Running(Told):
    """A worker in a thread of this process, where a test wants to look into it; a context manager."""

    def __init__(self, settings: WorkerSettings) -> None:
        capture = LogCapture()
        self.logged = capture.entries
        self.worker = Worker(settings, structlog.wrap_logger(None, processors=[capture]))
        self.fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.worker.run()
        except BaseException as fault:  # noqa: BLE001 (handed to the test)
            self.fault = fault

    def __enter__(self) -> "Running":
        self._thread.start()
        return self

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def halts(self) -> BaseException:
        """Wait until it halts by itself: the fault."""
        self._thread.join(PATIENCE_S)
        assert not self.alive, "it goes on"
        assert self.fault is not None, "it ended without a fault"
        return self.fault

    def ends(self) -> Totals:
        """Wait until it has done all: what it did."""
        self._thread.join(PATIENCE_S)
        assert not self.alive, "it goes on"
        assert self.fault is None, self.fault
        return self.worker.totals

    def __exit__(self, *_: object) -> None:
        self.worker.stop()
        self._thread.join(PATIENCE_S)
        assert not self.alive
