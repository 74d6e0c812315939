"""Publish a file of commands in two passes: the first judges every line, the second sends.

Nothing is sent before every line is judged and every id is on the disk. So the same command may be run again
after whatever happened, a SIGKILL included: each line goes out under the id that it had before.

What was judged is what is sent: a block of lines that isn't in the second pass what it was in the first ends
the run before any of it goes out. Whatever ends a run after its first send, the error says what was sent.
"""

import os
import sys
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from ledger.figures import count, counted
from ledger.private import private
from producer.dispatch import RERUN, Throttle, send
from producer.formats import require_json_lines
from producer.jsonl import BadLine, read
from producer.lines import (
    STDIN,
    BadInput,
    Block,
    Line,
    copy_verbatim,
    kept_name,
    name_of,
    open_input,
    read_blocks,
)
from producer.plain import Plain, Ready, quick_lines
from producer.plan import Plans, plans
from producer.progress import InputProgress, Meter
from producer.publisher import Publisher
from producer.sidecar import Remembered, Sidecar
from producer.tally import Tally


@dataclass(frozen=True, slots=True)
class Published:
    """What became of an input.

    `lines` counts the lines that aren't blank, `tally` what became of the commands that were sent: all are
    acknowledged unless it was interrupted, otherwise that is an exception. `ids_made` are new in `ids`. The
    bad lines stand verbatim in `bad_file`. `partitions` is 0 where no broker was asked. `plans` say of a
    dry run where the commands would go.
    """

    lines: int
    bad: int
    ids_made: int
    tally: Tally
    interrupted: bool
    topic: str
    partitions: int
    seconds: float
    ids: Path | None
    bad_file: Path | None
    plans: Plans | None = None

    @property
    def published(self) -> int:
        """How many are acknowledged."""
        return self.tally.acknowledged

    @property
    def unacknowledged(self) -> int:
        """How many were sent and may be in the topic or not."""
        return self.tally.failed + self.tally.unknown


def publish_lines(
    publisher: Publisher,
    path: str | os.PathLike[str],
    *,
    ids: str | os.PathLike[str] | None = None,
    bad_file: str | os.PathLike[str] | None = None,
    skip_bad: bool = False,
    dry_run: bool = False,
    rate: float | None = None,
    progress: Callable[[InputProgress], None] = lambda _: None,
    on_bad: Callable[[BadLine], None] = lambda _: None,
) -> Published:
    """Publish the commands of a file of JSON lines, or of standard input (`-`).

    `ids` keeps the ids of lines without one (default: FILE.ids; none where the next run may not find this
    very file by its name). With `skip_bad`, bad lines go to `bad_file` (default: orders.bad.jsonl for
    orders.jsonl) and the good ones are published. `dry_run` only judges, and says
    where each command would go as far as the publisher is connected. `rate` is in commands a second.
    SIGINT and SIGTERM stop the sending.

    Raises BadInput where a line is bad (each one was given to `on_bad` before) or the file is none of JSON
    lines, SidecarMismatch where a line with a remembered id was edited: nothing was published then. Later
    BadInput where the file was changed meanwhile, and what `Publisher.check` raises, with what was sent in
    the message; for an exception of a callback that is in its notes.
    """
    started = time.monotonic()
    path, throttle = Path(path), Throttle(rate, publisher)
    with open_input(path) as file:
        require_json_lines(path, file)
        kept = kept_name(path, file)
        ids = Path(ids) if ids else kept and kept.with_name(kept.name + ".ids")
        aside = _place_of_bad(path, kept, bad_file) if skip_bad else None
        _refuse_overwriting(path, file, ids, aside)
        size = os.fstat(file.fileno()).st_size
        feed = _Input(name_of(path), file, size, publisher.source, progress, array("q"))
        with (
            _BadLines(file, None if dry_run else aside, on_bad) as bad,
            Sidecar(ids, feed.name) as sidecar,
        ):
            lines = _judge(feed, sidecar, bad)
            if bad.count and not skip_bad:
                raise _refused(feed.name, bad.count, lines)
            sidecar.finish()
            good = lines - bad.count
            before = after = publisher.tally
            found = _planned(feed, publisher) if dry_run else None
            if not dry_run:
                sidecar.save()
            if good and not dry_run:
                after = send(_commands(feed, sidecar.remembered()), publisher, throttle)
    tally = Tally(*(now - then for now, then in zip(after, before, strict=True)))
    return Published(
        lines=lines,
        bad=bad.count,
        ids_made=sidecar.made,
        tally=tally,
        interrupted=not dry_run and tally.acknowledged < good,
        topic=publisher.topic,
        partitions=publisher.partitions,
        seconds=time.monotonic() - started,
        ids=ids if sidecar.made else None,
        bad_file=aside if bad.count and not dry_run else None,
        plans=found,
    )


