"""An order's way to its outcome: look into the register, publish, wait. One implementation for both colours.

A command that the register knows isn't published again. Whoever publishes it at the same moment as somebody
else gets the same outcome, and both know whose delivery decided it, by its place in the topic. How a future
is waited for is the caller's: in a thread, or in an event loop, where it holds no thread.
"""

import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from gateway.sender import IN_DOUBT, REPEAT, UNSENT, Order, Sender, told
from ledger.answers import RecordedOutcome
from ledger.domain.commands import MessageKey
from ledger.domain.token import AnyPosition
from ledger.errors import BrokerUnavailable, LedgerError, Unavailable
from ledger.store.connection.lending import ConnectionSource, Lender
from ledger.waiting import OutcomeWatcher
from producer.publisher import Publisher
from producer.tally import Receipt

T = TypeVar("T")
DELIVERY_LEAST_S = 2.0
"""An acknowledgement is waited for as long as that, however short the wait for the outcome is to be."""
GRACE_S = 2.0
"""How much later than asked for an answer of the database may come."""

Wait = Callable[[Future[Any], float], Awaitable[None]]
"""Waits until the future is done, at most so many seconds, and doesn't cancel it."""


async def blocking(future: Future[Any], timeout_s: float) -> None:
    """Wait in this thread: a coroutine that waits in no other way never suspends (`finished`)."""
    wait([future], max(timeout_s, 0))


@dataclass(frozen=True)
class Reply:
    """What became of an order: an outcome, or an error, or neither in time.

    `replayed`: another delivery than this order's decided it. `receipt`: it is in the topic.
    """

    key: MessageKey
    outcome: RecordedOutcome | None = None
    replayed: bool = False
    receipt: Receipt | None = None
    error: LedgerError | None = None


class Till:
    """Takes orders from any thread. Raises what `Ledger` and `make` raise."""

    def __init__(self, make: Callable[[], Publisher], topic: str, source: ConnectionSource) -> None:
        self.topic = topic
        self._lender = Lender(source, "shop")
        try:
            self.sender = Sender(make)
        except BaseException:
            self._lender.close()
            raise
        self._watcher = OutcomeWatcher(self._lender)

    def close(self, timeout_s: float) -> None:
        """Have sent what was ordered, wait for it as long as that, and end."""
        self.sender.close(timeout_s)
        self._lender.close()

    async def known(
        self, asked: Iterable[MessageKey | Order], wait: Wait
    ) -> list[RecordedOutcome | LedgerError | None]:
        """What the register has for each of the keys or orders; None: nothing."""
        return await self._outcomes(asked, 0, wait, must_be_answered=True)

    async def reached(self, at: AnyPosition, timeout_s: float, wait: Wait) -> None:
        """Return once the ledger has come to the position, in the history that the token is of.

        Raises what `Ledger.wait_for_position` raises.
        """
        asked = self._watcher.position(at, timeout_s, "stock")
        await wait(asked, timeout_s + GRACE_S)
        if not asked.done():
            asked.cancel()
            raise _silent()
        asked.result()

    async def answers(self, orders: Sequence[Order], timeout_s: float, wait: Wait) -> list[Reply]:
        """What became of the orders by `timeout_s` from now. They are published in their order."""
        began = time.monotonic()
        known = await self.known(orders, wait)
        if fault := next((each for each in known if isinstance(each, LedgerError)), None):
            return [Reply(order.key, error=told(fault, UNSENT)) for order in orders]
        unknown = [order for order, found in zip(orders, known, strict=True) if found is None]
        new = iter(await self._published(unknown, began, timeout_s, wait))
        return [
            Reply(order.key, _judged(order, found), replayed=True)
            if isinstance(found, RecordedOutcome)
            else next(new)
            for order, found in zip(orders, known, strict=True)
        ]

    async def _published(
        self, orders: Sequence[Order], began: float, timeout_s: float, wait: Wait
    ) -> list[Reply]:
        self.sender.send(orders)
        until = began + max(timeout_s, DELIVERY_LEAST_S)
        for order in orders:
            await wait(order.delivered, until - time.monotonic())
        for order in reversed(orders):  # backwards: what may still go out is never without what is before it
            order.delivered.cancel()
        sent = [_delivery(order) for order in orders]
        published = [order for order, each in zip(orders, sent, strict=True) if each.receipt]
        left_s = began + timeout_s - time.monotonic()
        found = iter(await self._outcomes(published, left_s, wait, must_be_answered=False))
        return [
            self._followed(order, each.receipt, next(found)) if each.receipt else each
            for order, each in zip(orders, sent, strict=True)
        ]

    async def _outcomes(
        self, asked: Iterable[MessageKey | Order], timeout_s: float, wait: Wait, *, must_be_answered: bool
    ) -> list[RecordedOutcome | LedgerError | None]:
        outcomes = [self._watcher.outcome(each, timeout_s) for each in asked]
        until = time.monotonic() + max(timeout_s, 0) + GRACE_S
        for each in outcomes:
            await wait(each, until - time.monotonic())
        is_late = must_be_answered or time.monotonic() >= until  # else the caller has ended the wait
        return [_found(each, is_late) for each in outcomes]

    def _followed(self, order: Order, receipt: Receipt, found: RecordedOutcome | LedgerError | None) -> Reply:
        if found is None:
            return Reply(order.key, receipt=receipt)
        if isinstance(found, LedgerError):
            return Reply(order.key, receipt=receipt, error=told(found, self.place(receipt)))
        decided = found.lane.topic, found.lane.partition, found.offset
        replayed = decided != (self.topic, receipt.partition, receipt.offset)
        return Reply(order.key, _judged(order, found), replayed, receipt)

    def place(self, receipt: Receipt) -> str:
        """Where it is, for people."""
        return f"it is in the topic, at {self.topic}[{receipt.partition}]@{receipt.offset}"


def _judged(order: Order, found: RecordedOutcome) -> RecordedOutcome:
    return found.answer_to(order.fingerprint)


def _delivery(order: Order) -> Reply:
    """The receipt, or why there is none."""
    delivered = order.delivered
    if delivered.done() and not delivered.cancelled():
        error = delivered.exception()
        if error is None:
            return Reply(order.key, receipt=delivered.result())
        if isinstance(error, LedgerError):
            return Reply(order.key, error=error)
        raise error
    late = BrokerUnavailable("Kafka didn't acknowledge it in time", remedy=REPEAT)
    return Reply(order.key, error=told(late, UNSENT if delivered.cancelled() else IN_DOUBT))


def _found(asked: Future[RecordedOutcome], is_late: bool) -> RecordedOutcome | LedgerError | None:
    """The outcome; None: there isn't one yet."""
    if not asked.done():
        asked.cancel()
        return _silent() if is_late else None
    error = asked.exception()
    if error is None:
        return asked.result()
    if isinstance(error, TimeoutError):
        return None
    if isinstance(error, LedgerError):
        return error
    raise error


def _silent() -> Unavailable:
    return Unavailable(f"the database didn't answer within {GRACE_S} s")


def finished(steps: Coroutine[Any, Any, T]) -> T:
    """What the coroutine comes to. It must wait by `blocking` alone."""
    try:
        steps.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("it waited for an event loop")
