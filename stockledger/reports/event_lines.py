"""The events of a range written as lines, to standard output or a new file: whole lines, none twice."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from shlex import quote
from typing import Any

from ledger import signals
from ledger.errors import AGAIN, Unavailable, UnreadableEvent
from ledger.history import events
from ledger.history.events import Window
from ledger.private import private
from ledger.store.connection.database import Connection
from ledger.store.reads.history import Piece, Wanted
from stockledger.verb.exits import OutputFailed, UsageError
from stockledger.verb.streams import drop
from stockledger.verb.waiting import Waiting

STDOUT = "-"
RECONNECT_INTERVAL_S = 1.0


@dataclass
class Written:
    """How much was written, and the position from which to go on: all before it is there, nothing of it.

    `end` is the token of the journal's end by then. `unread`: whoever read it has gone.
    """

    events: int = 0
    next_position: int = 1
    end: str = ""
    interrupted: bool = False
    unread: bool = False


class _Sink:
    """Writes whole lines, none twice, flushed piece by piece."""

    def __init__(self, out: Any, done: Written) -> None:
        self.done = done
        self.began = False
        self._out = out
        self._written = self._whole = (0, 0)
        """Bytes and events, as they are and where `done.next_position` begins."""
        self._last = (0, -1)
        """The place of the last event that was written; a piece that is read again may begin before it."""

    def take(self, piece: Piece, source: str) -> None:
        """Write the piece. Raises BrokenPipeError, OutputFailed, and UnreadableEvent after what is before."""
        self.began, self.done.end = True, piece.end
        lines: list[str] = []
        try:
            for stored in piece.events:
                if (place := (stored.position, stored.ordinal)) > self._last:
                    lines.append(events.cloud_event(stored, source))
                    self._last = place
        except UnreadableEvent as error:
            self._put(lines)
            self._note(error.position)
            raise
        self._put(lines)
        if self._last[0] < piece.next_position:
            self._note(piece.next_position)

    def _put(self, lines: list[str]) -> None:
        text = "".join(lines).encode()
        rest = memoryview(text)
        try:
            while rest:
                rest = rest[self._out.write(rest) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputFailed(f"the events can't be written: {error.strerror}", remedy=AGAIN) from error
        self.done.events += len(lines)
        self._written = self._written[0] + len(text), self.done.events

    def _note(self, next_position: int) -> None:
        self._whole, self.done.next_position = self._written, next_position

    def cut(self) -> None:
        """End the file where `done` says that it ends."""
        bytes_, self.done.events = self._whole
        os.ftruncate(self._out.fileno(), bytes_)


def write_events(
    connect: Callable[[], AbstractContextManager[Connection]],
    into: str,
    within: Window,
    wanted: Wanted,
    done: Written,
    waiting: Waiting | None = None,
) -> None:
    """Write the events as lines, each piece flushed; `done` says all along, and at the end, how far it is.

    A signal ends it between two pieces. With `waiting` it goes on with what comes, also after the database
    was away, but not in another history. Raises UsageError if the file is there already, OutputFailed,
    UnreadableEvent, HistoryChanged, Unavailable.
    """
    with signals.asked() as ending, _opened(into) as out:
        sink = _Sink(out, done)
        try:
            while not _copied(connect, sink, within, wanted, waiting, ending):
                ending.wait(RECONNECT_INTERVAL_S)
        except BrokenPipeError:
            done.unread = True
            drop(sys.stdout)
        finally:
            if into != STDOUT:
                sink.cut()
        done.interrupted = ending.is_set()


def _copied(
    connect: Callable[[], AbstractContextManager[Connection]],
    sink: _Sink,
    within: Window,
    wanted: Wanted,
    waiting: Waiting | None,
    ending: signals.Asked,
) -> bool:
    """Copy over one connection. False if that was lost and is to be made again."""

    def wait(seconds: float) -> bool:
        return not ending.wait(seconds)

    try:
        with connect() as conn:
            whose = events.source(conn)
            known = (sink.done.end,) if sink.began else within.tokens  # it may be another history's by now
            onward = within._replace(first=sink.done.next_position, tokens=known)
            for piece in events.replay(conn, onward, wanted, wait if waiting else None):
                if waiting:
                    waiting.back()
                sink.take(piece, whose)
                if ending.is_set():
                    break
        return True
    except Unavailable as error:
        if waiting is None or not sink.began:
            raise
        waiting.away(error, f"goes on with --from {sink.done.next_position}")
        return ending.is_set()


@contextmanager
def _opened(into: str) -> Iterator[Any]:
    if into == STDOUT:
        sys.stdout.flush()
        yield getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)
        return
    try:
        file = open(into, "xb", buffering=0, opener=private)  # noqa: SIM115 (closed below)
    except FileExistsError:
        raise UsageError(
            f"{into} is there already, and is left as it is", remedy=f"name another file than {quote(into)}"
        ) from None
    except OSError as error:
        raise OutputFailed(
            f"{into} can't be written: {error.strerror}",
            remedy="name a file in a folder that you may write to",
        ) from None
    with file:
        yield file
        try:
            os.fsync(file.fileno())
        except OSError as error:
            raise OutputFailed(f"{into} can't be written: {error.strerror}", remedy=AGAIN) from error
