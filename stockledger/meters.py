"""What `project` and `cache` measure while somebody watches them: each hears what the log hears."""

import time
from collections.abc import Sequence

from ledger.cache.host_feeder import FeederLog
from ledger.cache.host_sink import HostSink
from ledger.errors import LedgerError
from ledger.rebuilding.projector import STATUS_INTERVAL_S, Told
from ledger.store.tables.projection_state import GenerationProgress
from ledger.telemetry import names
from ledger.telemetry.board import ALONE, BEGINS, Board
from ledger.telemetry.numbers import Numbers, Said

TELL_INTERVAL_S = 1.0


class _Meter:
    """Says on the board how things stand, once a second, and at once where that changes."""

    def __init__(self, board: Board) -> None:
        self.numbers = Numbers()
        self._board = board
        self._trouble = BEGINS
        self._due = 0.0
        board.expect(ALONE)

    def second(self) -> bool:
        """The loop goes on. Whether a second has passed."""
        if time.monotonic() < self._due:
            return False
        self._tell()
        return True

    def waits(self, trouble: str, cause: LedgerError | None = None) -> None:
        """It isn't ready, because of that; "": it is."""
        if cause:
            self.numbers.count(names.WAITED, cause.code)
        self._trouble = trouble
        self._tell()

    def _tell(self) -> None:
        self._due = time.monotonic() + TELL_INTERVAL_S
        self._board.hear(ALONE, Said(self.numbers.copy(), self._trouble))


class ProjectMeter(Told):
    """Of a projector. It is ready while it follows all that it was asked to."""

    status_interval_s = TELL_INTERVAL_S

    def __init__(self, told: Told, board: Board) -> None:
        self._told = told
        self._meter = _Meter(board)
        self._stopped = ""
        self._status_due = time.monotonic() + STATUS_INTERVAL_S

    def moved(self) -> None:
        self._meter.second()

    def ready(self, projections: Sequence[str]) -> None:
        self._told.ready(projections)
        self._meter.waits(self._stopped)

    def applied(self, name: str, events: int) -> None:
        self._told.applied(name, events)
        self._meter.numbers.count(names.PROJECTED, name, by=events)
        self._meter.numbers.put(names.PROJECTED_AT, time.time(), name)

    def waiting(self, cause: LedgerError, name: str = "") -> None:
        self._told.waiting(cause, name)
        if name:
            self._meter.numbers.count(names.WAITED, cause.code)
        else:
            self._meter.waits(f"{cause.code}: {cause.message}", cause)

    def back(self) -> None:
        self._told.back()
        self._meter.waits(self._stopped)

    def status(self, progress: Sequence[GenerationProgress]) -> None:
        for each in progress:
            if each.status == "live":
                self._meter.numbers.put(names.POSITION, each.position, each.name)
                self._meter.numbers.put(names.LAG_ENTRIES, each.lag, each.name)
                self._meter.numbers.observe(names.LAG_SECONDS, each.lag_seconds, each.name)
        if time.monotonic() >= self._status_due:
            self._status_due = time.monotonic() + STATUS_INTERVAL_S
            self._told.status(progress)

    def fault(self, fault: LedgerError) -> None:
        self._told.fault(fault)
        self._stopped = f"{fault.code}: {fault.message}"
        self._meter.waits(self._stopped)


class CacheMeter(FeederLog):
    """Of a host's cache. It is ready while the folder is up to date."""

    def __init__(self, told: FeederLog, board: Board) -> None:
        self._told = told
        self._meter = _Meter(board)

    def waiting(self, trouble: str, cause: LedgerError | None) -> None:
        self._told.waiting(trouble, cause)
        self._meter.waits(f"{cause.code}: {trouble}" if cause else trouble, cause)

    def loaded(self, position: int, loads: int) -> None:
        self._told.loaded(position, loads)
        self._meter.waits("")

    def looked(self, sink: HostSink) -> None:
        if self._meter.second():
            head, numbers = sink.head(), self._meter.numbers
            numbers.counts[names.CACHE_LOADS.name,] = head.loads
            numbers.counts[names.CACHE_RESETS.name,] = head.resets
            if head.point:
                numbers.put(names.CACHE_POSITION, head.point.position)
                numbers.observe(names.CACHE_AGE, max(time.monotonic() - head.asked_at, 0.0))
