"""The ids given to lines without one, kept beside the input so that no run ever gives a line a second id.

`orders.jsonl.ids` holds one JSON line for each such line, in line order: its number, its id, the SHA-256 of
its bytes and its source. It is on the disk, file and folder, before the first command is sent; it is replaced
as a whole by rename, so a crash leaves the old one or the new one. Both sides are read in step: flat memory.
"""

import fcntl
import hashlib
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import uuid_utils
from msgspec import Struct
from msgspec.json import Decoder, Encoder

from ledger.domain.commands import is_key_part
from ledger.private import private, sync_folder
from producer.lines import BadInput, Line


class SidecarMismatch(BadInput):
    """The input was edited: a line that has an id isn't what it was. Publishing it could buy twice."""

    code = "SL-IN-002"


class RememberedLine(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What is remembered of a line."""

    line: int
    id: str
    sha256: str
    source: str


_encode = Encoder().encode
_decode = Decoder(RememberedLine).decode


class Remembered:
    """The ids of a sidecar, asked for in line order. No file remembers nothing. `file`: the open sidecar."""

    def __init__(self, path: Path | None, input_name: str, file: BinaryIO | None = None) -> None:
        self._path, self._input_name = path, input_name
        self._entries = iter(()) if path is None else _entries(file, path) if file else _read(path)
        self._next = next(self._entries, None)

    def find(self, line: Line, source: str) -> str | None:
        """The id that the line has, or None. Raises SidecarMismatch if it, or one before it, was edited."""
        entry = self._next
        if entry is None or entry.line > line.number:
            return None
        if entry != _entry(line, entry.id, source):
            raise self._mismatch(entry)
        self._next = next(self._entries, None)
        return entry.id

    def finish(self) -> None:
        """Raises SidecarMismatch if a remembered line didn't come."""
        if self._next is not None:
            raise self._mismatch(self._next)

    def _mismatch(self, entry: RememberedLine) -> SidecarMismatch:
        name, ids = self._input_name, self._path
        # To remove the ids is no way out: whoever is asked to doesn't know what an earlier run has sent.
        return SidecarMismatch(
            f"{name}:{entry.line} isn't the line of the source {entry.source} that was given an id in {ids}, "
            f"when {name} was first published",
            remedy=f"restore line {entry.line} as it was, put new lines at the end of {name} or into a file "
            "of their own, then run the same again",
        )


class Sidecar:
    """One run's ids: `remember` each line without an id, in order; `finish`; `save` before the first send.

    Two runs at once on the same input would give a line two ids: so the file that becomes the new sidecar is
    locked from before the old one is read until it has taken its place. A later run finds the ids there.
    Without a path there is no place to keep ids, and lines without one are refused. `remembered` gives them
    back out of the file that was written, whatever has become of its name.
    """

    def __init__(self, path: Path | None, input_name: str) -> None:
        self._path, self._input_name = path, input_name
        self._new: BinaryIO | None = None
        self._place: Path | None = None
        """Where `_new` is, until it has taken the place of the old one or isn't wanted."""
        self._old: Remembered | None = None
        self.made = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unlink()  # not saved
        if self._new is not None:
            with suppress(OSError):  # a full disk, met before: nobody wants what can't be written
                self._new.close()

    def remember(self, line: Line, source: str) -> None:
        """Give the line an id unless it has one. Raises SidecarMismatch, or BadInput if it can't be kept."""
        if self._path is None:
            raise BadInput(
                f"{self._input_name}:{line.number} has no id, and there is no place to keep one: the next "
                f"run may not find this very file as {self._input_name}; nothing was published",
                remedy="give each line an id, or name a place that stays with --ids",
            )
        try:  # not `_writing`: a context manager a line costs a fifth of all this
            if self._new is None or self._old is None:
                place = self._path.with_name(self._path.name + ".new")
                self._new, self._place = _locked(place, self._input_name), place
                self._old = Remembered(self._path, self._input_name)
            id = self._old.find(line, source)
            if id is None:
                id = str(uuid_utils.uuid7())
                self.made += 1
            self._new.write(_encode(_entry(line, id, source)) + b"\n")
        except OSError as error:
            raise _unwritable(self._path, error) from None

    def finish(self) -> None:
        """Raises SidecarMismatch if a remembered line didn't come."""
        (self._old or Remembered(self._path, self._input_name)).finish()

    def save(self) -> None:
        """Make the ids durable: after this, not before, commands may be sent. Raises BadInput if it can't."""
        if self._path is None or not (self.made or self._path.exists()):
            return
        with _writing(self._path):
            if self._new is not None:
                self._new.flush()
            if self.made and self._new is not None and self._place is not None:
                os.fsync(self._new.fileno())
                os.replace(self._place, self._path)
                self._place = None
            self._unlink()
            # Also when nothing is new: an earlier run may have died between its rename and this.
            sync_folder(self._path.parent)

    def remembered(self) -> Remembered:
        """The ids of this run, to be asked for once more from the first line on."""
        if self._new is None:
            return Remembered(None, self._input_name)
        self._new.seek(0)
        return Remembered(self._path, self._input_name, self._new)

    def _unlink(self) -> None:
        if self._place is not None:
            self._place.unlink(missing_ok=True)
            self._place = None


def _locked(path: Path, input_name: str) -> BinaryIO:
    file = open(path, "a+b", opener=_own)  # noqa: SIM115 (`Sidecar` closes it)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held the lock before may have renamed or removed the file that we opened.
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise FileNotFoundError
    except (BlockingIOError, FileNotFoundError):
        file.close()
        raise BadInput(
            f"{input_name} is being published by another process", remedy="wait for it, then run again"
        ) from None
    file.truncate(0)  # a run that was killed may have left lines in it
    return file


def _own(path: str, flags: int) -> int:
    """What a killed run left is a file of this user with one name; a stranger put there anything else."""
    fd = private(path, flags)
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == os.geteuid():
        return fd
    os.close(fd)
    in_the_way = f"{path} is in the way: it isn't what a run of this user leaves; nothing was published"
    raise BadInput(in_the_way, remedy=f"rm {shlex.quote(path)}")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> BadInput:
    remedy = "make room for it, name another place with --ids, or give each line an id"
    return BadInput(f"can't keep the ids in {path}: {error.strerror}", remedy=remedy)


def _entry(line: Line, id: str, source: str) -> RememberedLine:
    return RememberedLine(
        line=line.number, id=id, sha256=hashlib.sha256(line.text).hexdigest(), source=source
    )


def _read(path: Path) -> Iterator[RememberedLine]:
    try:
        file = open(path, "rb", opener=private)  # noqa: SIM115 (closed below)
    except FileNotFoundError:
        return
    with file:
        yield from _entries(file, path)


def _entries(file: BinaryIO, path: Path) -> Iterator[RememberedLine]:
    for number, raw in enumerate(file, 1):
        try:
            entry = _decode(raw)
            if not (is_key_part(entry.id) and is_key_part(entry.source)):
                raise ValueError
            yield entry
        except ValueError:
            remedy = "restore it from a copy; without it, publishing again could buy twice"
            raise BadInput(f"{path}:{number} is no remembered id", remedy=remedy) from None
