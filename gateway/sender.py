"""One thread that publishes for all others: a `Publisher` is for one thread, and a shop has many.

What was handed over together is sent in its order by one publisher: after a command that isn't acknowledged
none of those after it goes out. Each ends as acknowledged, or with an error that says whether it may be in
the topic. Sending it again with the same id is safe in either case: an id counts once.
"""

import copy
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import cached_property, partial
from queue import Empty, SimpleQueue

from ledger.domain.commands import AnyCommand, MessageKey
from ledger.domain.delivery import stream_of
from ledger.domain.envelope import fingerprint
from ledger.errors import BrokerUnavailable, Defect, LedgerError, Retry
from producer.publisher import Forked, Publisher
from producer.tally import Receipt

TURN_S = 0.02
"""How long what is handed over meanwhile waits for the reports of what is under way: then it goes anyway."""
IDLE_INTERVAL_S = 1.0
AGAIN_AFTER_S = 1.0
REPEAT = "send the same again with the same id: it counts once, however often it is sent"
UNSENT = "this command was not published"
IN_DOUBT = "whether this command is in the topic isn't known"


@dataclass(eq=False)
class Order:
    """A command on its way; `delivered` is its receipt once the broker has acknowledged it.

    An order whose `delivered` could be cancelled was not published, and never will be.
    """

    key: MessageKey
    command: AnyCommand
    delivered: Future[Receipt] = field(default_factory=Future)
    context: Context = field(default_factory=copy_context)
    """Whoever ordered it: the trace, if there is one."""

    @cached_property
    def fingerprint(self) -> bytes:
        """Its payload's."""
        return fingerprint(self.key, self.command)

    @property
    def stream(self) -> str:
        """The stream that its event belongs to if it is applied."""
        return stream_of(self.command)


class Sender:
    """Takes orders from any thread of the process that made it. Raises what a `Publisher` raises when made.

    It connects at once, and again after a fault. As long as it isn't connected `trouble` says why.
    """

    def __init__(self, make: Callable[[], Publisher]) -> None:
        self._make = make
        self._made: Publisher | None = make()
        self._process = os.getpid()
        self._waiting: SimpleQueue[Sequence[Order] | None] = SimpleQueue()
        self._unsent: deque[Order] = deque()
        """Taken, and not yet given to Kafka's client."""
        self._under_way: set[Order] = set()
        self._is_refused = False
        self._closed = threading.Event()
        self.trouble: LedgerError | None = BrokerUnavailable(
            "it has yet to connect", remedy="stockledger doctor"
        )
        self._thread = threading.Thread(target=self._run, name="stockledger-send", daemon=True)
        self._thread.start()

    def send(self, orders: Sequence[Order]) -> None:
        """Have them published, in this order. Raises Forked in a process that was forked off."""
        if os.getpid() != self._process:
            raise Forked(
                f"it was made by process {self._process}, from which this one was forked off later; nothing "
                "was published here",
                remedy="make a new one in each process after its fork (gunicorn: in post_fork)",
            )
        self._waiting.put(orders)
        if self._closed.is_set():
            self._fail_waiting(_closed())

    def close(self, timeout_s: float) -> None:
        """Send what was handed over, wait for its reports as long as that, and end."""
        if os.getpid() == self._process:
            self._closed.set()
            self._waiting.put(None)
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                with self._made or self._make() as publisher:
                    self._made = None
                    self._publish(publisher)
            except LedgerError as error:
                self._fail(error)
            except Exception as error:  # noqa: BLE001 (nobody else would ever tell those who wait)
                self._fail(Defect(f"{type(error).__name__}: {error}"))
        self._fail_waiting(_closed())

    def _publish(self, publisher: Publisher) -> None:
        self._is_refused = False
        publisher.connect()
        self.trouble = None
        is_open = True
        while is_open:
            is_open = self._take()
            while self._unsent:
                order = self._unsent[0]
                self._under_way.add(order)  # before it is sent: its report may come at once
                source, id = order.key
                order.context.run(
                    publisher.send, order.command, id=id, source=source, on_report=partial(self._note, order)
                )
                self._unsent.popleft()
            publisher.flush(TURN_S)  # nothing lingers in the client: what comes meanwhile goes together
            if self._is_refused:
                publisher.check()
        publisher.flush()
        publisher.check()

    def _take(self) -> bool:
        """All that was handed over; waits for some unless reports are to come. False: it was closed."""
        try:
            orders = self._waiting.get(block=not self._under_way, timeout=IDLE_INTERVAL_S)
            while orders is not None:
                self._unsent.extend(each for each in orders if each.delivered.set_running_or_notify_cancel())
                orders = self._waiting.get(block=False)
        except Empty:
            return True
        return False

    def _note(self, order: Order, receipt: Receipt) -> None:
        if receipt.offset is None:
            self._is_refused = True
        else:
            self._under_way.discard(order)
            order.delivered.set_result(receipt)

    def _fail(self, error: LedgerError) -> None:
        """End what is under way. Who waits for a broker that can't be reached has waited long enough."""
        under_way, self._under_way = self._under_way, set()
        unsent, self._unsent = self._unsent, deque()
        for order in under_way | {*unsent}:
            order.delivered.set_exception(told(error, UNSENT if order in unsent else IN_DOUBT))
        if self.trouble or not under_way:
            self._fail_waiting(error)
        self.trouble = error
        self._closed.wait(AGAIN_AFTER_S)

    def _fail_waiting(self, error: LedgerError) -> None:
        while not self._waiting.empty():
            for order in self._waiting.get() or ():
                if order.delivered.set_running_or_notify_cancel():
                    order.delivered.set_exception(told(error, UNSENT))


def _closed() -> BrokerUnavailable:
    return BrokerUnavailable("it was closed", remedy=REPEAT)


def told(error: LedgerError, fate: str) -> LedgerError:
    """A copy for whoever sent a command: what became of it, and that it may be sent again."""
    own = copy.copy(error)
    own.message = f"{error.message}; {fate}"
    own.args = (own.message,)
    if isinstance(error, Retry):
        own.remedy = REPEAT
    return own
