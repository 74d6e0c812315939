"""Many commands go out one after the other, at a rate if one was asked for, until all have or until Ctrl-C.

An interrupt ends the sending between two commands: what was sent is waited for and counted.
"""

import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from ledger.errors import BadSettings
from producer.publisher import Publisher, Tally
from producer.quick import Ready

INTERRUPTED_FLUSH_S = 5.0
"""How long an interrupted run waits for the acknowledgements of what it has sent."""
PACE_POLL_S = 0.1
BURST_S = 0.1
"""How far a paced run may fall behind before it gives the lost time up."""


class Pace:
    """Keeps to a rate without bursts: time lost to a slow broker isn't caught up."""

    def __init__(self, rate: float | None, publisher: Publisher) -> None:
        if rate is not None and rate <= 0:
            raise BadSettings("the rate must be more than 0 commands a second")
        self._interval_s = 1 / rate if rate else 0.0
        self._publisher = publisher
        self._due = 0.0

    def wait(self, stop: threading.Event) -> None:
        """Until the next command is due, or `stop` is set."""
        if not self._interval_s:
            return
        while (left_s := self._due - time.monotonic()) > 0 and not stop.is_set():
            self._publisher.poll(min(left_s, PACE_POLL_S))
        now = time.monotonic()
        self._due = (self._due if self._due > now - BURST_S else now) + self._interval_s


def send(commands: Iterable[tuple[Ready, str]], publisher: Publisher, pace: Pace) -> Tally:
    """Send each command under its id; all is acknowledged unless it was interrupted.

    Raises what `Publisher.check` raises.
    """
    publisher.connect()
    with _flag_on_signal() as stop:
        for command, id in commands:
            pace.wait(stop)
            if stop.is_set():
                break
            publisher.post(command, id)
        tally = publisher.flush(INTERRUPTED_FLUSH_S if stop.is_set() else None)
    if not stop.is_set():
        publisher.check()
    return tally


@contextmanager
def _flag_on_signal() -> Iterator[threading.Event]:
    # An exception out of a signal handler can strike inside a delivery callback, whose report would be lost.
    stop = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if stop.is_set():  # whoever asks twice means it
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