class _Input(NamedTuple):
    name: str
    file: BinaryIO
    size: int
    source: str
    progress: Callable[[InputProgress], None]
    judged: "array[int]"
    """A digest of each block, 8 bytes for 16 KiB: its hash, whose key nobody outside this process has."""

    def judge(self) -> Iterator[Block]:
        """The blocks, for the first time."""
        for block in read_blocks(self.file, self.size):
            self.judged.append(hash(block.text))
            yield block

    def again(self) -> Iterator[Block]:
        """The blocks, each as it was judged. Raises BadInput where one isn't."""
        judged = iter(self.judged)
        for block in read_blocks(self.file, self.size):
            if hash(block.text) != next(judged, None):
                raise _changed(self.name, block.number)
            yield block


class _BadLines:
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
            self._copy = self._copy or open(self._place, "wb", opener=private)  # noqa: SIM115
            copy_verbatim(self._file, line, self._copy)
            self._copy.flush()  # so that a full disk is noticed here
        except OSError as error:
            raise BadInput(
                f"can't set bad lines aside in {self._place}: {error.strerror}; nothing was published",
                remedy="name another file with --bad",
            ) from None


def _judge(feed: _Input, sidecar: Sidecar, bad: _BadLines) -> int:
    """The first pass; returns the number of lines."""
    meter, lines = Meter(feed.progress, feed.size, "check"), 0
    for block in feed.judge():
        if meter.is_due:
            meter.tell(lines, block.start)
        plain = quick_lines(block.text, feed.source)
        if plain and plain.have_ids:
            lines += len(plain.ids)
            continue
        for line, item in read(feed.name, block, plain, feed.source):
            lines += 1
            if isinstance(item, BadLine):
                bad.add(line, item)
            elif item.id is None:
                sidecar.remember(line, item.source)
    meter.end(lines)
    return lines


def _planned(feed: _Input, publisher: Publisher) -> Plans:
    """The second pass of a dry run: where each command would go, by each way of routing."""
    found = plans(publisher.routing, publisher.partitions)
    meter, lines = Meter(feed.progress, feed.size, "plan"), 0
    for block in feed.again():
        if meter.is_due:
            meter.tell(lines, block.start)
        for line, item in read(feed.name, block, quick_lines(block.text, feed.source), feed.source):
            lines += 1
            if not isinstance(item, BadLine):
                for plan in found.values():
                    plan.add(line.number, item)
    meter.end(lines)
    return found


def _commands(feed: _Input, remembered: Remembered) -> Iterator[tuple[Ready, str]]:
    """The second pass: what is to be sent, in order, each with its id."""
    meter, lines = Meter(feed.progress, feed.size, "publish"), 0
    for block in feed.again():
        plain = quick_lines(block.text, feed.source)
        if plain and plain.have_ids:
            commands: Iterable[tuple[Ready, str] | None] = plain.commands(feed.source)
        else:
            commands = _one_by_one(feed, block, plain, remembered)
        count = 0
        for count, command in enumerate(commands, 1):
            if command:
                yield command
            if meter.is_due:
                meter.tell(lines + count, block.end_of(count))
        lines += count
    meter.end(lines)


def _one_by_one(
    feed: _Input, block: Block, plain: Plain | None, remembered: Remembered
) -> Iterator[tuple[Ready, str] | None]:
    """The commands of a block, a line at a time; None for a bad line."""
    for line, item in read(feed.name, block, plain, feed.source):
        if isinstance(item, BadLine):
            yield None
        elif id := item.id or remembered.find(line, item.source):
            yield item, id
        else:
            raise _changed(f"the ids of {feed.name}", line.number)


def _place_of_bad(path: Path, kept: Path | None, given: str | os.PathLike[str] | None) -> Path:
    if given is None and kept is None:
        raise BadInput(f"the bad lines of {name_of(path)} need a place", remedy="name a new file with --bad")
    return Path(given) if given else path.with_name(path.name.removesuffix(".jsonl") + ".bad.jsonl")


def _refuse_overwriting(path: Path, file: BinaryIO, *places: Path | None) -> None:
    origins = [os.fstat(file.fileno())]
    with suppress(OSError):  # standard input that is no file
        origins += [os.fstat(sys.stdin.fileno())] if path == STDIN else []
    for place in filter(None, places):
        if place.exists() and any(os.path.samestat(place.stat(), origin) for origin in origins):
            raise BadInput(f"{place} is the input itself; nothing was published", remedy="name another file")
        if place.exists() and not place.is_file():
            raise BadInput(f"{place} is no file; nothing was published", remedy="name a file")


def _changed(name: str, line: int) -> BadInput:
    return BadInput(
        f"{name} was changed while it was being published; nothing from line {line} on was sent",
        remedy=f"put {name} back as it was, then {RERUN}",
    )


def _refused(name: str, bad: int, lines: int) -> BadInput:
    return BadInput(
        f"{count(bad)} of {counted(lines, 'line')} of {name} can't be published; nothing was published",
        remedy="correct them, or publish the others and set these aside with --skip-bad",
    )
