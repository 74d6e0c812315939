"""The lines of a file or of standard input, as bytes: numbered, placed, none too long to hold in memory."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ledger.errors import Stop

LINE_MAX = 1024 * 1024
"""The longest line, in bytes without its end. A valid command needs less than 4 KiB."""
STDIN = Path("-")


class BadInput(Stop):
    """The input can't be published as it is; nothing of it was published, unless the message says so."""

    code = "SL-IN-001"


class Line(NamedTuple):
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
    number = position = 0
    while position < end:
        start, number = position, number + 1
        # Two bytes more than the limit, so that the longest line still comes with its CRLF.
        raw = tail = _some(file.readline(min(LINE_MAX + 2, end - position)))
        position += len(raw)
        while not tail.endswith(b"\n") and position < end:
            tail = _some(file.readline(min(LINE_MAX, end - position)))
            position += len(tail)
        text = raw.removesuffix(b"\n").removesuffix(b"\r")[: LINE_MAX + 1]
        if text.strip() or len(text) > LINE_MAX:
            yield Line(number, text, start, position)


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
