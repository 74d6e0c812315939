"""The ledger for Python programs: what became of a command, how much is in stock, and how things stand.

Everything here reads committed state, but for `mark` and `rebuild`. One `Ledger` is one connection, give each
thread its own; a rebuild makes more for as long as it lasts.
"""

import time
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Self

from ledger.domain.commands import MessageKey
from ledger.domain.delivery import Lane
from ledger.domain.outcome import Outcome, Reason
from ledger.errors import ProjectionUnknown
from ledger.pace import Reporter
from ledger.projections.registry import find
from ledger.rebuild import BUDGETS, Rebuilt, rebuild
from ledger.store import (
    balance,
    conflict,
    database,
    dead_letter,
    event,
    gap,
    history,
    journal,
    lane,
    migrate,
    processed_message,
    projection,
    stock,
)
from ledger.store.balance import Account, Change
from ledger.store.conflict import Conflict
from ledger.store.dead_letter import DeadLetter, Status
from ledger.store.gap import RecordedGap
from ledger.store.history import Moment
from ledger.store.lane import LaneRow
from ledger.store.projection import Progress
from ledger.store.stock import StockLevel

WAIT_FIRST_S = 0.005
WAIT_LONGEST_S = 0.1


@dataclass(frozen=True)
class RecordedOutcome:
    """What became of a command: `applied` or `rejected`, for good; and the delivery that decided it.

    `stream` and `version` say where its event stands, if it was applied. `conflicts` are later deliveries
    of the same key with another payload.
    """

    source: str
    id: str
    outcome: Outcome
    reason: Reason | None
    lane: Lane
    offset: int
    position: int
    recorded_at: datetime
    stream: str | None
    version: int | None
    conflicts: tuple[Conflict, ...]


@dataclass(frozen=True)
class LedgerStatus:
    """How things stand: the journal's last position, the lanes, and how many of what there are.

    `deliveries` has one number for each outcome, and `skipped` for the offsets in gaps.
    """

    position: int
    lanes: list[LaneRow]
    deliveries: dict[str, int]
    rejected: dict[Reason, int]
    dead_letters: dict[Status, int]
    projections: list[Progress] = field(default_factory=list)


