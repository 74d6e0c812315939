"""The lines of a file or of standard input, as bytes: numbered, placed, none too long to hold in memory."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
        """Those that aren't blank."""
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
        if is_kept(path):
            yield file
            return
        with tempfile.TemporaryFile() as spool:
            shutil.copyfileobj(file, spool)
            spool.flush()  # its size and its bytes are asked of the file itself
            yield spool


def is_kept(path: Path) -> bool:
    """Whether the next run finds the same content there: a regular file, no pipe."""
    return path != STDIN and path.is_file()


def _open(path: Path) -> AbstractContextManager[BinaryIO]:
    try:
        return nullcontext(sys.stdin.buffer) if path == STDIN else path.open("rb")
    except OSError as error:
        raise BadInput(f"can't read {path}: {error.strerror}") from None


def read_lines(file: BinaryIO, end: int) -> Iterator[Line]:
    """The lines that aren't blank among the first `end` bytes. Raises what `read_blocks` raises."""
    for block in read_blocks(file, end):
        yield from block.lines()


def read_blocks(file: BinaryIO, end: int) -> Iterator[Block]:
    """The first `end` bytes.

    What is appended meanwhile waits for the next run. Raises BadInput if the file is cut short meanwhile.
    """
    file.seek(0)
    number, start, read = 1, 0, 0
    rest, cut = b"", 0  # the line whose end isn't read yet, without the `cut` bytes that are past the limit
    while read < end:
        piece = _some(file.read(min(BLOCK, end - read)))
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
    while position < line.end:  # pread: the reader's own place in the file stays
        chunk = _some(os.pread(file.fileno(), min(LINE_MAX, line.end - position), position))
        out.write(chunk)
        position += len(chunk)


def _some(read: bytes) -> bytes:
    if not read:
        cut = "the input was cut short while it was being read"
        raise BadInput(cut, remedy="run again when it is complete")
    return read
