"""A ledger in memory, as a feed shows it: entries, pages, pruning, a restore, a standby that lags.

    ledger = ShownLedger()
    ledger.commit(a=3, b=0)      # one entry: the goods a have 3 pieces now
    feeder.advance(ledger)       # it is the feed, too; each question is answered from one snapshot

`before_poll` and `before_page` are called before each answer is made: the place to commit or restore.
"""

import hashlib
from collections.abc import Callable

from ledger.domain.token import Token
from ledger.errors import Unavailable
from ledger.store.reads.history import Moment, StockNow
from ledger.store.tables.journal import GENESIS, Tip
from ledger.store.tables.stock import StockLevel
from ledger.store.tables.stock_delta import Page, Poll, StockChanges


class ShownLedger:
    def __init__(self) -> None:
        self.entries: list[StockChanges] = []
        self.horizon = 0
        self.standby = False
        self.lag = 0
        self.is_cut = False
        self.histories = 0
        self.polls = self.reads = self.pages = 0
        self.before_poll: Callable[[], None] = lambda: None
        self.before_page: Callable[[], None] = lambda: None
        self.after_read: Callable[[], None] = lambda: None

    def commit(self, **on_hand: int) -> StockChanges:
        """An entry that leaves the goods with so many pieces; without any it changed no stock."""
        levels = self.stock()
        changed = [
            StockLevel(goods_id, number, levels[goods_id].version + 1 if goods_id in levels else 1)
            for goods_id, number in on_hand.items()
        ]
        before = self.entries[-1].hash if self.entries else GENESIS
        text = f"{self.histories} {len(self.entries)} {changed}".encode()
        self.entries.append(
            StockChanges(len(self.entries) + 1, hashlib.sha256(before + text).digest(), changed)
        )
        return self.entries[-1]

    def restore(self, position: int) -> None:
        """Go back to this position; what comes next is another history."""
        del self.entries[position:]
        self.histories += 1
        self.horizon = min(self.horizon, position)

    def prune(self, position: int) -> None:
        self.horizon = max(self.horizon, position)

    def stock(self, as_of: int | None = None) -> dict[str, StockLevel]:
        """The truth: the stock as of a position."""
        found: dict[str, StockLevel] = {}
        for entry in self.entries[:as_of]:
            found |= {level.goods_id: level for level in entry.levels}
        return found

    def token(self, position: int) -> str:
        return str(Token.at(position, self.hash_at(position)))

    def hash_at(self, position: int) -> bytes:
        return self.entries[position - 1].hash if position else GENESIS

    # As a feed

    @property
    def seen(self) -> int:
        """The head, as the server that answers knows it."""
        return max(len(self.entries) - self.lag, 0)

    @property
    def tip(self) -> Tip:
        return Tip(self.seen, self.hash_at(self.seen))

    def poll(self, checkpoint: int, most: int) -> Poll:
        self.polls += 1
        self.before_poll()
        self.require_link()
        proof = self.hash_at(checkpoint) if checkpoint <= self.seen else None
        entries = [
            entry._replace(levels=entry.levels if entry.position > self.horizon else [])
            for entry in self.entries[checkpoint : min(checkpoint + most, self.seen)]
        ]
        return Poll(self.tip, proof, self.horizon, self.standby, entries)

    def page(self, after: str, rows: int) -> Page:
        self.pages += 1
        self.before_page()
        self.require_link()
        stock = self.stock(self.seen)
        return Page(self.tip, [stock[each] for each in sorted(stock) if each > after][:rows])

    def close(self) -> None:
        pass

    # As the database that is asked

    def live(self, goods_ids: set[str]) -> StockNow:
        self.reads += 1
        self.require_link()
        stock, tip = self.stock(self.seen), self.tip
        self.after_read()
        found = {each: stock[each] for each in goods_ids if each in stock}
        return StockNow(Moment(tip.position, None, str(Token.at(*tip))), found)

    def require_link(self) -> None:
        if self.is_cut:
            raise Unavailable("the connection was cut")
