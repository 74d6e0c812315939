"""Interleavings by force: each batch runs in a thread and database session of its own, halted where told.

    with Stepper(dsn) as stepper:
        a, b = stepper.session(), stepper.session()
        run = a.start(0, says("p1", ...), halt=["load"])  # lane 0; its goods' rows are locked now
        run.reaches("load")
        assert b.start(1, says("p2", ...)).stands() == "blocked"
        run.result()                                      # goes on to the end

Besides `ledger.failpoints.STEPS` a run can be halted around its seals (SEALING) and after the n-th answer
of the server (`answer n`). Statements that travel together are sent one by one here, as the server runs them,
so that others get between any two of them, also after the rows (`append`) and the stock (`project`) that
travel with a seal; `Stepper(dsn, apart=False)` leaves them together. What waits is
seen in `pg_blocking_pids`, never guessed by time. `Stepper.judge` holds what was stored against a run of one
command after the other.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from typing import Any, Self
from unittest.mock import patch

from psycopg.waiting import Wait

from ledger import batch, failpoints
from ledger.batch import Applied, apply_batch
from ledger.domain.delivery import Batch, Delivery, Lane, Record
from ledger.errors import LedgerError
from ledger.store.connection import database, roundtrip
from ledger.store.connection.copy import Rows
from ledger.store.connection.database import Budgets, Connection
from ledger.store.connection.roundtrip import NOTHING, Before, Statement
from ledger.store.tables import journal
from ledger.store.tables.lane import Claim
from tests.support.batches import Hole, Lanes
from tests.support.sequential import compare

PATIENCE_S = 60
SEALING = ("sealing", "asked", "moved", "head locked")
"""Before a seal; its statement and COMMIT sent, not answered; after LG001; after `lock_head`."""
FENCE = "fence"
"""The lane has moved, and nothing was read yet: within one message, unless questions are asked one by one."""

_current = threading.local()


class Listener:
    """Hears of every step in its thread. `steps` is what it has passed."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.answers = 0

    def hit(self, step: str) -> None:
        self.steps.append(step)

    def listen(self, work: Callable[[], Any]) -> Any:
        """Do the work, in this thread."""
        _current.listener = self
        try:
            return work()
        finally:
            _current.listener = None


class Run(Listener):
    """One `work` in a thread, mostly an `apply_batch`. `hooks` are called there, once, at their step."""

    def __init__(
        self,
        session: "Session",
        work: Callable[[], Any],
        halt: Sequence[str] = (),
        hooks: dict[str, Callable[[], object]] | None = None,
    ) -> None:
        super().__init__()
        self.session, self._work = session, work
        self._halts, self._hooks = set(halt), dict(hooks or {})
        self._changed = threading.Condition()
        self._at: str | None = None
        self._ended: list[Any] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def reaches(self, step: str) -> None:
        """Wait until the run is halted at the step."""
        with self._changed:
            self._changed.wait_for(lambda: self._at or self._ended, PATIENCE_S)
            assert self._at == step, f"at {self._at}, passed {self.steps}, ended {self._ended}"

    def stands(self) -> str:
        """Wait until it needs help: the step it is halted at, `ended`, or `blocked` in Postgres."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with self._changed:
                if self._changed.wait_for(lambda: self._at or self._ended, 0.001):
                    return self._at or "ended"
            if self.blockers():
                return "blocked"
        raise AssertionError(f"still moving after {self.steps}")

    def blockers(self) -> list[int]:
        """The backends whose locks this run waits for."""
        [(pids,)] = self.session.stepper.ask("SELECT pg_blocking_pids(%s)", self.session.pid)
        return list(pids)

    def go(self, *halt: str) -> None:
        """Leave the step, and halt only at these from here on."""
        with self._changed:
            self._halts, self._at = set(halt), None
            self._changed.notify_all()

    def end(self) -> Any:
        """Go on to the end: what the work returned or raised."""
        self.go()
        self._thread.join(PATIENCE_S)
        assert self._ended, f"no end after {self.steps}, waits for {self.blockers()}"
        return self._ended[0]

    def result(self) -> Any:
        """Go on to the end: what the work returned; raises what it raised."""
        ended = self.end()
        if isinstance(ended, BaseException):
            raise ended
        return ended

    def fails(self) -> LedgerError:
        """Go on to the end: the ledger's error that the work raised."""
        ended = self.end()
        assert isinstance(ended, LedgerError), ended
        return ended

    def hit(self, step: str) -> None:
        super().hit(step)
        if hook := self._hooks.pop(step, None):
            hook()
        with self._changed:
            if step in self._halts:
                self._at = step
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._at != step, 3 * PATIENCE_S)

    def _run(self) -> None:
        try:
            ended = self.listen(self._work)
        except BaseException as error:  # noqa: BLE001 (it is handed to the test)
            ended = error
        with self._changed:
            self._at, self._ended = None, [ended]
            self._changed.notify_all()


