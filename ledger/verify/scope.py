"""What a run of `verify` looks at: all, what lies behind a position, or some of it, chosen at random."""

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from ledger.errors import Contended
from ledger.store import check, journal
from ledger.store.check import ENTRY_MIN, Page
from ledger.store.database import Connection, faults

T = TypeVar("T")


class Sample(NamedTuple):
    """About `percent` of the journal's pages, and of the streams that these touch; at least one of each.

    The same seed chooses the same ones: each is chosen by itself, a page by the position that it begins at,
    so they are the same when the journal has grown.
    """

    percent: float
    seed: int

    def choose(self, items: Sequence[T], name: Callable[[T], object]) -> list[T]:
        """Those of the items that are looked at, in order; `name` tells them apart."""
        drawn = [random.Random(f"{self.seed} {name(item)}").random() * 100 for item in items]
        least = max(self.percent, min(drawn, default=0))
        return [item for item, draw in zip(items, drawn, strict=True) if draw <= least]


@dataclass(frozen=True)
class Scope:
    """The journal's pages to look at, of the `pages_max` between `since` and the tip as it was at the start.

    `streams` are those to fold, None: all.
    """

    since: int
    tip: journal.Tip
    first_entry: int
    pages: Sequence[Page]
    pages_max: int
    streams: Sequence[str] | None
    sample: Sample | None = None

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self.streams is None


def scope(conn: Connection, *, since: int = 0, sample: Sample | None = None) -> Scope:
    """What there is to look at now; the connection must be in autocommit.

    Raises ValueError for a position that the journal doesn't have.
    """
    with faults():
        tip = journal.tip(conn)
        if not 0 <= since <= tip.position:
            raise ValueError(f"there is no position {since}: the journal ends at {tip.position}")
        everything = not since and sample is None
        with suppress(Contended), faults():  # a vacuum that is at it does the same
            check.settle(conn, everything=everything)
        pages = chosen = check.pages(conn, since, tip.position)
        if sample:
            chosen = sample.choose(pages, lambda page: page.first)
        streams = None if everything else check.streams(conn, chosen)
        if sample and streams:
            streams = sample.choose(streams, str)
        first_entry = check.first_entry(conn, since) if since else ENTRY_MIN
    return Scope(since, tip, first_entry, chosen, len(pages), streams, sample)
