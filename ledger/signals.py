"""SIGTERM and SIGINT: the first one asks to end, the second one ends at once. The same for every verb.

A handler only sets a flag: an exception out of it can strike inside a Kafka client, which then loses what it
has in hand. What can be interrupted anywhere without loss (asking, folding, proving) takes both signals as
Ctrl-C (`interrupting`). Nothing here relies on the default action, which the first process of a container
doesn't have: there a signal without a handler is ignored.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeVar

T = TypeVar("T")
Handler = Callable[[int, FrameType | None], object]

NUMBERS = (signal.SIGTERM, signal.SIGINT)
END_BUDGET_S = 4.0
"""The time from the first signal to the end, whatever is waited for: after 5 s a supervisor kills."""
LOOK_INTERVAL_S = 0.05
WORK = "work"


class Asked(threading.Event):
    """Set by the first signal. An event that its handler can set without any lock; `number` says which."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.since = 0.0
        """When it was, by the monotonic clock."""

    def is_set(self) -> bool:
        return self.number != 0

    def set(self) -> None:
        self.ask(signal.SIGTERM)

    def ask(self, number: int) -> None:
        """Set it, as the signal does."""
        if not self.number:
            self.since = time.monotonic()
            self.number = number

    def wait(self, timeout: float | None = None) -> bool:
        until = None if timeout is None else time.monotonic() + timeout
        while not self.number and (until is None or time.monotonic() < until):
            time.sleep(LOOK_INTERVAL_S)
        return self.is_set()


def die(number: int, _: FrameType | None = None) -> None:
    """End now, as an unhandled signal would."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # the first process of a container outlives its own signals


@contextmanager
def interrupting() -> Iterator[None]:
    """Take both signals as Ctrl-C: KeyboardInterrupt."""
    with installed(signal.default_int_handler):
        yield


@contextmanager
def asked(stop: Callable[[], None] = lambda: None) -> Iterator[Asked]:
    """Set this at the first signal, and call `stop`, which may only set a flag; die at the second.

    Outside the main thread, which alone gets signals, it is never set.
    """
    found = Asked()

    def note(number: int, frame: FrameType | None) -> None:
        if found.is_set():
            die(number, frame)
        found.ask(number)
        stop()

    with installed(note):
        yield found


def in_time(work: Callable[[], T], ending: Asked, budget_s: float = END_BUDGET_S) -> T | None:
    """What `work` returns or raises; None if it hasn't ended so long after somebody asked it to.

    It is done in a thread, so that nothing it waits for, in the driver, in Kafka's client or in the kernel,
    holds up the end. What is left of it dies with the process (`leave`).
    """
    results: list[T] = []
    faults: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as fault:  # noqa: BLE001 (raised again below)
            faults.append(fault)

    thread = threading.Thread(target=run, name=WORK, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(LOOK_INTERVAL_S if ending.is_set() else 4 * LOOK_INTERVAL_S)
        if ending.is_set() and time.monotonic() - ending.since > budget_s:
            break
    if faults:
        raise faults[0]
    return results[0] if results else None


def result(future: Future[T]) -> T:
    """What it comes to, waited for in short pieces.

    A signal that comes just before a wait without an end is heard only after that.
    """
    while not wait([future], LOOK_INTERVAL_S).done:
        pass
    return future.result()


def join(thread: threading.Thread) -> None:
    """Wait for its end, in short pieces, too."""
    while thread.is_alive():
        thread.join(LOOK_INTERVAL_S)


def leave(code: int) -> None:
    """End the process here if work is left over; else return."""
    if any(thread.name == WORK and thread.is_alive() for thread in threading.enumerate()):
        for stream in filter(None, (sys.stdout, sys.stderr)):
            with suppress(OSError):
                stream.flush()
        os._exit(code)


@contextmanager
def installed(handler: Handler) -> Iterator[None]:
    """Have both signals handled so; outside the main thread, which alone gets signals, nothing is changed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in NUMBERS}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
