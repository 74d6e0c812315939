"""The loop: poll, apply, advance. Life in sessions; a session is one membership in the group.

Whatever puts the lanes in doubt (database gone, fenced, a commit of unknown fate) ends the session: the
client leaves the group, its queues are dropped, and the next session reads every lane's row again before
the first record. Signals only set a flag (`stop`). No SQL here.
"""

import contextlib
import gc
import multiprocessing
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from structlog.typing import FilteringBoundLogger

from consumer import assignment, topic
from consumer.processor import Processor
from consumer.source import Source
from consumer.topic import TopicFacts
from consumer.watch import TopicWatch
from ledger import failpoints
from ledger.domain.outcome import Outcome
from ledger.errors import Fenced, Retry
from ledger.store import lane
from ledger.store.database import Connection, connect, faults
from ledger.store.lane import Claim

POLL_TIMEOUT_S = 0.1
READ_AHEAD = 3
"""Batches that are in hand, as far as there are records: one is decoded while another is written.

The lanes take turns, so of four lanes each is found with a batch of nearly full size (of two: two thirds).
"""
PATIENCE_S = 60.0
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 5.0


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker needs to know. `kafka` holds librdkafka's properties by their dotted names."""

    dsn: str
    kafka: Mapping[str, str]
    topic: str
    group: str
    start: str | None = None
    until_caught_up: bool = False
    batch_size_max: int = 5_000
    status_interval_s: float = 10.0


@dataclass
class Totals:
    """What a run has done: deliveries by outcome, and for how long."""

    counts: Counter[Outcome] = field(default_factory=Counter)
    seconds: float = 0.0


def rarely_collect_cycles() -> None:
    """For a process that is about to work: batches make many objects and no cycles.

    Looking for some cost 17 % of a worker's CPU time. Call it once: what is there now isn't looked at again.
    """
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


class Worker:
    """One process's share of the group's work."""

    def __init__(self, settings: WorkerSettings, log: FilteringBoundLogger) -> None:
        self.totals = Totals()
        self._settings = settings
        self._log = log
        self._stopping = False
        self._waiting_for = ""
        self._status_due = 0.0
        self._reported: Counter[Outcome] = Counter()

    def stop(self) -> None:
        """End after the batch in hand. Safe in a signal handler: it sets a flag."""
        self._stopping = True

    @property
    def _ending(self) -> bool:
        """Whether to end: told so, or the supervisor is gone, and with it whoever would start us again."""
        supervisor = multiprocessing.parent_process()
        return self._stopping or (supervisor is not None and not supervisor.is_alive())

    def run(self) -> Totals:
        """Work until stopped or, with `until_caught_up`, until the topic's end as of now is applied.

        A database or broker that can't be reached is waited for; everything else that is wrong is raised.
        With `until_caught_up`, which somebody waits for, so is that after `PATIENCE_S` without progress.
        """
        begun = progressed = time.monotonic()
        failures = 0
        while not self._ending:
            done = self.totals.counts.total()
            try:
                self._session()
                break
            except (Retry, Fenced) as doubt:
                failures += 1
                if self.totals.counts.total() > done:
                    failures, progressed = 0, time.monotonic()
                if self._settings.until_caught_up and time.monotonic() - progressed > PATIENCE_S:
                    raise
                self._say_waiting(doubt)
                self._sleep(min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(failures, 10)))
        self.totals.seconds = time.monotonic() - begun
        return self.totals

    def _session(self) -> None:
        settings = self._settings
        with faults(), contextlib.closing(connect(settings.dsn, purpose="run")) as conn:
            facts = topic.inspect(settings.kafka, settings.topic)
            assignment.preflight(conn, facts, settings.group)
            ends = self._ends(facts)
            watch = TopicWatch(settings.kafka, facts)
            claim = partial(self._claim, conn)
            with contextlib.closing(
                Source(settings.kafka, settings.topic, settings.group, claim, self._log)
            ) as source:
                processor = Processor(conn, self._log)
                conn.meanwhile = source.decode
                self._say_ready(facts)
                while not self._ending and not self._caught_up(conn, source, ends):
                    source.poll(READ_AHEAD * settings.batch_size_max, POLL_TIMEOUT_S)
                    self._apply_next(source, processor)
                    watch.look(urgent=source.suspicious)
                    source.suspicious = False
                    self._say_status(source)

    def _ends(self, facts: TopicFacts) -> dict[int, int] | None:
        """Where the logs end now, if that is where to stop."""
        if not self._settings.until_caught_up:
            return None
        marks = topic.watermarks(self._settings.kafka, facts.name, facts.partitions)
        return {partition: end for partition, (_, end) in marks.items()}

    def _claim(self, conn: Connection, partitions: list[int]) -> Mapping[int, Claim]:
        """Own the lanes of an assignment. The topic is looked at anew: it may have grown or been replaced."""
        settings = self._settings
        facts = topic.inspect(settings.kafka, settings.topic)
        marks = topic.watermarks(settings.kafka, facts.name, facts.partitions)
        assignment.begin_lanes(conn, facts, marks, settings.start)
        return assignment.claim_lanes(conn, facts.name, marks, partitions)

    def _apply_next(self, source: Source, processor: Processor) -> None:
        """Apply a batch of the lane that has waited longest for its turn, if there is any."""
        queue = source.next_lane()
        if queue is None or not (batch := queue.take(self._settings.batch_size_max)):
            return
        try:
            processor.apply(batch, queue.epoch)
        finally:
            self.totals.counts += processor.counts
            processor.counts.clear()
        queue.advance(batch.next_offset)
        source.hand_over(queue.lane, batch.next_offset)
        failpoints.hit("advanced")

    def _caught_up(self, conn: Connection, source: Source, ends: Mapping[int, int] | None) -> bool:
        """Whether the whole topic is applied up to `ends`, by us and the others; never without `ends`."""
        if ends is None or any(queue.end_seen < ends.get(p, 0) for p, queue in source.lanes.items()):
            return False
        rows = lane.read_all(conn)
        stored = {row.partition: row.next_offset for row in rows if row.topic == self._settings.topic}
        return all(stored.get(partition, 0) >= end for partition, end in ends.items())

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._ending and time.monotonic() < until:
            time.sleep(0.05)

    def _say_waiting(self, doubt: Retry | Fenced) -> None:
        if doubt.code != self._waiting_for:  # one line a change of state, not one a try nor a wording
            self._waiting_for = doubt.code
            self._log.warning("waiting", cause=doubt.message, code=doubt.code)

    def _say_ready(self, facts: TopicFacts) -> None:
        self._waiting_for = ""
        self._log.info("ready", group=self._settings.group, topic=facts.name, partitions=facts.partitions)

    def _say_status(self, source: Source) -> None:
        now = time.monotonic()
        if now < self._status_due:
            return
        self._status_due = now + self._settings.status_interval_s
        since = self.totals.counts - self._reported
        self._reported = self.totals.counts.copy()
        self._log.info(
            "status", **{str(o): since[o] for o in Outcome}, queued=source.queued, lanes=sorted(source.lanes)
        )
