"""Waiting for what the workers will have done: any number of waiters cost one question a poll.

Asked for are the outcomes of commands, and positions that a projection is to cover. Each waiter is a Future:
threads wait for its result, an asyncio program for `asyncio.wrap_future` of it.
"""

import copy
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ledger.answers import RecordedOutcome, Sent, answers
from ledger.domain.commands import MessageKey, is_key_part
from ledger.domain.token import AnyPosition, position_of
from ledger.errors import LedgerError, ProjectionUnknown
from ledger.store.connection.database import Connection
from ledger.store.connection.lending import Lender
from ledger.store.reads import coverage
from ledger.store.reads.coverage import Coverage, PositionGoal
from ledger.store.tables import processed_message

POLL_FIRST_S = 0.005
POLL_LONGEST_S = 0.1
A = TypeVar("A")


@dataclass(frozen=True)
class _Found:
    """What a poll found out."""

    outcomes: Mapping[MessageKey, RecordedOutcome]
    coverage: Mapping[PositionGoal, Coverage]


@dataclass(eq=False)
class _Waiter(ABC, Generic[A]):
    timeout_s: float
    future: Future[A] = field(default_factory=Future)
    deadline: float = field(init=False)

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + self.timeout_s

    @abstractmethod
    def answer(self, found: _Found) -> A | None:
        """The answer, if there is one. Raises what makes waiting pointless."""

    @abstractmethod
    def late(self, found: _Found) -> str:
        """What there isn't yet."""

    def look(self, found: _Found) -> None:
        """End the wait with the answer, with a fault, or because its time is up."""
        try:
            answer = self.answer(found)
        except LedgerError as error:
            self.fail(error)
            return
        if answer is not None:
            if self.future.set_running_or_notify_cancel():
                self.future.set_result(answer)
        elif time.monotonic() >= self.deadline:
            self.fail(TimeoutError(f"{self.late(found)} after {self.timeout_s} s"))

    def fail(self, error: Exception) -> None:
        """End the wait with this error, unless it has ended."""
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


@dataclass(eq=False)
class _ForOutcome(_Waiter[RecordedOutcome]):
    key: MessageKey = field(kw_only=True)
    sent: Sent | None = field(kw_only=True)

    def answer(self, found: _Found) -> RecordedOutcome | None:
        return found.outcomes.get(self.key)

    def late(self, found: _Found) -> str:
        return f"no outcome of {self.key.source} {self.key.id}"


@dataclass(eq=False)
class _ForPosition(_Waiter[int]):
    goal: PositionGoal = field(kw_only=True)

    def answer(self, found: _Found) -> int | None:
        stands = found.coverage[self.goal]
        if stands.covered is None:
            name = self.goal.projection
            raise ProjectionUnknown(f"there is no projection {name} here", remedy="stockledger status")
        return stands.covered if stands.reaches(self.goal) else None

    def late(self, found: _Found) -> str:
        at = found.coverage[self.goal].covered
        return f"{self.goal.projection} is at position {at}, not yet at {position_of(self.goal.at)},"


_AnyWaiter = _Waiter[RecordedOutcome] | _Waiter[int]


class OutcomeWatcher:
    """Asks the ledger for all who wait: in a thread that the first starts and the last ends.

    A poll is one statement for all keys, one for all positions, and one transaction of a caller's connection.
    Between two polls are 5 ms at first, and up to 100 ms as long as nobody joins. A fault of the database
    ends each wait, once a lost connection was tried anew.
    """

    def __init__(self, lender: Lender) -> None:
        self._lender = lender
        self._changed = threading.Condition()
        self._waiting: list[_AnyWaiter] = []
        self._joined = False
        self._thread: threading.Thread | None = None

    def outcome(self, asked: Sent | MessageKey, timeout_s: float) -> Future[RecordedOutcome]:
        """The command's outcome. TimeoutError once `timeout_s` seconds have passed and it was asked for.

        Of what was sent it costs a look into the register; of a key alone the event is looked for among those
        of its entry.
        """
        key, sent = (asked, None) if isinstance(asked, MessageKey) else (asked.key, asked)
        waiter = _ForOutcome(timeout_s, key=key, sent=sent)
        self._join(waiter)
        return waiter.future

    def position(self, at: AnyPosition, timeout_s: float, projection: str) -> Future[int]:
        """The position that the projection covers once that is `at` or later.

        TimeoutError as above; ProjectionUnknown; HistoryChanged. Raises ValueError for a text that is no
        token.
        """
        position_of(at)
        waiter = _ForPosition(timeout_s, goal=PositionGoal(projection, at))
        self._join(waiter)
        return waiter.future

    def _join(self, waiter: _AnyWaiter) -> None:
        with self._changed:
            self._waiting.append(waiter)
            self._joined = True
            if self._thread is None or not self._thread.is_alive():  # after a fork none is
                self._thread = threading.Thread(target=self._run, name="stockledger-wait", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        pause_s = POLL_FIRST_S
        while waiting := self._still_waiting():
            polled_at = time.monotonic()
            self._poll(waiting)
            pause_s = POLL_FIRST_S if self._pause(polled_at, pause_s) else min(2 * pause_s, POLL_LONGEST_S)

    def _still_waiting(self) -> list[_AnyWaiter]:
        """All who wait; if nobody does, the thread has ended for whoever comes next."""
        with self._changed:
            self._waiting = [waiter for waiter in self._waiting if not waiter.future.done()]
            self._joined = False
            if not self._waiting:
                self._thread = None
            return list(self._waiting)

    def _pause(self, polled_at: float, pause_s: float) -> bool:
        """For 5 ms; and then until somebody joins, until the next deadline, or `pause_s` after the poll.

        Returns whether somebody joined.
        """
        with self._changed:
            ends = [waiter.deadline for waiter in self._waiting if not waiter.future.done()]
            if not ends:
                return self._joined
            self._changed.wait_for(lambda: self._joined, min([polled_at + pause_s, *ends]) - time.monotonic())
            joined = self._joined
        time.sleep(max(polled_at + POLL_FIRST_S - time.monotonic(), 0))
        return joined

    def _poll(self, waiting: Iterable[_AnyWaiter]) -> None:
        outcomes = [waiter for waiter in waiting if isinstance(waiter, _ForOutcome)]
        keys = {waiter.key for waiter in outcomes}
        sent = [waiter.sent for waiter in outcomes if waiter.sent]
        goals = {waiter.goal for waiter in waiting if isinstance(waiter, _ForPosition)}
        try:
            found = self._lender.ask(lambda conn: _look(conn, keys, sent, goals))
            for waiter in waiting:
                waiter.look(found)
        except Exception as error:  # noqa: BLE001 (nobody else would ever tell those who wait)
            for waiter in waiting:
                waiter.fail(_own(error))


def _own(error: Exception) -> Exception:
    """A copy for each who is told: raising one adds to its traceback."""
    if not isinstance(error, LedgerError):
        return error
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    return own


def _look(conn: Connection, keys: set[MessageKey], sent: Iterable[Sent], goals: set[PositionGoal]) -> _Found:
    """What there is of it by now. What can't be the key of any command isn't asked for."""
    asked = {key for key in keys if is_key_part(key.source) and is_key_part(key.id)}
    found = answers(conn, processed_message.waited_for(conn, asked) if asked else [], sent)
    return _Found(
        {MessageKey(each.source, each.id): each for each in found},
        coverage.coverage(conn, goals) if goals else {},
    )
