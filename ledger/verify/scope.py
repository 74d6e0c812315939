"""What a run of `verify` looks at: all, what lies after a position, or some of it, chosen at random."""

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from ledger.errors import Contended
from ledger.store.connection.database import Connection, faults
from ledger.store.reads.ranges import ENTRY_MIN, Range
from ledger.store.rules import audit
from ledger.store.tables import journal

T = TypeVar("T")


class Sample(NamedTuple):
    """About `percent` of the ranges, and of the streams that these touch, are chosen; at least one of each.

    The same seed chooses the same ones: each is chosen by itself, a range by the position that it begins at,
    so they are the same when the journal has grown.
    """

    percent: float
    seed: int

    def choose(self, items: Sequence[T], name: Callable[[T], object]) -> list[T]:
        """The items to look at, in order; `name` tells them apart."""
        drawn = [random.Random(f"{self.seed} {name(item)}").random() * 100 for item in items]
        least = max(self.percent, min(drawn, default=0))
        return [item for item, draw in zip(items, drawn, strict=True) if draw <= least]


@dataclass(frozen=True)
class Scope:
    """The journal's ranges to look at, of the `ranges_max` from `since` to the tip as it was at the start.

    `streams` are those to fold, None: all.
    """

    since: int
    tip: journal.Tip
    first_entry: int
    ranges: Sequence[Range]
    ranges_max: int
    streams: Sequence[str] | None
    sample: Sample | None = None

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self.streams is None


def scope_of(conn: Connection, *, since: int = 0, sample: Sample | None = None) -> Scope:
    """What there is to look at now; the connection must be in autocommit.

    Raises ValueError for a position that the journal doesn't have.
    """
    with faults():
        tip = journal.tip(conn)
        if not 0 <= since <= tip.position:
            raise ValueError(f"there is no position {since}: the journal ends at {tip.position}")
        everything = not since and sample is None
        with suppress(Contended), faults():  # a vacuum that is at it does the same
            audit.settle(conn, everything=everything)
        parts = chosen = audit.parts(conn, since, tip.position)
        if sample:
            chosen = sample.choose(parts, lambda part: part.first)
        streams = None if everything else audit.streams(conn, chosen)
        if sample and streams:
            streams = sample.choose(streams, str)
        first_entry = audit.first_entry(conn, since) if since else ENTRY_MIN
    return Scope(since, tip, first_entry, chosen, len(parts), streams, sample)
