"""One worker in this process, or several in processes of their own, watched over.

A worker that dies is started again, with backoff; one that halts (a Stop) halts all, because what stopped
it would stop the others. The first signal ends after the batch in hand, or without it where that takes too
long; the second one at once.

Where somebody watches, the supervisor asks each worker once a second how it stands, over the pipe by which
the worker says how it ended. One question at a time: so an answer never waits for room in the pipe.
"""

import multiprocessing
import signal
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from structlog.typing import FilteringBoundLogger

from consumer.log import complaints, logger
from consumer.meter import WorkerMeter
from consumer.worker import Totals, Worker, WorkerSettings, rarely_collect_cycles
from ledger import failpoints, signals
from ledger.errors import LedgerError
from ledger.telemetry import names
from ledger.telemetry.board import ALONE, Board
from ledger.telemetry.exporting import exported
from ledger.telemetry.numbers import Numbers, Said

WATCH_INTERVAL_S = 0.1
STOP_BUDGET_S = signals.END_BUDGET_S + 0.5  # they end themselves in time, unless they are frozen
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 10.0
HEALTHY_AFTER_S = 30.0
ASK_INTERVAL_S = 1.0


def run(
    settings: WorkerSettings, workers: int, log_format: str = "auto", board: Board | None = None
) -> Totals:
    """Run the workers until a signal or, with `until_caught_up`, the topics' ends; returns what they did.

    With a `board` they say there how they stand. Raises the LedgerError that halted one of them.
    """
    if workers > 1:
        return _Supervisor(settings, workers, log_format, logger(log_format), board).run()
    rarely_collect_cycles()
    if board is None:
        return _run(settings, logger(log_format), None)
    board.expect(ALONE)
    meter = WorkerMeter(settings.group, lambda said: board.hear(ALONE, said))
    return _run(settings, logger(log_format, meter.heard), meter)


def _run(settings: WorkerSettings, log: FilteringBoundLogger, meter: WorkerMeter | None) -> Totals:
    """Run a worker in this process, and end in time."""
    measuring = failpoints.watching(meter.passed) if meter else nullcontext()
    with exported("stockledger-run", complaints(log)), measuring:
        worker = Worker(settings, log, meter)
        with signals.asked(worker.stop) as ending:
            if not signals.in_time(worker.run, ending):
                log.warning("ended in the middle", cause="the batch in hand is applied or undone, as a whole")
            worker.totals.signal = ending.number
    return worker.totals


@dataclass
class _Child:
    process: SpawnProcess
    pipe: Connection
    since: float
    failures: int = 0
    said: object = None
    """How it ended."""
    is_asked: bool = False
    ask_due: float = 0.0

    def hear(self, number: int, board: Board | None) -> None:
        """Take what it has said."""
        with suppress(EOFError, OSError):  # it died before or in the middle of its answer
            while self.pipe.poll():
                said = self.pipe.recv()
                if isinstance(said, Said) and board:
                    self.is_asked = False
                    board.hear(number, said)
                else:
                    self.said = said

    def ask(self) -> None:
        """Ask how it stands, unless it hasn't answered yet."""
        if not self.is_asked and time.monotonic() >= self.ask_due:
            self.is_asked, self.ask_due = True, time.monotonic() + ASK_INTERVAL_S
            self.pipe.send(None)


class _Supervisor:
    def __init__(
        self,
        settings: WorkerSettings,
        workers: int,
        log_format: str,
        log: FilteringBoundLogger,
        board: Board | None,
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
        self._board = board
        self._numbers = Numbers()
        self._numbers.count(names.RESTARTS, by=0)

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
                if self._board:
                    self._ask_children(self._board)
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

    def _ask_children(self, board: Board) -> None:
        """Hear who has answered, and ask them again when it is time."""
        self._numbers.put(names.WORKERS, len(self._children))
        trouble = "" if len(self._children) == self._workers else "a worker that died isn't started again yet"
        board.hear(ALONE, Said(self._numbers.copy(), trouble))
        for number, child in self._children.items():
            child.hear(number, board)
            with suppress(OSError):  # it has died
                child.ask()

    def _start(self, number: int, failures: int = 0) -> _Child:
        if self._board:
            self._board.expect(number)
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=_work,
            args=(self._settings, number, self._log_format, theirs, self._board is not None),
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
        child.hear(number, self._board)
        if self._board:
            self._board.forget(number)
        said = child.said
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
            self._numbers.count(names.RESTARTS)
            self._log.warning("worker died", worker=number, exit=child.process.exitcode, again_in_s=wait_s)
            self._due[number] = (time.monotonic() + wait_s, failures)

    def _restart(self) -> None:
        for number, (when, failures) in list(self._due.items()):
            if time.monotonic() >= when:
                del self._due[number]
                self._children[number] = self._start(number, failures)


def _work(settings: WorkerSettings, number: int, log_format: str, pipe: Connection, is_watched: bool) -> None:
    """A child process: work, then tell the supervisor how it ended."""
    rarely_collect_cycles()
    meter = WorkerMeter(settings.group, lambda said: _answer(pipe, said)) if is_watched else None
    log = logger(log_format, *([meter.heard] if meter else [])).bind(worker=number)
    instance = settings.kafka.get("group.instance.id")
    if instance:  # a static member's name is its own
        settings = replace(settings, kafka={**settings.kafka, "group.instance.id": f"{instance}-{number}"})
    ended: Totals | LedgerError
    try:
        ended = _run(settings, log, meter)
    except LedgerError as error:
        log.error("halted", code=error.code, cause=error.message, next=error.remedy)
        ended = error
    if meter:
        pipe.send(meter.said())
    pipe.send(ended)
    signals.leave(0)


def _answer(pipe: Connection, said: Said) -> None:
    """Say it if the supervisor has asked; one that is gone is noticed elsewhere."""
    with suppress(EOFError, OSError):
        if pipe.poll():
            pipe.recv()
            pipe.send(said)
