"""The moving parts of the demo: workers, the publisher, the kill, and the door of a shop that stays open."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ledger.api import Ledger
from ledger.errors import Defect
from ledger.figures import count
from producer.progress import InputProgress
from producer.publish import publish_lines
from producer.publisher import Publisher
from stockledger.demo.voice import Voice

TOPIC = "purchase-commands"
WORKERS = 3
RATE = 2_000.0
DEADLINE_S = 60.0
STOP_TIMEOUT_S = 10.0
LOOK_INTERVAL_S = 0.05
PORT = 8080


class Program:
    """`stockledger` with these words, as somebody else's process; what it says goes to a file."""

    def __init__(self, words: list[str], environment: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as stream:
            self._process = subprocess.Popen(  # in a group of its own: a Ctrl-C is ours to pass on, once
                [sys.executable, "-m", "stockledger", *words],
                env=os.environ | environment,
                stdout=subprocess.DEVNULL,
                stderr=stream,
                process_group=0,
            )

    def said(self) -> list[str]:
        """The lines that it has finished."""
        return self._log.read_text().rpartition("\n")[0].splitlines()

    def has_ended(self) -> bool:
        """Whether it has, which it shouldn't by itself."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """End it, in time."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Parts:
    """All that moves; `killed_pid` is 0 until a worker was killed."""

    def __init__(self, voice: Voice, dsn: str, kafka: dict[str, str], folder: Path) -> None:
        self.kafka = kafka
        self.killed_pid = 0
        self.killed_at = 0.0
        self.recovered_s = 0.0
        self._voice = voice
        self._folder = folder
        self._environment = {
            "STOCKLEDGER_DSN": dsn,
            "STOCKLEDGER_TOPIC": TOPIC,
            "STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS": kafka["bootstrap.servers"],
            "STOCKLEDGER_KAFKA_GROUP_PROTOCOL": "consumer",
        }

    @contextmanager
    def running(self, *words: str) -> Iterator[Program]:
        """That verb at work, stopped at the end."""
        program = Program([*words], self._environment, self._folder / f"{words[0]}.log")
        try:
            yield program
        finally:
            program.stop()

    @contextmanager
    def workers(self) -> Iterator[Program]:
        """The group that applies what comes."""
        with self.running("run", "--workers", str(WORKERS)) as group:
            self._voice.note(f"{WORKERS} workers started", "setting up: users, goods and their stock")
            yield group

    @contextmanager
    def door(self) -> Iterator[str]:
        """A gateway, and the projections that its pages show. Yields its address."""
        words = ("serve", "--source", "demo", "--port", str(_port()), "--log-format", "json")
        with self.running("project"), self.running(*words) as gateway:
            while not (ready := [line for line in gateway.said() if '"ready"' in line]):
                self._voice.at("the dashboard is starting")
                _require_running(gateway, "there is no dashboard")
                time.sleep(LOOK_INTERVAL_S)
            yield json.loads(ready[0])["address"]

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

    def wait(self, ledger: Ledger, deliveries: int, group: Program) -> None:
        """Wait until so many deliveries are accounted for. Raises Defect where that takes too long."""
        deadline = time.monotonic() + DEADLINE_S
        while (done := sum(ledger.status().deliveries.values())) < deliveries:
            so_far = f"{count(done)} of {count(deliveries)} deliveries"
            _require_running(group, f"only {so_far} were applied", late=time.monotonic() > deadline)
            self._voice.at(f"{so_far} are applied")
            time.sleep(LOOK_INTERVAL_S)


def _require_running(program: Program, otherwise: str, *, late: bool = False) -> None:
    if late or program.has_ended():
        raise Defect(f"{otherwise}; what should do it said: {' '.join(program.said()[-10:])}")


def _port() -> int:
    """The door's usual one, or any where that is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            return 0
        return PORT
