"""What a worker measures of itself while somebody watches it (`WorkerMeter`); else nothing (`Unwatched`).

The core doesn't know of it: the steps of a batch are heard of at the points where a test may crash it, a
change of state from the log, and the rest once a second from the worker's loop. No SQL here.
"""

import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from structlog.typing import EventDict

from consumer.source import Source
from ledger import codec
from ledger.domain.delivery import Batch
from ledger.domain.outcome import Outcome
from ledger.store.connection import server
from ledger.store.connection.database import Connection
from ledger.store.reads.slots import slots
from ledger.store.tables import dead_letter
from ledger.telemetry import names
from ledger.telemetry.board import BEGINS
from ledger.telemetry.numbers import Numbers, Said

TELL_INTERVAL_S = 1.0
RARELY_INTERVAL_S = 30.0
"""Counting dead letters reads them all."""
SAMPLES = 32
"""Of a batch so many records are asked for their time; each takes a microsecond."""
ENDS = {"dedup": "dedup", "load": "load", "seal": "decide", "committed": "seal"}
"""The step that ends where a batch passes that point."""
REBALANCES = ("assigned", "revoked", "lost")
GOES_ON = ("ready", "goes on")
NO_BROKER = "no broker answers"


class Unwatched:
    """Nobody asks, so nothing is measured."""

    def moved(self) -> None:
        """The loop goes on, or waits for what it knows."""
        return

    def look(self, conn: Connection, source: Source, counts: Counter[Outcome]) -> None:
        """Once a round. Raises Unavailable where the database doesn't answer."""
        return

    def applied(self, batch: Batch) -> None:
        """The batch is committed."""
        return


class WorkerMeter(Unwatched):
    """Measures, and says once a second how things stand."""

    def __init__(self, group: str, tell: Callable[[Said], object]) -> None:
        self.numbers = Numbers()
        self._counts: Counter[Outcome] = Counter()
        self._group = group
        self._tell = tell
        self._trouble = BEGINS
        self._is_reachable = True
        self._tell_due = self._look_due = self._rarely_due = 0.0
        self._is_idle = True
        """Whether nothing was applied since the last look."""
        self._began = self._passed_at = 0.0
        for kind in REBALANCES:
            self.numbers.count(names.REBALANCES, kind, by=0)
        self.numbers.count(names.RETRIES, by=0)

    def moved(self) -> None:
        now = time.monotonic()
        if now >= self._tell_due:
            self._tell_due = now + TELL_INTERVAL_S
            self._tell(self.said())

    def said(self) -> Said:
        """How things stand."""
        for outcome in Outcome:
            self.numbers.counts[names.COMMANDS.name, outcome.value] = self._counts[outcome]
        trouble = self._trouble or ("" if self._is_reachable else NO_BROKER)
        return Said(self.numbers.copy(), trouble)

    def look(self, conn: Connection, source: Source, counts: Counter[Outcome]) -> None:
        now = time.monotonic()
        if now < self._look_due:
            return
        self._look_due = now + TELL_INTERVAL_S
        self._counts, numbers = counts, self.numbers
        numbers.put(names.QUEUED, source.queued)
        numbers.put(names.CODEC, 1, codec.in_use.name)
        numbers.drop(names.LAG)
        for lane, offsets in source.lags().items():
            numbers.put(names.LAG, offsets, self._group, lane.topic, str(lane.partition))
        self._is_reachable = source.reachable
        if now >= self._rarely_due:
            self._rarely_due = now + RARELY_INTERVAL_S
            for status, letters in dead_letter.totals(conn).items():
                numbers.put(names.DEAD_LETTERS, letters, status.value)
            numbers.drop(names.SLOT_KEPT)
            for slot in slots(conn):
                numbers.put(names.SLOT_KEPT, slot.kept, slot.name)
        elif self._is_idle:
            server.now(conn)  # else an idle worker would notice late that the database is away
        self._is_idle = True

    def applied(self, batch: Batch) -> None:
        self._is_idle = False
        now_ms, records = time.time() * 1000, batch.deliveries
        stride = math.ceil(len(records) / SAMPLES)
        for at in range(0, len(records), stride or 1):
            if (published_ms := records[at].published_ms) >= 0:
                age_s = max(now_ms - published_ms, 0) / 1000
                self.numbers.observe(names.END_TO_END, age_s, times=min(stride, len(records) - at))

    def passed(self, step: str) -> None:
        """The batch in hand has passed that point."""
        now = time.perf_counter()
        if step == "begin":
            self._began = self._passed_at = now
        elif name := ENDS.get(step):
            self.numbers.observe(names.STEP, now - self._passed_at, name)
            self._passed_at = now
            if step == "committed":
                self.numbers.observe(names.APPLY, now - self._began)

    def heard(self, _: Any, __: str, line: EventDict) -> EventDict:
        """What is said to people: a processor of the log."""
        event = line["event"]
        if event == "waiting":
            self._trouble = f"{line['code']}: {line['cause']}"
            self.numbers.count(names.WAITED, line["code"])
            self._tell_due = 0.0
        elif event in GOES_ON:
            self._trouble = ""
            self._tell_due = 0.0
        elif event in REBALANCES:
            self.numbers.count(names.REBALANCES, event)
        elif event == "batch is tried again":
            self.numbers.count(names.RETRIES)
        return line
