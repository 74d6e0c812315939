"""The seam between a feeder and whoever keeps a copy of the stock: what comes, as of where, and since when.

News is taken as a whole. Nothing is handed over that isn't proved to follow from what the sink holds: at each
poll the journal's hash at the sink's point is compared.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from ledger.errors import Contradiction
from ledger.store.tables.stock import StockLevel
from ledger.store.tables.stock_delta import Page, Poll

ENTRIES_MAX = 256
"""How many entries a poll brings: a batch of a busy ledger changes thousands of goods."""


class Ended(Exception):
    """The sink takes nothing more from this feeder, and says why."""


class Point(NamedTuple):
    """A place in one history: a position, and the journal's hash there."""

    position: int
    hash: bytes


class News(NamedTuple):
    """What one poll brought, to be taken atomically."""

    levels: list[StockLevel]
    """The changes in journal order: of one item, the last one counts."""
    passed: list[Point]
    """Every position passed, so that a token can be proved without the database."""
    at: Point
    """Where it ends."""
    asked_at: float | None
    """The clock before the question was sent; None where its answer isn't the head's: then the age grows."""
    standby: bool = False
    """Whether a standby answered: then a position beyond `at` may still come."""


class Loading(Protocol):
    """A fresh copy in the making, beside the one that is served."""

    def put(self, levels: Iterable[StockLevel]) -> None:
        """Add these; of two of one item the greater version is kept."""
        ...

    def done(self, at: Point, asked_at: float) -> None:
        """Serve this copy from now on, as the stock as of `at`."""
        ...


class Sink(Protocol):
    """Where a feeder puts what it reads. Only the feeder's thread calls these."""

    wants_catalogue: bool
    """Whether it holds all goods; if not, it loads items as they are asked for."""

    def mark(self) -> Point | None:
        """Up to where it holds what happened; None: it holds nothing."""
        ...

    def forget(self, why: str) -> None:
        """Another history: serve nothing until a loading is done."""
        ...

    def load(self) -> Loading:
        """Begin a fresh copy; an unfinished one is dropped."""
        ...

    def take(self, news: News) -> None:
        """Put changes, mark and age in place, atomically."""
        ...


class Feed(Protocol):
    """One connection's answers; each is one statement, so of one snapshot."""

    def poll(self, checkpoint: int, most: int) -> Poll:
        """What follows the position `checkpoint`: up to `most` entries."""
        ...

    def page(self, after: str, rows: int) -> Page:
        """The live stock of up to `rows` goods whose ids come after `after`."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


def goes_on(poll: Poll, point: Point) -> bool | None:
    """Whether the server's history goes on from the point; None: a standby that isn't there yet can't say."""
    if poll.proof is None and poll.standby and poll.tip.position < point.position:
        return None
    return poll.proof == point.hash


def passed_by(poll: Poll, point: Point) -> list[Point]:
    """The positions that the poll passes. Raises Contradiction where one is missing: its changes would be."""
    passed = [Point(entry.position, entry.hash) for entry in poll.entries]
    last = point.position + min(ENTRIES_MAX, poll.tip.position - point.position)
    if [each.position for each in passed] != list(range(point.position + 1, last + 1)):
        raise Contradiction(
            f"the journal has no dense positions from {point.position} to {last}", remedy="stockledger verify"
        )
    return passed
