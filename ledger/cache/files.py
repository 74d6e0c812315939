"""A folder with the stock in it, for all processes of a host: LMDB, one writer, any number of readers.

What is written together is one transaction: the values, the point that they are as of, and when their
question was sent, by the clock that all processes of a host share. A copy in the making stands beside the one
that is read, in the other of two slots. Nothing is synced to the disk: after the host was down, all is loaded
anew.
"""

import fcntl
import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ledger.cache.bands import BANDS, Band
from ledger.cache.sink import Point
from ledger.cache.view import NEVER
from ledger.errors import BadSettings, LedgerError, Unavailable
from ledger.shell import command
from ledger.store.tables.stock import StockLevel

try:
    import lmdb
except ImportError:  # pragma: no cover (the extra is installed wherever tests are)
    lmdb: Any = None  # type: ignore[no-redef]

FORMAT = 1
MAP_BYTES = 1 << 36
"""Address space and not memory: the file is as large as what is in it."""
READERS_MAX = 4096
KEY_MAX = 511
"""What LMDB takes; an id of goods is shorter."""
SLOTS = (0, 1)
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
MARK = "boot"
OURS = {MARK, "data.mdb", "lock.mdb"}
HEAD = struct.Struct("<?Q32sd?BQQ")
LEVEL = struct.Struct("<QQ")
HEAD_KEY, ABOUT_KEY, OWNER_KEY, NOTE_KEY = b"head", b"about", b"owner", b"note"
FULL = "No space left"
ANEW = "stop its feeder, remove the folder, and start the feeder again"


class FolderHead(NamedTuple):
    """Where the folder stands: as of which point, and since when; how often it was loaded and begun anew."""

    point: Point | None = None
    asked_at: float = NEVER
    standby: bool = False
    slot: int = 0
    loads: int = 0
    resets: int = 0

    def packed(self) -> bytes:
        """As it is stored."""
        position, hash = self.point or (0, b"")
        return HEAD.pack(self.point is not None, position, hash, self.asked_at, *self[2:])

    @classmethod
    def unpacked(cls, stored: bytes | None) -> "FolderHead":
        """What was stored; before that, nothing is there."""
        if stored is None:
            return cls()
        there, position, hash, asked_at, standby, slot, loads, resets = HEAD.unpack(stored)
        return cls(Point(position, hash) if there else None, asked_at, standby, slot, loads, resets)


class About(NamedTuple):
    """What the folder is for: which goods, with which bands, of the ledger whose journal begins so."""

    share: tuple[int, int] | None = None
    low_below: int | None = None
    origin: str | None = None
    """The journal's hash at position 1; None: there was none yet."""


class Files:
    """The folder, open in this process. It is opened once, and never across a fork."""

    error: type[Exception]
    """What LMDB raises."""

    def __init__(self, folder: Path, *, writes: bool) -> None:
        if lmdb is None:
            raise BadSettings(
                "a cache for the processes of a host needs the package lmdb",
                remedy="pip install 'stockledger[cache]'",
            )
        self.folder = folder
        self.error = lmdb.Error
        with told(folder):
            if not writes:
                _require_filled(folder)
                self._open(writes=False)
                return
            folder.mkdir(parents=True, exist_ok=True)
            with _alone(folder):
                _clear(folder)
                self._open(writes=True)
                (folder / MARK).write_text(_mark())

    def _open(self, *, writes: bool) -> None:
        self.env = lmdb.open(
            str(self.folder), map_size=MAP_BYTES, max_dbs=16, max_readers=READERS_MAX, create=writes,
            readonly=not writes, sync=False, metasync=False, readahead=False,
        )  # fmt: skip

        def table(name: str) -> Any:
            return self.env.open_db(name.encode(), create=writes)

        self.meta, self.known = table("meta"), table("known")
        self.stock = [table(f"stock{slot}") for slot in SLOTS]
        self.bands: list[dict[Band, Any]] = [
            {band: table(f"{band}{slot}") for band in BANDS} for slot in SLOTS
        ]
        self.free_dead_readers()

    def free_dead_readers(self) -> None:
        """Who was killed while it read would keep what it read from being used again."""
        self.env.reader_check()

    def close(self) -> None:
        """Let go of it."""
        self.env.close()

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """One snapshot."""
        with told(self.folder), self.env.begin() as txn:
            yield txn

    @contextmanager
    def writing(self) -> Iterator[Any]:
        """All or nothing."""
        with told(self.folder), self.env.begin(write=True) as txn:
            yield txn

    def head(self, txn: Any) -> FolderHead:
        """Where it stands."""
        return FolderHead.unpacked(txn.get(HEAD_KEY, db=self.meta))

    def level(self, txn: Any, slot: int, goods_id: str) -> StockLevel | None:
        """The item's stock in this slot."""
        key = goods_id.encode()
        value = txn.get(key, db=self.stock[slot]) if 0 < len(key) <= KEY_MAX else None
        return unpacked(key, value) if value else None

    def about(self, txn: Any) -> About:
        """What it is for."""
        share, low_below, origin = json.loads(txn.get(ABOUT_KEY, b"[null, null, null]", db=self.meta))
        return About(tuple(share) if share else None, low_below, origin)