class ApplyRun(Run):
    """One `apply_batch`."""

    def __init__(self, session: "Session", batch: Batch, **kwargs: Any) -> None:
        self.batch = batch
        super().__init__(session, lambda: session.apply(batch), **kwargs)


class Session:
    """A database session that owns the lanes it touches."""

    def __init__(self, stepper: "Stepper", budgets: Budgets) -> None:
        self.stepper, self.budgets = stepper, budgets
        self.connect()
        self.lanes = Lanes(self.conn)

    def connect(self) -> None:
        """Connect, or connect again: what is known of the lanes stays."""
        self.conn = database.connect(self.stepper.dsn, purpose="stepper", budgets=self.budgets)
        self.stepper.undo.callback(self.conn.close)
        self.pid = self.conn.info.backend_pid
        self._wait: Callable[..., Any] = self.conn.wait
        self.conn.wait = self._exchange  # type: ignore

    def reconnect(self) -> Connection:
        """Connect again, as a worker does after Unavailable, and a rebuild for whatever it does."""
        self.conn.close()
        self.connect()
        self.lanes.conn = self.conn
        return self.conn

    def start(self, partition: int, *items: Record | Hole, **kwargs: Any) -> ApplyRun:
        """Begin to apply the items as the lane's next batch."""
        return ApplyRun(self, self.batch(partition, *items), **kwargs)

    def again(self, batch: Batch, **kwargs: Any) -> ApplyRun:
        """Begin to apply this very batch, once more or in another's place."""
        return ApplyRun(self, batch, **kwargs)

    def begin(self, work: Callable[[], Any], **kwargs: Any) -> Run:
        """Begin anything else that uses this session."""
        return Run(self, work, **kwargs)

    def batch(self, partition: int, *items: Record | Hole) -> Batch:
        """The items as the lane's next batch, which the judge will expect once the lane is beyond it."""
        batch = self.lanes.batch(partition, *items)
        kept = self.stepper.delivered.setdefault(batch.lane, {})
        kept.update({d.offset: d for d in batch.deliveries})
        return batch

    def apply(self, batch: Batch) -> Applied:
        """Apply it in this thread, and move on."""
        epoch = self.lanes.claims[batch.lane.partition].epoch
        applied = apply_batch(self.conn, batch, epoch)
        self.lanes.claims[batch.lane.partition] = Claim(batch.next_offset, epoch)
        return applied

    def do(self, partition: int, *items: Record | Hole) -> Applied:
        """Apply the items as the lane's next batch, in this thread."""
        return self.apply(self.batch(partition, *items))

    def _exchange(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        listener = _listener()
        if not listener:
            return self._wait(gen, *args, **kwargs)
        answer = self._wait(_tell_when_asked(gen, listener), *args, **kwargs)
        listener.answers += 1
        listener.hit(f"answer {listener.answers}")
        return answer

    def cut(self) -> None:
        """Cut the connection from the client's side; the backend learns of it when it reads or writes."""
        with socket.socket(fileno=os.dup(self.conn.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)

    def terminate(self) -> None:
        """End the backend, as an operator or a crash would; returns when it is gone."""
        assert self.stepper.ask("SELECT pg_terminate_backend(%s, 5000)", self.pid) == [(True,)]


class Stepper:
    """Sessions to step, and one session that watches them. `apart`: questions are asked one by one."""

    def __init__(self, dsn: str, *, apart: bool = True) -> None:
        self.dsn, self.apart = dsn, apart
        self.delivered: dict[Lane, dict[int, Delivery]] = {}
        self.undo = ExitStack()

    def __enter__(self) -> Self:
        self.watch = self.connect()
        for module, name, before, after in (
            (failpoints, "hit", lambda step: step, lambda _: None),
            (journal, "seal", lambda *_: "sealing", lambda _: None),
            (journal, "back_before_seal", lambda *_: "moved", lambda _: None),
            (journal, "lock_head", lambda *_: None, lambda _: "head locked"),
        ):
            spied = _spied(getattr(module, name), before, after)
            self.undo.enter_context(patch.object(module, name, spied))
        self.undo.enter_context(patch.object(roundtrip, "prepared", _unheard(roundtrip.prepared)))
        if self.apart:
            self.undo.enter_context(patch.object(roundtrip, "exchange", _one_by_one(roundtrip.exchange)))
            self.undo.enter_context(patch.object(batch, "Before", _at_once))
        return self

    def __exit__(self, *_: object) -> None:
        self.undo.close()

    def session(self, **budgets: int) -> Session:
        """A session with these time budgets."""
        return Session(self, Budgets(**budgets))

    def connect(self) -> Connection:
        """A plain connection, for what isn't a batch."""
        conn = database.connect(self.dsn, purpose="test")
        self.undo.callback(conn.close)
        return conn

    def ask(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """The rows of a query, seen from outside."""
        return self.watch.execute(query, parameters).fetchall()

    def judge(self) -> None:
        """What is stored must be what one command after the other gives, in journal order."""
        compare(self.watch, self.delivered)


def _spied(
    function: Callable[..., Any], before: Callable[..., str | None], after: Callable[..., str | None]
) -> Callable[..., Any]:
    def spied(*args: Any) -> Any:
        _tell(before(*args))
        result = function(*args)
        _tell(after(result))
        return result

    return spied


def _one_by_one(exchange: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    def exchange_each(conn: Connection, statements: Sequence[Any], *, begin: bool = False) -> list[Any]:
        first = exchange(conn, statements[:1], begin=begin)
        if begin and first[0]:
            _tell(FENCE)
        return [*first, *(exchange(conn, [each])[0] for each in statements[1:])]

    return exchange_each


def _at_once(rows: Sequence[Rows], statements: Sequence[Statement[None]]) -> Before:
    """What would travel with the seal is done now, one by one; nothing is left to travel."""
    listener = _listener()
    if not isinstance(listener, Run):
        return Before(rows, statements)
    conn = listener.session.conn
    with database.faults():
        for each in rows:
            roundtrip.finish(conn, Before([each]), b"SELECT", ())
        listener.hit("append")
        for statement in statements:
            roundtrip.finish(conn, Before((), [statement]), b"SELECT", ())
    listener.hit("project")
    return NOTHING


def _unheard(function: Callable[..., Any]) -> Callable[..., Any]:
    """Not a step of its own: it is done once a session."""

    def unheard(*args: Any) -> Any:
        listener, _current.listener = _listener(), None
        try:
            return function(*args)
        finally:
            _current.listener = listener

    return unheard


def _listener() -> Listener | None:
    return getattr(_current, "listener", None)


def _tell(step: str | None) -> None:
    listener = _listener()
    if listener and step:
        listener.hit(step)


def _tell_when_asked(gen: Any, listener: Listener) -> Generator[Any, Any, Any]:
    """The driver's own exchange with the server; tells when a seal is written and its answer awaited."""
    try:
        state = next(gen)
        while True:
            if listener.steps[-1:] == ["sealing"] and state == Wait.R:
                listener.hit("asked")
            state = gen.send((yield state))
    except StopIteration as stop:
        return stop.value
