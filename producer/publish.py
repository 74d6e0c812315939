"""Publish a file of commands in two passes: the first judges every line, the second sends.

Nothing is sent before every line is judged and every id is on the disk. So the same command may be run again
after whatever happened, a SIGKILL included: each line goes out under the id that it had before.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import BinaryIO, NamedTuple, Self

from ledger.errors import BadSettings
from producer.jsonl import BadLine, read
from producer.lines import STDIN, BadInput, Line, copy_verbatim, is_kept, open_input, read_lines
from producer.publisher import Publisher, Tally
from producer.quick import Ready
from producer.sidecar import Remembered, Sidecar

PROGRESS_INTERVAL_S = 0.1
INTERRUPTED_FLUSH_S = 5.0
"""How long an interrupted run waits for the acknowledgements of what it has sent."""
PACE_POLL_S = 0.1
BURST_S = 0.1
"""How far a paced run may fall behind before it gives the lost time up."""


class Progress(NamedTuple):
    """How far a pass is: `check` or `publish`, in lines and in bytes of the input."""

    phase: str
    lines: int
    bytes_done: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class Published:
    """What became of an input.

    `lines` counts the lines that aren't blank, `published` those that are acknowledged. `unacknowledged` were
    sent and may be in the topic or not: only after an interrupt, otherwise that is an exception. `ids_made`
    are new in `ids`. The bad lines stand verbatim in `rejected`. `partitions` is 0 where no broker was asked.
    """

    lines: int
    bad: int
    ids_made: int
    published: int
    unacknowledged: int
    interrupted: bool
    topic: str
    partitions: int
    seconds: float
    ids: Path | None
    rejected: Path | None


def publish_lines(
    publisher: Publisher,
    path: Path,
    *,
    ids: Path | None = None,
    rejected: Path | None = None,
    skip_bad: bool = False,
    dry_run: bool = False,
    rate: float | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    on_bad: Callable[[BadLine], None] = lambda _: None,
) -> Published:
    """Publish the commands of a file of JSON lines, or of standard input (`-`).

    `ids` keeps the ids of lines without one (default: FILE.ids; none for standard input). With `skip_bad`,
    bad lines go to `rejected` (default: orders.rejected.jsonl for orders.jsonl) and the good ones are
    published. `dry_run` only judges. `rate` is in commands a second. SIGINT and SIGTERM stop the sending.

    Raises BadInput where a line is bad (each one was given to `on_bad` before), SidecarMismatch where a line
    with a remembered id was edited: nothing was published then. Otherwise what `Publisher.check` raises.
    """
    started = time.monotonic()
    pace = _Pace(rate, publisher)
    with open_input(path) as file:
        ids = ids or _ids_beside(path)
        rejected = _place_of_rejects(path, rejected) if skip_bad else None
        _refuse_overwriting(path, ids, rejected)
        feed = _Input(_name(path), file, os.fstat(file.fileno()).st_size, publisher.source, progress)
        with (
            _Rejects(file, None if dry_run else rejected, on_bad) as rejects,
            Sidecar(ids, feed.name) as sidecar,
        ):
            lines = _judge(feed, sidecar, rejects)
            if rejects.count and not skip_bad:
                raise _refused(feed.name, rejects.count, lines)
            sidecar.finish()
            if not dry_run:
                sidecar.save()
        good = lines - rejects.count
        before = after = publisher.tally
        if good and not dry_run:
            after = _send(feed, publisher, Remembered(ids, feed.name), pace, skip_bad=skip_bad)
    published = after.acknowledged - before.acknowledged
    return Published(
        lines=lines,
        bad=rejects.count,
        ids_made=sidecar.made,
        published=published,
        unacknowledged=sum(after) - sum(before) - published,
        interrupted=not dry_run and published < good,
        topic=publisher.topic,
        partitions=publisher.partitions,
        seconds=time.monotonic() - started,
        ids=ids if sidecar.made else None,
        rejected=rejected if rejects.count and not dry_run else None,
    )


class _Input(NamedTuple):
    name: str
    file: BinaryIO
    size: int
    source: str
    progress: Callable[[Progress], None]

    def items(self, phase: str) -> Iterator[tuple[Line, Ready | BadLine]]:
        """Each line with what it says, in a pass over the whole input."""
        count, due = 0, 0.0
        for count, line in enumerate(read_lines(self.file, self.size), 1):
            yield line, read(self.name, line, self.source)
            if (now := time.monotonic()) >= due:
                due = now + PROGRESS_INTERVAL_S
                self.progress(Progress(phase, count, line.end, self.size))
        self.progress(Progress(phase, count, self.size, self.size))


class _Rejects:
    """The bad lines: counted, reported, and copied to their place if there is one."""

    def __init__(self, file: BinaryIO, place: Path | None, on_bad: Callable[[BadLine], None]) -> None:
        self._file, self._place, self._on_bad = file, place, on_bad
        self._copy: BinaryIO | None = None
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._copy is not None:
            self._copy.close()

    def add(self, line: Line, bad: BadLine) -> None:
        self.count += 1
        self._on_bad(bad)
        if self._place is None:
            return
        try:
            self._copy = self._copy or self._place.open("wb")
            copy_verbatim(self._file, line, self._copy)
            self._copy.flush()  # so that a full disk is noticed here
        except OSError as error:
            raise BadInput(f"can't set bad lines aside in {self._place}: {error.strerror}") from None


def _judge(feed: _Input, sidecar: Sidecar, rejects: _Rejects) -> int:
    """The first pass; returns the number of lines."""
    lines = 0
    for line, item in feed.items("check"):
        lines += 1
        if isinstance(item, BadLine):
            rejects.add(line, item)
        elif item.id is None:
            sidecar.remember(line, item.source)
    return lines


def _send(feed: _Input, publisher: Publisher, ids: Remembered, pace: "_Pace", *, skip_bad: bool) -> Tally:
    """The second pass; all is acknowledged unless it was interrupted."""
    publisher.connect()
    with _flag_on_signal() as stop:
        for line, item in feed.items("publish"):
            if isinstance(item, BadLine):
                if skip_bad:
                    continue
                raise _changed(feed.name, line)
            id = item.id or ids.find(line, item.source)
            if id is None:
                raise _changed(feed.name, line)
            pace.wait(stop)
            if stop.is_set():
                break
            publisher.post(item, id)
        tally = publisher.flush(INTERRUPTED_FLUSH_S if stop.is_set() else None)
    if not stop.is_set():
        publisher.check()
    return tally


class _Pace:
    """Keeps to a rate without bursts: time lost to a slow broker isn't caught up."""

    def __init__(self, rate: float | None, publisher: Publisher) -> None:
        if rate is not None and rate <= 0:
            raise BadSettings("the rate must be more than 0 commands a second")
        self._interval_s = 1 / rate if rate else 0.0
        self._publisher = publisher
        self._due = 0.0

    def wait(self, stop: threading.Event) -> None:
        if not self._interval_s:
            return
        while (left_s := self._due - time.monotonic()) > 0 and not stop.is_set():
            self._publisher.poll(min(left_s, PACE_POLL_S))
        now = time.monotonic()
        self._due = (self._due if self._due > now - BURST_S else now) + self._interval_s


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


