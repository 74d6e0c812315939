"""Lanes that stand still: there is something to apply, and nobody does.

Their worker doesn't run, is frozen, or waits for something. That a process lives proves nothing; that a lane
moves does.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from consumer.admin import Marks
from ledger.domain.delivery import Lane
from ledger.figures import counted
from ledger.store.tables.lane import LaneRow
from stockledger.verb.output import instant

STILL_S = 60.0
LOOK_AGAIN_S = 1.0


class Still(NamedTuple):
    """A lane with so many records to apply that hasn't moved since; None: never. `owner` had it last."""

    lane: Lane
    waiting: int
    last_moved_at: datetime | None
    owner: str | None

    def as_json(self) -> dict[str, Any]:
        """As `--json` shows it."""
        return {**self.lane._asdict(), "waiting": self.waiting, "last_moved_at": self.last_moved_at,
                "owner": self.owner}  # fmt: skip

    def __str__(self) -> str:
        since = f"hasn't moved since {instant(self.last_moved_at)}" if self.last_moved_at else "never moved"
        owner = f"its last owner is the process {self.owner}" if self.owner else "no worker has had it yet"
        return f"{self.lane} {since}, and {counted(self.waiting, 'record')} can be applied; {owner}"


def owner(row: LaneRow) -> str | None:
    """The process that claimed the lane last, as HOST:PID."""
    return f"{row.owner_host}:{row.owner_pid}" if row.owner_host else None


def find(
    rows: Iterable[LaneRow], marks: Mapping[Lane, Marks], again: Callable[[], Iterable[LaneRow]]
) -> list[Still]:
    """The lanes that haven't moved for `STILL_S` seconds.

    What was published to a quiet lane a moment ago waits too, so they are looked at a second time.
    """
    if not _find(rows, marks):
        return []
    time.sleep(LOOK_AGAIN_S)
    return _find(again(), marks)


def _find(rows: Iterable[LaneRow], marks: Mapping[Lane, Marks]) -> list[Still]:
    known = {row.lane: row for row in rows}
    found = []
    for lane, there in sorted(marks.items()):
        row = known.get(lane)
        waiting = there.stable - (
            row.next_offset if row else there.first
        )  # an open transaction isn't its fault
        if waiting > 0 and (row is None or row.still_s is None or row.still_s >= STILL_S):
            moved, had = (row.last_moved_at, owner(row)) if row else (None, None)
            found.append(Still(lane, waiting, moved, had))
    return found
