"""What was counted and measured, as plain data: it can be sent from process to process and added up."""

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from ledger.telemetry.names import FAMILIES, Family

Series = tuple[str, ...]
"""A metric's name, and the values of its labels."""


@dataclass
class Numbers:
    """For one thread; others are given copies."""

    counts: defaultdict[Series, float] = field(default_factory=lambda: defaultdict(float))
    levels: dict[Series, float] = field(default_factory=dict)
    spreads: dict[Series, list[float]] = field(default_factory=dict)
    """Of each histogram how much fell into each bucket, into none, and the sum."""

    def count(self, family: Family, *labels: str, by: float = 1) -> None:
        """So many more."""
        self.counts[family.name, *labels] += by

    def put(self, family: Family, value: float, *labels: str) -> None:
        """It stands there now."""
        self.levels[family.name, *labels] = value

    def drop(self, family: Family) -> None:
        """It stands nowhere any more."""
        self.levels = {series: value for series, value in self.levels.items() if series[0] != family.name}

    def observe(self, family: Family, value: float, *labels: str, times: int = 1) -> None:
        """A value was met so many times."""
        series = (family.name, *labels)
        spread = self.spreads.get(series)
        if spread is None:
            spread = self.spreads[series] = [0.0] * (len(family.buckets) + 2)
        spread[bisect_left(family.buckets, value)] += times
        spread[-1] += value * times

    def add(self, other: "Numbers", *, levels: bool = True) -> None:
        """Add another process's, with its `levels` or without."""
        for series, value in other.counts.items():
            self.counts[series] += value
        for series, theirs in other.spreads.items():
            ours = self.spreads.get(series, [0.0] * len(theirs))
            self.spreads[series] = [mine + more for mine, more in zip(ours, theirs, strict=True)]
        for series, value in other.levels.items() if levels else ():
            there = self.levels.get(series, 0)
            self.levels[series] = max(there, value) if FAMILIES[series[0]].greatest else there + value

    def copy(self) -> "Numbers":
        """As they are now."""
        made = Numbers()
        made.add(self)
        return made


class Said(NamedTuple):
    """What a process, or its loop, says of itself: its numbers, and why it isn't ready ("" if it is)."""

    numbers: Numbers
    trouble: str = ""