def _name(path: Path) -> str:
    return "stdin" if path == STDIN else str(path)


def _ids_beside(path: Path) -> Path | None:
    if not is_kept(path):
        return None
    real = path.resolve() if path.is_symlink() else path  # one file, one sidecar, by whichever name
    return real.with_name(real.name + ".ids")


def _place_of_rejects(path: Path, given: Path | None) -> Path:
    if given is None and not is_kept(path):
        raise BadInput("the bad lines of standard input need a place", remedy="name it with --rejected FILE")
    return given or path.with_name(path.name.removesuffix(".jsonl") + ".rejected.jsonl")


def _refuse_overwriting(path: Path, *places: Path | None) -> None:
    for place in places:
        if place is not None and place.exists() and is_kept(path) and place.samefile(path):
            raise BadInput(f"{place} is the input itself", remedy="name another file")


def _changed(name: str, line: Line) -> BadInput:
    return BadInput(
        f"{name}:{line.number} was changed while the file was being published; the lines before it were sent",
        remedy="run again when it is complete",
    )


def _refused(name: str, bad: int, lines: int) -> BadInput:
    return BadInput(
        f"{bad:,} of {lines:,} lines of {name} can't be published; nothing was published",
        remedy="correct them, or publish the others and set these aside with --skip-bad",
    )
