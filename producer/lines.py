"""The lines of a file or of standard input, as bytes: numbered, placed, none too long to hold in memory."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from ledger.errors import Stop

LINE_MAX = 1024 * 1024
"""The longest line, in bytes without its end. A valid command needs less than 4 KiB."""
KEPT_MAX = LINE_MAX + 2
"""What is kept of a longer line: enough for the longest with a CR, and to see that it is longer."""
BLOCK = 64 * 1024
"""How much of the input is read at once, in bytes."""
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
    """The lines that aren't blank among the first `end` bytes.

    What is appended meanwhile waits for the next run. Raises BadInput if the file is cut short meanwhile.
    """
    file.seek(0)
    number = start = read = dropped = 0
    rest = b""  # the line whose end isn't read yet, without the `dropped` bytes that are past the limit
    while read < end:
        block = _some(file.read(min(BLOCK, end - read)))
        read += len(block)
        *whole, rest = (rest + block).split(b"\n")
        for raw in whole:
            number += 1
            after = start + len(raw) + dropped + 1
            if text := _content(raw):
                yield Line(number, text, start, after)
            start, dropped = after, 0
        if len(rest) > KEPT_MAX:
            dropped += len(rest) - KEPT_MAX
            rest = rest[:KEPT_MAX]
    if text := _content(rest):
        yield Line(number + 1, text, start, end)


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