class Ledger:
    """A connection to the ledger in the database that `dsn` names; `""` leaves all to libpq's `PG*`.

    Its methods raise Unavailable when the database can't be reached, SchemaMismatch when it holds no ledger.
    """

    def __init__(self, dsn: str = "") -> None:
        self._dsn = dsn
        self._conn = database.connect(dsn, purpose="api")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._conn.close()

    def outcome(self, id: str, source: str | None = None) -> list[RecordedOutcome]:
        """The outcomes of the commands with this id: one a source that used it, or that of `source` alone.

        Empty while no such command was applied or rejected.
        """
        with database.faults():
            return [self._recorded(found) for found in processed_message.outcomes(self._conn, id, source)]

    def wait(self, key: MessageKey, timeout_s: float) -> RecordedOutcome:
        """The command's outcome, as soon as there is one. Raises TimeoutError after `timeout_s` seconds.

        A command whose record turns out to be dead, or that was never published, has no outcome.
        """
        deadline = time.monotonic() + timeout_s
        pause_s = WAIT_FIRST_S
        while not (found := self.outcome(key.id, key.source)):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"no outcome of {key.source} {key.id} after {timeout_s} s")
            time.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, WAIT_LONGEST_S)
        return found[0]

    def wait_for_position(self, position: int, timeout_s: float, name: str = "stock") -> int:
        """Read your own write: return once what is read of the projection covers the journal's position.

        Returns the position that it covers. Raises TimeoutError after `timeout_s` seconds, ProjectionUnknown.
        The stock is written by the batches themselves, so it covers a position as soon as there is one.
        """
        deadline = time.monotonic() + timeout_s
        pause_s = WAIT_FIRST_S
        while (at := self._position(name)) < position:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"{name} is at position {at}, not yet at {position}, after {timeout_s} s")
            time.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, WAIT_LONGEST_S)
        return at

    def _position(self, name: str) -> int:
        with database.faults():
            at = projection.live_position(self._conn, name)
        if at is None:
            raise ProjectionUnknown(f"there is no projection {name} here", remedy="stockledger status")
        return at

    def stock(self, goods_id: str, *, as_of: int | datetime | None = None) -> StockLevel | None:
        """The goods' stock, now or as of a position or time; None if they weren't listed by then.

        Raises ValueError for a position that isn't there yet, and for a time without an offset from UTC.
        """
        with database.faults():
            if as_of is None:
                return stock.level(self._conn, goods_id)
            return history.level(self._conn, goods_id, history.moment(self._conn, as_of).position)

    def stock_levels(self, *, as_of: int | datetime) -> list[StockLevel]:
        """The stock of all goods as of a position or time, by id. Raises what `stock` raises."""
        with database.faults():
            return history.levels(self._conn, history.moment(self._conn, as_of).position)

    def moment(self, as_of: int | datetime | None = None) -> Moment:
        """The last position that was recorded by then (None: now), and when. Raises what `stock` raises."""
        with database.faults():
            return history.moment(self._conn, journal.tip(self._conn).position if as_of is None else as_of)

    def why(self, goods_id: str, limit: int) -> tuple[Account, list[Change]]:
        """What the goods' stock says, what their events add up to, and the last `limit` of these."""
        with database.faults():
            found = balance.account(self._conn, goods_id)
            return found, balance.changes(self._conn, goods_id, found, limit)

    def status(self) -> LedgerStatus:
        """How things stand. The numbers are read one after the other, each as of its own moment."""
        with database.faults():
            return LedgerStatus(
                position=journal.tip(self._conn).position,
                lanes=lane.read_all(self._conn),
                deliveries=journal.totals(self._conn),
                rejected=processed_message.rejected(self._conn),
                dead_letters=dead_letter.totals(self._conn),
                projections=projection.progress(self._conn),
            )

    def dead_letters(self, *, status: Status | None = None, code: str | None = None) -> list[DeadLetter]:
        """The dead letters with that status and code, lane by lane in offset order."""
        with database.faults():
            return dead_letter.listed(self._conn, status=status, code=code)

    def dead_letter(self, lane: Lane, offset: int) -> DeadLetter | None:
        """The dead letter at this offset, if the record there is one."""
        with database.faults():
            return dead_letter.find(self._conn, lane, offset)

    def mark(self, letter: DeadLetter, status: Status) -> bool:
        """Note that the dead letter was redriven or discarded.

        False if its status isn't that of `letter` any more: somebody else was first.
        """
        with database.faults():
            return dead_letter.set_status(
                self._conn, letter.lane, letter.offset, was=letter.status, now=status
            )

    def gaps(self) -> list[RecordedGap]:
        """All gaps, lane by lane in offset order."""
        with database.faults():
            return gap.listed(self._conn)

    def rebuild(self, name: str, *, on_progress: Reporter | None = None) -> Rebuilt:
        """Build the projection anew beside the live one, compare row by row, and swap; interrupted, the same
        again goes on. Returns once that is done. Needs the database's owner.

        `on_progress` is told the phase, events, events a second and seconds left, from several threads.
        Raises ProjectionUnknown, RebuildRunning, ProjectionFault (an event can't be applied),
        ProjectionDiffers (nothing was swapped), ProjectionRefused. `ledger.rebuild` has more options.
        """
        with database.faults():
            migrate.require_current(self._conn)
        connect = partial(database.connect, self._dsn, purpose="rebuild", budgets=BUDGETS)
        return rebuild(connect, find(name), report=on_progress)

    def _recorded(self, found: processed_message.Recorded) -> RecordedOutcome:
        place = None
        if found.outcome is Outcome.APPLIED:
            place = event.place(self._conn, found.position, found.key)
        return RecordedOutcome(
            source=found.key.source,
            id=found.key.id,
            outcome=found.outcome,
            reason=found.reason,
            lane=found.lane,
            offset=found.offset,
            position=found.position,
            recorded_at=found.recorded_at,
            stream=place.stream if place else None,
            version=place.version if place else None,
            conflicts=tuple(conflict.of_key(self._conn, found.key)),
        )
