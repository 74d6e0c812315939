"""Services for tests that run side by side: the run's first process owns them, its workers borrow them.

Every worker gets a Postgres of its own, because what tests do to one reaches into all of its databases: a
crash, a setting, the oldest transaction that a rebuild waits for. A broker is dear, and its topics and groups
keep apart: all workers share one, but for a single worker that has one to itself and may do with it what it
likes. Nothing starts before a test asks. Whatever becomes of a worker, the owner stops everything at the end.
"""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from tests.support.services import Kafka, MockKafka, Postgres, Services, Unsupported, find_services

TOLD = Unsupported
"""What a borrower is told as it is. Other faults arrive as their text: not every exception can travel."""


@dataclass(frozen=True)
class Lent:
    """What a worker has to know of the services that it got."""

    rung: str
    conninfo: str
    bootstrap_servers: str
    kafka_version: str
    real: bool
    mock: bool
    alone: bool


class Lender:
    """Starts what the workers ask for and does with it what they say; `stop` ends all of it."""

    def __init__(self) -> None:
        self.services: Services | None = None
        """Those of the first who asked."""
        self.described = ""
        self._lock = threading.Lock()
        self._undo = ExitStack()
        self._lent: dict[str, Future[Any]] = {}
        self._starts = ThreadPoolExecutor()
        self._busy = threading.Condition()
        self._pids: set[int] = set()
        self._listener = Listener(family="AF_UNIX")
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def address(self) -> str:
        return str(self._listener.address)

    def interrupt(self, patience_s: float) -> None:
        """Interrupt all workers; returns when they have ended their fixtures, too, or after so long."""
        with self._busy:
            for pid in self._pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            self._busy.wait_for(lambda: not self._pids, patience_s)

    def stop(self) -> None:
        self._listener.close()
        self._starts.shutdown(cancel_futures=True)
        with self._lock:
            self._undo.close()

    def _listen(self) -> None:
        with suppress(OSError):  # closed
            while True:
                borrower = self._listener.accept()
                threading.Thread(target=self._serve, args=(borrower,), daemon=True).start()

    def _serve(self, borrower: Connection) -> None:
        with borrower, suppress(EOFError, OSError):  # it is gone
            pid, worker, alone = borrower.recv()
            with self._busy:
                self._pids.add(pid)
            try:
                while True:
                    borrower.send(answer(partial(self._does, worker, alone, *borrower.recv())))
            finally:
                with self._busy:
                    self._pids.discard(pid)
                    self._busy.notify_all()

    def _does(self, worker: str, alone: bool, service: str, verb: str, words: Sequence[object]) -> Any:
        if service == "all":
            return self._lend(worker, alone)
        lent = self._lent[worker if service == "postgres" else which(alone)].result()
        return getattr(lent, verb)(*words)

    def _lend(self, worker: str, alone: bool) -> Lent:
        with self._lock:
            rung = self._rung(which(alone), worker)
            broker = self._one(which(alone), rung.another_kafka)
            server = self._one(worker, rung.another_postgres)
        kafka, postgres = broker.result(), server.result()
        return Lent(
            rung.rung,
            postgres.dsn(),
            kafka.bootstrap_servers,
            kafka.version,
            kafka.real,
            isinstance(kafka, MockKafka),
            alone,
        )

    def _rung(self, broker: str, server: str) -> Services:
        """The best rung of this machine, climbed once; what it starts is for who asks first."""
        if self.services is None:
            found = find_services()
            self._one(broker, lambda: found.kafka)
            self._one(server, lambda: found.postgres)
            self.described, self.services = found.describe(), found
        return self.services

    def _one(self, name: str, make: Callable[[], Any]) -> "Future[Any]":
        """What has this name, which is made if it isn't there yet."""
        if name not in self._lent:
            self._lent[name] = self._starts.submit(self._start, make)
        return self._lent[name]

    def _start(self, make: Callable[[], Any]) -> Any:
        service = make()
        self._undo.callback(service.stop)
        service.wait_ready()
        return service


def which(alone: bool) -> str:
    """The broker that a worker gets."""
    return "of one alone" if alone else "of all others"


def answer(does: Callable[[], object]) -> tuple[bool, object]:
    """What it returned, or what it raised."""
    try:
        return True, does()
    except TOLD as why:
        return False, why
    except Exception as error:  # noqa: BLE001 (the borrower's test fails by it)
        return False, AssertionError(f"{type(error).__name__}: {error}")


class Line:
    """A worker's line to the lender, open for as long as it runs tests."""

    def __init__(self, address: str, worker: str, alone: bool) -> None:
        self._line = Client(address, family="AF_UNIX")
        self._line.send((os.getpid(), worker, alone))
        self._lock = threading.Lock()

    def __call__(self, service: str, verb: str, *words: object) -> Any:
        """Let the lender do it, and return or raise what it did."""
        with self._lock:
            self._line.send((service, verb, words))
            done, given = self._line.recv()
        if not done:
            raise given
        return given

    def borrow(self) -> Services:
        """The services of this worker; `stop` leaves them to their owner."""
        lent: Lent = self("all", "lend")
        return Services(lent.rung, BorrowedKafka(self, lent), BorrowedPostgres(self, lent), [])

    def close(self) -> None:
        self._line.close()


class BorrowedKafka(Kafka):
    """The lender's broker. Only who has it alone may harm it."""

    def __init__(self, line: Line, lent: Lent) -> None:
        super().__init__(lent.bootstrap_servers, lent.kafka_version)
        self._line = line
        self._lent = lent
        self.real = lent.real

    def create_topic(self, name: str, partitions: int) -> None:
        if self._lent.mock:
            self._line("kafka", "create_topic", name, partitions)
        else:
            super().create_topic(name, partitions)

    def delete_topic(self, name: str) -> None:
        if self._lent.mock:
            self._line("kafka", "delete_topic", name)
        else:
            super().delete_topic(name)

    def kill(self) -> None:
        self._alone("kill")

    def start(self) -> None:
        self._alone("start")

    def pause(self) -> None:
        self._alone("pause")

    def resume(self) -> None:
        self._alone("resume")

    def _alone(self, verb: str) -> None:
        assert self._lent.alone, "others use this broker: name the file in side_by_side.ALONE"
        self._line("kafka", verb)


class BorrowedPostgres(Postgres):
    """The lender's server, which no other worker has unless it was given to all."""

    def __init__(self, line: Line, lent: Lent) -> None:
        super().__init__(lent.conninfo)
        self._line = line

    def kill(self) -> None:
        self._line("postgres", "kill")

    def start(self) -> None:
        self._line("postgres", "start")
