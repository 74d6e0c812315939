"""What a host's feeder does to the folder that it keeps: each step is one transaction."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ledger.cache.bands import BANDS, moves
from ledger.cache.files import (
    ABOUT_KEY,
    HEAD_KEY,
    NOTE_KEY,
    OWNER_KEY,
    About,
    Files,
    FolderHead,
    packed,
    position_key,
)
from ledger.cache.known import KNOWN_MAX
from ledger.cache.options import Share
from ledger.cache.sink import Ended, News, Point
from ledger.cache.strategy import newer
from ledger.errors import BadSettings
from ledger.store.tables.stock import StockLevel

CHUNK = 50_000
"""So many goods of a copy are written at once: a transaction keeps its pages in memory."""


class HostSink:
    """A folder that this process owns, until another feeder takes it: then `Ended` is raised.

    Raises BadSettings for a folder of another ledger, or of another purpose.
    """

    wants_catalogue = True

    def __init__(self, folder: Path, about: About) -> None:
        self.files = Files(folder, writes=True)
        self._about = about
        self._holds = Share(about.share).holds
        self._owner = os.urandom(16)
        with self.files.writing() as txn:
            self._require_purpose(self.files.about(txn), self.files.head(txn))
            txn.put(ABOUT_KEY, json.dumps(about).encode(), db=self.files.meta)
            txn.put(OWNER_KEY, self._owner, db=self.files.meta)

    def close(self) -> None:
        """Let go of the folder."""
        self.files.close()

    def head(self) -> FolderHead:
        """Where the folder stands."""
        with self.files.reading() as txn:
            return self.files.head(txn)

    def mark(self) -> Point | None:
        """Up to where the folder holds what happened."""
        return self.head().point

    def forget(self, why: str) -> None:
        """Another history: nothing is served."""
        with self._writing() as (txn, head):
            txn.drop(self.files.known, delete=False)
            self._put(txn, FolderHead(slot=head.slot, loads=head.loads, resets=head.resets + 1))

    def load(self) -> "HostLoading":
        """Begin a copy in the slot that isn't read."""
        return HostLoading(self)

    def take(self, news: News) -> None:
        """Put the changes in place: what is newer than what is held."""
        with self._writing() as (txn, head):
            self._apply(txn, head.slot, news.levels)
            self._pass(txn, news.passed)
            asked_at = head.asked_at if news.asked_at is None else news.asked_at
            self._put(txn, head._replace(point=news.at, asked_at=asked_at, standby=news.standby))

    def note(self, trouble: str, error: str | None, at: float) -> None:
        """Tell the readers why the folder isn't up to date ("" if it is), and that it is looked after."""
        self.files.free_dead_readers()
        with self._writing() as (txn, _):
            txn.put(NOTE_KEY, json.dumps([trouble, error, at]).encode(), db=self.files.meta)

    @contextmanager
    def _writing(self) -> Iterator[tuple[Any, FolderHead]]:
        with self.files.writing() as txn:
            if txn.get(OWNER_KEY, db=self.files.meta) != self._owner:
                raise Ended(f"another feeder keeps {self.files.folder} now")
            yield txn, self.files.head(txn)

    def _require_purpose(self, there: About, head: FolderHead) -> None:
        """Readers hold on to what a folder is for, once it was loaded."""
        ours, folder = self._about, self.files.folder
        if head.point and there.origin and ours.origin and there.origin != ours.origin:
            raise BadSettings(
                f"{folder} holds the stock of another ledger",
                remedy="give another folder, or remove this one",
            )
        if head.loads and there[:2] != ours[:2]:
            raise BadSettings(
                f"{folder} was filled with share={there.share} and low_below={there.low_below}",
                remedy="give the same again, or another folder",
            )

    def _put(self, txn: Any, head: FolderHead) -> None:
        txn.put(HEAD_KEY, head.packed(), db=self.files.meta)

    def _pass(self, txn: Any, passed: Iterable[Point]) -> None:
        """Keep the hashes that were read of late."""
        for position, hash in passed:
            txn.put(position_key(position), hash, db=self.files.known)
            txn.delete(position_key(max(position - KNOWN_MAX, 0)), db=self.files.known)

    def _apply(self, txn: Any, slot: int, levels: Iterable[StockLevel]) -> None:
        held: dict[str, StockLevel] = {}

        def find(goods_id: str) -> StockLevel | None:
            if level := self.files.level(txn, slot, goods_id):
                held[goods_id] = level
            return level

        changes = newer(find, levels, self._holds)
        for level in changes.values():
            txn.put(*packed(level), db=self.files.stock[slot])
        if self._about.low_below is not None:
            moved = moves(held, changes.values(), self._about.low_below)
            for band in BANDS:
                table = self.files.bands[slot][band]
                for goods_id in moved[band].drop:
                    txn.delete(goods_id.encode(), db=table)
                for level in moved[band].put.values():
                    txn.put(*packed(level), db=table)

    # What a loading does

    def begin(self) -> int:
        """Empty the slot that isn't read, and say which it is."""
        with self._writing() as (txn, head):
            slot = 1 - head.slot
            self._empty(txn, slot)
            return slot

    def add(self, slot: int, levels: list[StockLevel]) -> None:
        """Put these into a copy that isn't read yet."""
        with self._writing() as (txn, _):
            self._apply(txn, slot, levels)

    def serve(self, slot: int, at: Point, asked_at: float) -> None:
        """Let the copy be read, and empty the one before. Whether more may come, the next poll says."""
        with self._writing() as (txn, head):
            if head.point is None:
                txn.drop(self.files.known, delete=False)
            self._pass(txn, [at])
            self._put(txn, FolderHead(at, asked_at, True, slot, head.loads + 1, head.resets))
            self._empty(txn, head.slot)

    def _empty(self, txn: Any, slot: int) -> None:
        for table in (self.files.stock[slot], *self.files.bands[slot].values()):
            txn.drop(table, delete=False)


class HostLoading:
    """A copy in the making: the greater version of an item stays."""

    def __init__(self, sink: HostSink) -> None:
        self._sink = sink
        self._slot = sink.begin()
        self._waiting: list[StockLevel] = []

    def put(self, levels: Iterable[StockLevel]) -> None:
        """Write these, many at once."""
        self._waiting += levels
        if len(self._waiting) >= CHUNK:
            self._flush()

    def done(self, at: Point, asked_at: float) -> None:
        """Serve it from now on."""
        self._flush()
        self._sink.serve(self._slot, at, asked_at)

    def _flush(self) -> None:
        self._sink.add(self._slot, self._waiting)
        self._waiting = []
