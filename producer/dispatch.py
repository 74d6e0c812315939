"""Many commands go out one after the other, at a rate if one was asked for, until all have or until Ctrl-C.

An interrupt ends the sending between two commands: what was sent is waited for and counted. So it is where
anything else ends it, and the error has the account.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from ledger import signals
from ledger.errors import BadSettings, BrokerUnavailable, LedgerError
from ledger.signals import Asked
from producer.plain import Ready
from producer.publisher import Publisher
from producer.tally import Tally, account

INTERRUPTED_FLUSH_S = 5.0
"""How long a run that ends early waits for the acknowledgements of what it has sent."""
RERUN = "run the same again: what is in the topic has no second effect"
THROTTLE_POLL_S = 0.1
BURST_S = 0.1
"""How late a run with a rate may be before it gives the lost time up."""


class Throttle:
    """Keeps to a rate without bursts: time lost to a slow broker isn't caught up."""

    def __init__(self, rate: float | None, publisher: Publisher) -> None:
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float)):
            raise TypeError(f"rate must be a number of commands a second, not {type(rate).__name__}")
        if rate is not None and not rate > 0:
            raise BadSettings(
                "the rate must be more than 0 commands a second", remedy="leave --rate out for full speed"
            )
        self._interval_s = 1 / rate if rate else 0.0
        self._publisher = publisher
        self._due = 0.0

    def wait(self, stop: Asked) -> None:
        """Wait until the next command is due, or `stop` is set."""
        if not self._interval_s:
            return
        while (left_s := self._due - time.monotonic()) > 0 and not stop.is_set():
            self._publisher.poll(min(left_s, THROTTLE_POLL_S))
        now = time.monotonic()
        self._due = (self._due if self._due > now - BURST_S else now) + self._interval_s


def send(commands: Iterable[tuple[Ready, str]], publisher: Publisher, throttle: Throttle) -> Tally:
    """Send each command under its id; all is acknowledged unless it was interrupted.

    Raises what `Publisher.check` raises, and what `commands` raises, with the account of what was sent.
    """
    publisher.connect()
    with _flag_on_signal() as stop, _accounted(publisher):
        for command, id in commands:
            throttle.wait(stop)
            if stop.is_set():
                break
            publisher.post(command, id)
        tally = publisher.flush(INTERRUPTED_FLUSH_S if stop.is_set() else None)
        if not stop.is_set():
            publisher.check()
    return tally


@contextmanager
def _accounted(publisher: Publisher) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt):  # whoever asks twice doesn't want to wait
            publisher.flush(INTERRUPTED_FLUSH_S)
        told = account(publisher.tally)
        if not isinstance(error, LedgerError):
            error.add_note(f"{told}; {RERUN}")
        elif told not in error.message:
            error.message = f"{error.message}; {told}"
            error.args = (error.message,)
        if isinstance(error, BrokerUnavailable):
            error.remedy = RERUN
        raise


@contextmanager
def _flag_on_signal() -> Iterator[Asked]:
    # An exception out of a signal handler can strike inside a delivery callback, whose report would be lost.
    stop = Asked()

    def note(number: int, _: FrameType | None) -> None:
        if stop.is_set():  # whoever asks twice means it; the account is told all the same
            raise KeyboardInterrupt
        stop.ask(number)

    with signals.installed(note):
        yield stop
