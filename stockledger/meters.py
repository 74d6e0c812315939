"""What `project`, `relay` and `cache` measure while somebody watches them: each hears what the log hears."""

import time
from collections.abc import Sequence

from ledger.cache.host_feeder import FeederLog
from ledger.cache.host_sink import HostSink
from ledger.domain.token import Token
from ledger.errors import LedgerError
from ledger.rebuilding.projector import STATUS_INTERVAL_S, Told
from ledger.store.reads.lag import JournalLag
from ledger.store.tables.projection_state import GenerationProgress
from ledger.telemetry import names
from ledger.telemetry.board import ALONE, BEGINS, Board
from ledger.telemetry.numbers import Numbers, Said
from producer.relay.told import RelayedStep, RelayLog

TELL_INTERVAL_S = 1.0
RELAYED_KINDS = ("events", "outcomes", "stock")


class _Meter:
    """Says on the board how things stand, once a second, and at once where that changes."""

    def __init__(self, board: Board) -> None:
        self.numbers = Numbers()
        self._board = board
        self._trouble = BEGINS
        self._due = 0.0
        self._status_due = time.monotonic() + STATUS_INTERVAL_S
        board.expect(ALONE)

    def second(self) -> bool:
        """The loop goes on. Whether a second has passed."""
        if time.monotonic() < self._due:
            return False
        self._tell()
        return True

    def is_status_due(self) -> bool:
        """Whether it is time for a line of the log, too."""
        if time.monotonic() < self._status_due:
            return False
        self._status_due = time.monotonic() + STATUS_INTERVAL_S
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
        if self._meter.is_status_due():
            self._told.status(progress)

    def fault(self, fault: LedgerError) -> None:
        self._told.fault(fault)
        self._stopped = f"{fault.code}: {fault.message}"
        self._meter.waits(self._stopped)


class RelayMeter(RelayLog):
    """Of a relay. It is ready while it is in a session with Kafka and the database."""

    status_interval_s = TELL_INTERVAL_S

    def __init__(self, told: RelayLog, board: Board) -> None:
        self._told = told
        self._meter = _Meter(board)
        for kind in RELAYED_KINDS:
            self._meter.numbers.count(names.RELAYED, kind, by=0)

    def moved(self) -> None:
        self._meter.second()

    def ready(self, after: Token) -> None:
        self._told.ready(after)
        self._meter.numbers.put(names.RELAY_POSITION, after.position)
        self._meter.waits("")

    def relayed(self, step: RelayedStep) -> None:
        self._told.relayed(step)
        for kind, records in zip(RELAYED_KINDS, (step.events, step.outcomes, step.stock), strict=True):
            self._meter.numbers.count(names.RELAYED, kind, by=records)
        self._meter.numbers.put(names.RELAY_POSITION, step.token.position)

    def status(self, at: Token, lag: JournalLag) -> None:
        self._meter.numbers.put(names.RELAY_LAG_ENTRIES, lag.entries)
        self._meter.numbers.observe(names.RELAY_LAG_SECONDS, lag.seconds)
        if self._meter.is_status_due():
            self._told.status(at, lag)

    def waiting(self, cause: LedgerError) -> None:
        self._told.waiting(cause)
        self._meter.waits(f"{cause.code}: {cause.message}", cause)


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
