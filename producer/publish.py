"""Publish a file of commands in two passes: the first judges every line, the second sends.

Nothing is sent before every line is judged and every id is on the disk. So the same command may be run again
after whatever happened, a SIGKILL included: each line goes out under the id that it had before.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from producer.jsonl import BadLine, read
from producer.lines import STDIN, BadInput, Block, Line, copy_verbatim, is_kept, open_input, read_blocks
from producer.progress import Meter, Progress
from producer.publisher import Publisher
from producer.quick import Plain, Ready, quick_lines
from producer.sending import Pace, send
from producer.sidecar import Remembered, Sidecar


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
    pace = Pace(rate, publisher)
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
            commands = _commands(feed, Remembered(ids, feed.name), skip_bad=skip_bad)
            after = send(commands, publisher, pace)
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
    meter, lines = Meter(feed.progress, feed.size, "check"), 0
    for block in read_blocks(feed.file, feed.size):
        if meter.is_due:
            meter.tell(lines, block.start)
        plain = quick_lines(block.text, feed.source)
        if plain and plain.have_ids:
            lines += len(plain.ids)
            continue
        for line, item in read(feed.name, block, plain, feed.source):
            lines += 1
            if isinstance(item, BadLine):
                rejects.add(line, item)
            elif item.id is None:
                sidecar.remember(line, item.source)
    meter.end(lines)
    return lines


def _commands(feed: _Input, remembered: Remembered, *, skip_bad: bool) -> Iterator[tuple[Ready, str]]:
    """The second pass: what is to be sent, in order, each with its id."""
    meter, lines = Meter(feed.progress, feed.size, "publish"), 0
    for block in read_blocks(feed.file, feed.size):
        plain = quick_lines(block.text, feed.source)
        if plain and plain.have_ids:
            commands: Iterable[tuple[Ready, str] | None] = plain.commands(feed.source)
        else:
            commands = _one_by_one(feed, block, plain, remembered, skip_bad=skip_bad)
        count = 0
        for count, command in enumerate(commands, 1):
            if command:
                yield command
            if meter.is_due:
                meter.tell(lines + count, block.end_of(count))
        lines += count
    meter.end(lines)


def _one_by_one(
    feed: _Input, block: Block, plain: Plain | None, remembered: Remembered, *, skip_bad: bool
) -> Iterator[tuple[Ready, str] | None]:
    """Those of a block, a line at a time; None for a bad line."""
    for line, item in read(feed.name, block, plain, feed.source):
        if isinstance(item, BadLine):
            if not skip_bad:
                raise _changed(feed.name, line)
            yield None
        elif id := item.id or remembered.find(line, item.source):
            yield item, id
        else:
            raise _changed(feed.name, line)


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