def packed(level: StockLevel) -> tuple[bytes, bytes]:
    """An item's key and value."""
    return level.goods_id.encode(), LEVEL.pack(level.on_hand, level.version)


def unpacked(key: bytes, value: bytes) -> StockLevel:
    """The item that was stored so."""
    return StockLevel(key.decode(), *LEVEL.unpack(value))


def position_key(position: int) -> bytes:
    """Positions in their order."""
    return position.to_bytes(8, "big")


def _mark() -> str:
    """What tells a folder that this build has filled since this host was started."""
    return f"{FORMAT} {BOOT_ID.read_text()}"


def _marked(folder: Path) -> bool:
    """Whether the folder has that mark. Raises BadSettings for another build's."""
    mark = folder / MARK
    said = mark.read_text() if mark.exists() else ""
    if said and said.split()[0] != str(FORMAT):
        raise BadSettings(f"{folder} was filled by another build", remedy=ANEW)
    return said == _mark()


def _require_filled(folder: Path) -> None:
    if not _marked(folder):
        raise Unavailable(
            f"no feeder has filled {folder} since this host was started",
            remedy=command("cache --into", str(folder)),
        )


def _clear(folder: Path) -> None:
    """Remove what was there before the host was started: it may be torn, and its clock began elsewhere."""
    if others := sorted({each.name for each in folder.iterdir()} - OURS):
        raise BadSettings(
            f"{folder} holds other files, such as {others[0]}", remedy="give a folder of its own"
        )
    if not _marked(folder):
        for name in OURS:
            (folder / name).unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two feeders that begin at once take turns."""
    at = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(at, fcntl.LOCK_EX)
        yield
    finally:
        os.close(at)


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """What the system or LMDB says of the folder, as a fault of the ledger's kind."""
    try:
        yield
    except (lmdb.Error, OSError) as error:
        raise _fault(folder, error) from error


def _fault(folder: Path, error: Exception) -> LedgerError:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, lmdb.MapFullError | lmdb.DiskError) or FULL in said:
        return Unavailable(
            f"{folder} has no space left", remedy="free some there; the feeder goes on by itself"
        )
    if isinstance(error, lmdb.ReadersFullError):
        return Unavailable(f"{READERS_MAX} processes read {folder} already", remedy="stop some of them")
    if isinstance(
        error, lmdb.InvalidError | lmdb.CorruptedError | lmdb.VersionMismatchError | lmdb.NotFoundError
    ):
        return BadSettings(
            f"{folder} holds no cache that can be read: {said}",
            remedy=ANEW,
        )
    if isinstance(error, PermissionError | lmdb.ReadonlyError) or "Permission denied" in said:
        return BadSettings(
            f"{folder} can't be used: {said}", remedy="run feeder and readers as a user who may write there"
        )
    return Unavailable(f"{folder} can't be used: {said}")
