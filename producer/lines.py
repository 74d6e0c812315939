"""The lines of a file or of standard input, as bytes: numbered, placed, none too long to hold in memory."""

import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from ledger.errors import Stop

LINE_MAX = 1024 * 1024
"""The longest line, in bytes without its end. A valid command needs less than 4 KiB."""
KEPT_MAX = LINE_MAX + 2
"""What is kept of a longer line: enough for the longest with a CR, and to see that it is longer."""
BLOCK = 16 * 1024
"""How much of the input is read and judged at once, in bytes."""
STDIN = Path("-")
MOUNTS = Path("/proc/self/mountinfo")


class BadInput(Stop):
    """The input can't be published as it is; nothing of it was published, unless the message says so."""

    code = "SL-IN-001"


class Line(Struct, frozen=True, gc=False):
    """A line that isn't blank: its number from 1, its bytes without its end, and its place in the file.

    Of a line longer than `LINE_MAX`, `text` holds the first `LINE_MAX` + 1 bytes.
    """

    number: int
    text: bytes
    start: int
    end: int


class Block(Struct, frozen=True, gc=False):
    """Whole lines in a row: the number of the first, where it starts, and their bytes with their ends.

    Only the last line of the input may lack its end. `cut` counts what the first line has beyond the limit
    and `text` therefore lacks.
    """

    number: int
    start: int
    text: bytes
    cut: int

    @property
    def end(self) -> int:
        """Where the next one starts."""
        return self.start + len(self.text) + self.cut

    def end_of(self, count: int) -> int:
        """Where the line ends that is the `count`-th of those that aren't blank."""
        return next(islice(self.lines(), count - 1, None)).end

    def lines(self) -> Iterator[Line]:
        """The lines that aren't blank."""
        start, end, cut = self.start, self.end, self.cut
        for number, raw in enumerate(self.text.split(b"\n"), self.number):
            after = start + len(raw) + cut + 1
            if text := _content(raw):
                yield Line(number, text, start, after if after < end else end)
            start, cut = after, 0


@contextmanager
def open_input(path: Path) -> Iterator[BinaryIO]:
    """A file that can be read twice. Standard input (`-`) and pipes are spooled to a temporary file first.

    Raises BadInput where the path can't be read.
    """
    with _open(path) as file:
        if path != STDIN and stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            yield file
            return
        with ExitStack() as closing:
            try:
                spool = closing.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(file, spool)
                spool.flush()  # its size and its bytes are asked of the file itself
            except OSError as error:
                failed = f"can't copy {name_of(path)} to a temporary file: {error.strerror}"
                raise BadInput(
                    f"{failed}; nothing was published",
                    remedy="put the lines into a file and publish that",
                ) from None
            yield spool


def name_of(path: Path) -> str:
    """The input, as messages call it."""
    return "stdin" if path == STDIN else str(path)


def kept_name(path: Path, file: BinaryIO) -> Path | None:
    """The one name under which the next run finds this very file, however it was named; None: there is none.

    A name that only seems to lead here gives the ids of one run a place where the next one doesn't look, and
    then a line is bought twice: a pipe, a here-document's deleted file (/dev/stdin), a name that was given to
    another file meanwhile, one hard link of several, a file that a mount shows under this name for a while.
    """
    try:
        name = path.resolve(strict=True)
        opened, named = os.fstat(file.fileno()), name.lstat()
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        return None
    is_this = path != STDIN and stat.S_ISREG(named.st_mode) and os.path.samestat(opened, named)
    return name if is_this and named.st_nlink == 1 and not _is_mount(name) else None


def _is_mount(name: Path) -> bool:
    try:
        mounted = [line.split(b" ")[4] for line in MOUNTS.read_bytes().splitlines()]
    except OSError:  # no Linux
        return name.is_mount()
    escaped = re.sub(rb"[\\ \t\n]", lambda found: b"\\%03o" % ord(found[0]), os.fsencode(name))
    return escaped in mounted


def _open(path: Path) -> AbstractContextManager[BinaryIO]:
    try:
        if path != STDIN:
            return path.open("rb")
        if sys.stdin is not None:
            return nullcontext(sys.stdin.buffer)
        why = "it is closed"
    except OSError as error:
        why = str(error.strerror)
    raise BadInput(
        f"can't read {name_of(path)}: {why}; nothing was published",
        remedy="name a file that this user can read",
    )


def read_blocks(file: BinaryIO, end: int) -> Iterator[Block]:
    """The first `end` bytes.

    What is appended meanwhile waits for the next run. Raises BadInput if the file is cut short meanwhile, or
    can't be read on.
    """
    file.seek(0)
    number, start, read = 1, 0, 0
    rest, cut = b"", 0  # the line whose end isn't read yet, without the `cut` bytes that are past the limit
    while read < end:
        piece = _some(file, min(BLOCK, end - read))
        read += len(piece)
        text = rest + piece
        whole = text.rfind(b"\n") + 1
        if whole:
            yield (block := Block(number, start, text[:whole], cut))
            number, start, cut = number + text.count(b"\n"), block.end, 0
        rest = text[whole:]
        if len(rest) > KEPT_MAX:
            cut += len(rest) - KEPT_MAX
            rest = rest[:KEPT_MAX]
    if rest:
        yield Block(number, start, rest, cut)


def _content(raw: bytes) -> bytes:
    """The line's bytes as `Line.text` has them; empty if it is blank."""
    text = raw.removesuffix(b"\r")[: LINE_MAX + 1]
    return text if len(text) > LINE_MAX or text.strip() else b""


def copy_verbatim(file: BinaryIO, line: Line, out: BinaryIO) -> None:
    """Append the bytes of the line to `out`, whatever they are and however many."""
    position = line.start
    while position < line.end:
        chunk = _some(file, min(LINE_MAX, line.end - position), position)
        out.write(chunk)
        position += len(chunk)


def _some(file: BinaryIO, size: int, position: int | None = None) -> bytes:
    try:  # pread: the reader's own place in the file stays
        found = file.read(size) if position is None else os.pread(file.fileno(), size, position)
    except OSError as error:
        unreadable = f"the input can't be read on: {error.strerror}"
        raise BadInput(
            unreadable, remedy="copy it to a disk that can be read, and publish it from there"
        ) from None
    if not found:
        cut = "the input was cut short while it was being read"
        raise BadInput(cut, remedy="put the file back as it was, then run the same again")
    return found
