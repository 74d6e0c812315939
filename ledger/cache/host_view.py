"""What a reader sees of a host's folder: each look is one snapshot of it, and needs no lock."""

import json
import struct
import time
from collections.abc import Iterable, Mapping, Sequence

from ledger.cache.bands import Band
from ledger.cache.files import HEAD, HEAD_KEY, NOTE_KEY, About, Files, FolderHead, position_key, unpacked
from ledger.cache.known import Known
from ledger.cache.options import CacheStatus
from ledger.cache.sink import News, Point
from ledger.cache.strategy import Terms, disowns
from ledger.cache.view import NEVER, View, nothing
from ledger.domain.token import Token
from ledger.store.tables.stock import StockLevel

LOOK_INTERVAL_S = 0.005
NOT_FILLED = "its feeder hasn't loaded the stock yet"
NO_FEEDER = "its feeder is gone, or gets no turn"
NO_NOTE = b'["", null, 0]'
SILENCE_MAX_S = 3.0
"""A feeder says each second that it is there."""


class Looks:
    """Nobody tells a reader of another process what is new: it looks again."""

    def __enter__(self) -> None:
        """A snapshot needs no lock."""

    def __exit__(self, *exc: object) -> None:
        """Nor is one let go."""

    def wait(self, timeout: float) -> None:
        """Until the next look."""
        time.sleep(min(timeout, LOOK_INTERVAL_S))


class Nothing:
    """No folder is open, and that is why."""

    moved = Looks()
    known = Known()
    histories = 0

    def __init__(self, terms: Terms, why: str) -> None:
        self.terms = terms
        self.view = nothing(why)

    def one(self, goods_id: str) -> tuple[StockLevel | None, float]:
        """Nothing, and it may not be served."""
        return None, NEVER

    def many(self, goods_ids: Sequence[str]) -> tuple[View, dict[str, StockLevel | None]]:
        """Nothing of them."""
        return self.view, dict.fromkeys(goods_ids)

    def everything(self, band: Band | None = None) -> tuple[View, Mapping[str, StockLevel]]:
        """Nothing at all."""
        return self.view, {}

    def tell(self, position: int, histories: int) -> bool:
        """What isn't open tells nobody anything."""
        return False

    def status(self, now: float) -> CacheStatus:
        """How it stands."""
        return CacheStatus("host", None, None, 0, False, self.view.why, None, 0, 0, False)


class HostView:
    """An open folder as `Reader` reads it."""

    moved = Looks()

    def __init__(self, files: Files, terms: Terms) -> None:
        self.files = files
        self._terms = terms
        self._told = 0
        self._told_at = NEVER
        self._lost = 0
        self.known = HostHashes(self)

    @property
    def about(self) -> About:
        """What the folder is for; it is settled once the stock has been loaded."""
        with self.files.reading() as txn:
            return self.files.about(txn)

    @property
    def terms(self) -> Terms:
        """What it keeps to."""
        return self._terms._replace(low_below=self.about.low_below)

    @property
    def view(self) -> View:
        """Where the folder stands now; items are looked up when they are asked for."""
        with self.files.reading() as txn:
            return self._view(self.files.head(txn))

    @property
    def histories(self) -> int:
        """Counts the histories that were forgotten."""
        with self.files.reading() as txn:
            return self.files.head(txn).resets + self._lost

    def get(self, goods_id: str, /) -> StockLevel | None:
        """The item's stock now."""
        with self.files.reading() as txn:
            return self.files.level(txn, self.files.head(txn).slot, goods_id)

    def one(self, goods_id: str) -> tuple[StockLevel | None, float]:
        """The item's stock, and until when it may be served: one snapshot, by the shortest way."""
        files, key = self.files, goods_id.encode()
        try:
            with files.env.begin() as txn:
                there, position, _, asked_at, _, slot, _, _ = HEAD.unpack(txn.get(HEAD_KEY, b"", files.meta))
                value = txn.get(key, None, files.stock[slot])
        except (files.error, struct.error):  # there is no head, or no such key: the longer way says it
            return None, NEVER
        if value is None or not there or position < self._told:
            return None, NEVER
        return unpacked(key, value), asked_at + self._terms.max_staleness_s

    def many(self, goods_ids: Sequence[str]) -> tuple[View, dict[str, StockLevel | None]]:
        """Of one position: of one snapshot."""
        with self.files.reading() as txn:
            head = self.files.head(txn)
            found = {goods_id: self.files.level(txn, head.slot, goods_id) for goods_id in goods_ids}
            return self._view(head), found

    def everything(self, band: Band | None = None) -> tuple[View, Mapping[str, StockLevel]]:
        """A copy: it takes as long as there are goods."""
        with self.files.reading() as txn:
            head = self.files.head(txn)
            table = self.files.bands[head.slot][band] if band else self.files.stock[head.slot]
            levels = (unpacked(key, value) for key, value in txn.cursor(table))
            return self._view(head), {level.goods_id: level for level in levels}

    def tell(self, position: int, histories: int) -> bool:
        """As `Strategy.tell`, for the readers of this process."""
        with self.files.reading() as txn:
            head = self.files.head(txn)
        told = max(self._told, head.point.position if head.point else 0)
        if histories != head.resets + self._lost or position < told:
            return False
        self._told, self._told_at = position, self._terms.clock()
        return True

    def status(self, now: float) -> CacheStatus:
        """How it stands, by the reader's clock."""
        with self.files.reading() as txn:
            head = self.files.head(txn)
            trouble, error, noted_at = json.loads(txn.get(NOTE_KEY, NO_NOTE, db=self.files.meta))
            items = txn.stat(self.files.stock[head.slot])["entries"]
        fresh = now <= self._until(head)
        if not fresh and now > noted_at + SILENCE_MAX_S:
            trouble, error = NO_FEEDER, None
        return CacheStatus(
            strategy="host",
            token=str(Token.at(*head.point)) if head.point else None,
            age_s=now - head.asked_at if head.point else None,
            items=items,
            fresh=fresh,
            trouble=trouble,
            error=error,
            loads=head.loads,
            resets=head.resets,
            standby=head.standby,
        )

    def _view(self, head: FolderHead) -> View:
        if head.point is None:
            return nothing(NOT_FILLED)
        return View(self, self._until(head), head.asked_at, head.point, head.standby)

    def _until(self, head: FolderHead) -> float:
        if head.point is None:
            return NEVER
        if head.point.position < self._told:
            seen = News([], [], head.point, head.asked_at, head.standby)
            if not disowns(seen, self._told, self._told_at):
                return NEVER
            self._told = 0
            self._lost += 1
        return head.asked_at + self._terms.max_staleness_s


class HostHashes:
    """Those that the folder keeps, and those that this process has asked the database for."""

    def __init__(self, view: HostView) -> None:
        self._view = view
        self._asked = Known()
        self._histories = view.histories

    def hash_at(self, position: int) -> bytes | None:
        """The journal's hash at the position; None if it isn't here."""
        if self._histories != (now := self._view.histories):
            self._histories = now
            self._asked.forget()
        with self._view.files.reading() as txn:
            found: bytes | None = txn.get(position_key(position), db=self._view.files.known)
        return found or self._asked.hash_at(position)

    def add(self, points: Iterable[Point]) -> None:
        """Remember these, in this process."""
        self._asked.add(points)
