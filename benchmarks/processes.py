"""Processes of their own: workers that can be frozen and let go, and helpers at the other end of a pipe."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.context import SpawnProcess
from typing import Any

import psycopg
import structlog

from benchmarks.testbed import PARTITIONS, Testbed
from consumer.worker import Worker, WorkerSettings, rarely_collect_cycles
from ledger import signals
from ledger.codec import CodecName

SPAWN = multiprocessing.get_context("spawn")
READY_S = 120.0
DONE_S = 900.0
END_S = 20.0
POLL_S = 0.01
SETTLE_S = 0.3

LANES = "SELECT count(*), count(DISTINCT owner_pid) FROM ledger.lane WHERE topic = %s AND owner_pid = ANY(%s)"


@dataclass(frozen=True)
class Layout:
    """Who works on what: so many workers on so many partitions, in batches of at most so many commands."""

    workers: int = 1
    batch: int = 5_000
    partitions: int = PARTITIONS
    spread: bool = False
    """Whether the records go to the lanes in turn, whatever their key: then lanes share their goods."""
    codec: CodecName | None = None


class Crew:
    """Workers in processes of their own, on one topic. Leaving the block ends them."""

    def __init__(self, bed: Testbed, dsn: str, topic: str, layout: Layout) -> None:
        # A frozen worker sends no heartbeats: it may stay so for as long as the topic is filled. (The mock
        # broker waits a session out at each rebalance.)
        kafka = {**bed.kafka, "session.timeout.ms": "45000" if bed.services.kafka.real else "6000"}
        self._settings = WorkerSettings(
            dsn, kafka, (topic,), "bench", batch_size_max=layout.batch, codec=layout.codec
        )
        self._layout = layout
        self._processes = [SPAWN.Process(target=_work, args=(self._settings,)) for _ in range(layout.workers)]

    def __enter__(self) -> "Crew":
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.thaw()
        end_processes(self._processes)

    @property
    def pids(self) -> list[int]:
        """The workers' process ids."""
        return [process.pid for process in self._processes if process.pid]

    def wait_assigned(self, conn: psycopg.Connection) -> None:
        """Return when each worker has lanes and every lane has a worker."""
        partitions = self._layout.partitions
        want = (partitions, min(partitions, self._layout.workers))
        asked = (self._settings.topics[0], self.pids)
        self.wait(lambda: conn.execute(LANES, asked).fetchone() == want, READY_S)
        time.sleep(SETTLE_S)  # the lanes are claimed; now the clients begin to fetch

    def wait(self, check: Callable[[], bool], timeout_s: float = DONE_S) -> None:
        """Return when it is true; raises RuntimeError when a worker is gone, or after the time."""
        until = time.monotonic() + timeout_s
        while not check():
            if time.monotonic() > until or not all(process.is_alive() for process in self._processes):
                raise RuntimeError("the workers ended or got stuck; see what they said above")
            time.sleep(POLL_S)

    def freeze(self) -> None:
        """Stop them where they are, connections open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            if process.pid and process.is_alive():
                os.kill(process.pid, number)


def _work(settings: WorkerSettings) -> None:
    """A worker's process, as `stockledger run` makes them."""
    rarely_collect_cycles()
    quiet = structlog.wrap_logger(
        structlog.PrintLogger(), wrapper_class=structlog.make_filtering_bound_logger("error")
    )
    worker = Worker(settings, quiet)
    with signals.asked(worker.stop):
        worker.run()


@contextmanager
def helpers(target: Callable[..., None], *calls: tuple[Any, ...]) -> Iterator[tuple[list[int], list[Pipe]]]:
    """A process for each call of `target`, which gets a pipe as its last argument; their pids, and our ends.

    Where one dies, reading its pipe raises EOFError. Leaving the block ends them.
    """
    processes: list[SpawnProcess] = []
    pipes: list[Pipe] = []
    try:
        for args in calls:
            ours, theirs = SPAWN.Pipe()
            processes.append(SPAWN.Process(target=target, args=(*args, theirs)))
            processes[-1].start()
            theirs.close()
            pipes.append(ours)
        yield [process.pid for process in processes if process.pid], pipes
    finally:
        end_processes(processes)


def end_processes(processes: Iterable[SpawnProcess]) -> None:
    """SIGTERM to those that were started, SIGKILL to those that don't heed it."""
    for process in processes:
        if process.pid:
            process.terminate()
    for process in processes:
        if process.pid:
            process.join(END_S)
            if process.is_alive():
                process.kill()
                process.join()
