"""A fresh copy of the whole stock, of one position, in short statements: no snapshot is held open.

Pages are read while batches commit, so each shows the stock as of its own moment. What came after the oldest
of these is read from the change log, until all of it is newer than the newest: the greater version of an item
wins, so the copy is the stock as of where that ends.
"""

from collections.abc import Callable

from ledger.cache.sink import ENTRIES_MAX, Feed, Loading, Point, Sink, goes_on, passed_by
from ledger.store.tables.journal import Tip

PAGE_ROWS = 10_000


class Tips:
    """The heads that the answers were of: each must turn out to be of the history that the copy is of."""

    def __init__(self, first: Tip) -> None:
        self._hashes = {first.position: first.hash}
        self.base = Point(*first)
        self.last = first.position

    def add(self, tip: Tip) -> bool:
        """Note the head; False if another one with this position has another hash."""
        # A pooler, or several hosts in a DSN, may have given this page an older server than the first answer.
        if tip.position < self.base.position:
            self.base = Point(*tip)
        self.last = max(self.last, tip.position)
        return self.agrees(Point(*tip))

    def agrees(self, point: Point) -> bool:
        """Whether the hash there is the one that was seen before, if any was."""
        return self._hashes.setdefault(point.position, point.hash) == point.hash


def load(
    feed: Feed,
    sink: Sink,
    served: Point | None,
    clock: Callable[[], float],
    pause: Callable[[], bool],
) -> bool:
    """Load what the sink wants, and have it served. False: nothing was changed, look again.

    `served` is where the sink stands, if it serves something: the copy is of the same history, and no older.
    `pause` waits for a moment, and says whether to give up.
    """
    first = feed.poll(served.position if served else 0, 0)
    if served and not goes_on(first, served):
        return False
    loading, tips = sink.load(), Tips(first.tip)
    if served:
        tips.agrees(served)
    if sink.wants_catalogue and not _pages(feed, loading, tips):
        return False
    return _catch_up(feed, loading, tips, clock, pause)


def _pages(feed: Feed, loading: Loading, tips: Tips) -> bool:
    after: str | None = ""
    while after is not None:
        page = feed.page(after, PAGE_ROWS)
        # Of the empty last one, too: its server may not know of the last goods yet.
        if not tips.add(page.tip):
            return False
        loading.put(page.levels)
        after = page.levels[-1].goods_id if page.levels else None
    return True


def _catch_up(
    feed: Feed, loading: Loading, tips: Tips, clock: Callable[[], float], pause: Callable[[], bool]
) -> bool:
    at = tips.base
    while True:
        asked_at = clock()
        poll = feed.poll(at.position, ENTRIES_MAX)
        if not goes_on(poll, at) or poll.horizon > at.position:
            return False
        passed = passed_by(poll, at)
        if not all(map(tips.agrees, passed)):
            return False
        loading.put(level for entry in poll.entries for level in entry.levels)
        at = passed[-1] if passed else at
        if at.position == poll.tip.position:
            if at.position >= tips.last:
                loading.done(at, asked_at)
                return True
            if pause():  # a standby that is behind the server which the pages came from
                return False
