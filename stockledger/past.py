"""The past, shown: stock as of then, and the events of a range written as lines."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from ledger.api import Ledger
from ledger.replay import Range, cloud_event, source
from ledger.replay import replay as pieces
from ledger.store.database import Connection
from ledger.store.history import Moment, StoredEvent, Wanted
from stockledger.call import Answer, Call
from stockledger.exits import NotFound, UsageError
from stockledger.moment import moment_of
from stockledger.output import count, plain

STDOUT = "-"


def stock_as_of(call: Call, book: Ledger, goods_id: str | None, as_of: str | None) -> Answer:
    """The stock of the goods, or of all goods, as of a position or time (None: now)."""
    try:
        then = book.moment(None if as_of is None else moment_of(as_of))
    except ValueError as error:
        raise NotFound(str(error), remedy="stockledger status") from error
    words = f"as of position {then.position}" + (f", {_utc(then)}" if then.recorded_at else "")
    data = {"as_of": then._asdict()}
    if goods_id is None:
        levels = book.stock_levels(as_of=then.position)
        call.out.table(("GOODS", "ON HAND", "VERSION"), [(g, count(n), v) for g, n, v in levels])
        call.out.note(f"{count(len(levels))} goods {words}")
        return Answer(data | {"goods": [level._asdict() for level in levels]})
    level = book.stock(goods_id, as_of=then.position)
    if level is None:
        raise NotFound(f"the goods {goods_id} were not listed {words}", remedy=f"stockledger why {goods_id}")
    call.out.say(level.goods_id, f"{count(level.on_hand)} on hand", f"version {level.version}", words)
    return Answer(level._asdict() | data)


def _utc(then: Moment) -> str:
    return f"recorded {plain(then.recorded_at)}"


@dataclass
class Written:
    """How much was written, and the position from which to go on."""

    events: int = 0
    next_position: int = 1
    interrupted: bool = False


def write_events(conn: Connection, into: str, within: Range, wanted: Wanted, *, follow: bool) -> Written:
    """Write the events as lines, whole lines only, each piece flushed; Ctrl-C ends between two pieces.

    Raises UsageError if the file is there already, BrokenPipeError if whoever reads has gone.
    """
    done = Written(next_position=within.first)
    with interruptible() as (interrupted, wait), _opened(into) as out:
        whose = source(conn)
        for piece in pieces(conn, within, wanted, wait if follow else None):
            if piece.events:
                _write(out, piece.events, whose)
            done.events += len(piece.events)
            done.next_position = piece.next_position
            if interrupted():
                break
        done.interrupted = interrupted()
    return done


def _write(out: BinaryIO, events: Iterable[StoredEvent], source: str) -> None:
    lines: list[str] = []
    try:
        lines.extend(cloud_event(stored, source) for stored in events)
    finally:  # where one can't be read, those before it are written
        out.write("".join(lines).encode())
        out.flush()


@contextmanager
def interruptible() -> Iterator[tuple[Callable[[], bool], Callable[[float], bool]]]:
    """Whether Ctrl-C was pressed, and a wait that it ends. A second Ctrl-C interrupts as ever."""
    pressed = threading.Event()

    def press(number: int, frame: FrameType | None) -> None:
        pressed.set()
        signal.signal(number, before)

    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, press)
    except ValueError:  # not in the main thread: then nobody can press it
        yield pressed.is_set, lambda seconds: not pressed.wait(seconds)
        return
    try:
        yield pressed.is_set, lambda seconds: not pressed.wait(seconds)
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _opened(into: str) -> Iterator[BinaryIO]:
    if into == STDOUT:
        sys.stdout.flush()
        yield sys.stdout.buffer
        return
    try:
        with Path(into).open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise UsageError(
            f"{into} is there already, and is left as it is",
            remedy="name another file, with --from to go on where that one ends",
        ) from None
