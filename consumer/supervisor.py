"""One worker in this process, or several in processes of their own, watched over.

A worker that dies is started again, with backoff; one that halts (a Stop) halts all, because what stopped
it would stop the others. The first signal ends after the batch in hand, or without it where that takes too
long; the second one at once.
"""

import multiprocessing
import signal
import time
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from structlog.typing import FilteringBoundLogger

from consumer.log import logger
from consumer.worker import Totals, Worker, WorkerSettings, rarely_collect_cycles
from ledger import signals
from ledger.errors import LedgerError

WATCH_INTERVAL_S = 0.1
STOP_BUDGET_S = signals.END_BUDGET_S + 0.5  # they end themselves in time, unless they are frozen
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 10.0
HEALTHY_AFTER_S = 30.0


def run(settings: WorkerSettings, workers: int, log_format: str = "auto") -> Totals:
    """Run the workers until a signal or, with `until_caught_up`, the topics' ends; returns what they did.

    Raises the LedgerError that halted one of them.
    """
    log = logger(log_format)
    if workers > 1:
        return _Supervisor(settings, workers, log_format, log).run()
    rarely_collect_cycles()
    return _run(Worker(settings, log), log)


def _run(worker: Worker, log: FilteringBoundLogger) -> Totals:
    """Run the worker in this process, and end in time."""
    with signals.asked(worker.stop) as ending:
        if not signals.in_time(worker.run, ending):
            log.warning("ended in the middle", cause="the batch in hand is applied or undone, as a whole")
        worker.totals.signal = ending.number
    return worker.totals


@dataclass
class _Child:
    process: SpawnProcess
    answer: Connection
    since: float
    failures: int = 0


class _Supervisor:
    def __init__(
        self, settings: WorkerSettings, workers: int, log_format: str, log: FilteringBoundLogger
    ) -> None:
        self._settings = settings
        self._workers = workers
        self._log_format = log_format
        self._log = log
        self._stopping = False
        self._deadline: float | None = None
        self._totals = Totals()
        self._fault: LedgerError | None = None
        self._children: dict[int, _Child] = {}
        self._due: dict[int, tuple[float, int]] = {}

    def run(self) -> Totals:
        begun = time.monotonic()
        with signals.asked(self.stop) as ending:
            for number in range(1, self._workers + 1):
                self._children[number] = self._start(number)
            while self._children or (self._due and not self._stopping):
                for number, child in list(self._children.items()):
                    if not child.process.is_alive():
                        self._ended(number, self._children.pop(number))
                if self._stopping:
                    self._end_children()
                else:
                    self._restart()
                time.sleep(WATCH_INTERVAL_S)
        self._totals.seconds, self._totals.signal = time.monotonic() - begun, ending.number
        if self._fault:
            raise self._fault
        return self._totals

    def stop(self) -> None:
        self._stopping = True

    def _end_children(self) -> None:
        """Ask them once; when the budget is spent, end them."""
        if self._deadline is None:
            self._deadline = time.monotonic() + STOP_BUDGET_S
            for child in self._children.values():
                child.process.terminate()
        elif time.monotonic() > self._deadline:
            for child in self._children.values():
                child.process.kill()

    def _start(self, number: int, failures: int = 0) -> _Child:
        ours, theirs = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(
            target=_work,
            args=(self._settings, number, self._log_format, theirs),
            name=f"worker-{number}",
            daemon=True,  # ended with us, should anything here raise
        )
        # A terminal sends Ctrl-C to all of us. Children inherit the mask and never see it: they are told by
        # SIGTERM, once, because a second signal would end them in the middle of a batch.
        resource_tracker.ensure_running()  # else the first start would run it, and that resets the mask
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        return _Child(process, ours, time.monotonic(), failures)

    def _ended(self, number: int, child: _Child) -> None:
        said = _said(child.answer)
        if isinstance(said, Totals):
            self._totals.counts += said.counts
            self._totals.caught_up = self._totals.caught_up or said.caught_up
            self._totals.lag = min(
                (lag for lag in (self._totals.lag, said.lag) if lag is not None), default=None
            )
        elif isinstance(said, LedgerError):
            self._fault = self._fault or said
            self.stop()
        elif not self._stopping:
            failures = 0 if time.monotonic() - child.since > HEALTHY_AFTER_S else child.failures + 1
            wait_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2**failures)
            self._log.warning("worker died", worker=number, exit=child.process.exitcode, again_in_s=wait_s)
            self._due[number] = (time.monotonic() + wait_s, failures)

    def _restart(self) -> None:
        for number, (when, failures) in list(self._due.items()):
            if time.monotonic() >= when:
                del self._due[number]
                self._children[number] = self._start(number, failures)


def _said(answer: Connection) -> object:
    try:
        return answer.recv() if answer.poll() else None
    except (EOFError, OSError):  # it died before or in the middle of its answer
        return None


def _work(settings: WorkerSettings, number: int, log_format: str, answer: Connection) -> None:
    """A child process: work, then tell the supervisor how it ended."""
    rarely_collect_cycles()
    log = logger(log_format).bind(worker=number)
    instance = settings.kafka.get("group.instance.id")
    if instance:  # a static member's name is its own
        settings = replace(settings, kafka={**settings.kafka, "group.instance.id": f"{instance}-{number}"})
    worker = Worker(settings, log)
    try:
        answer.send(_run(worker, log))
    except LedgerError as error:
        log.error("halted", code=error.code, cause=error.message, next=error.remedy)
        answer.send(error)
    signals.leave(0)
