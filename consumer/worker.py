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

from consumer import admin, assignment, known_log
from consumer.admin import TopicFacts, Watermarks
from consumer.announcements import Announcements
from consumer.goal import Goal
from consumer.group import GroupWatch
from consumer.meter import Unwatched
from consumer.processor import Processor
from consumer.silence import Silence
from consumer.source import Source
from consumer.traces import spans_of
from consumer.watch import TopicWatch
from ledger import codec, failpoints
from ledger.codec import CodecName
from ledger.domain.delivery import Lane
from ledger.domain.outcome import Outcome
from ledger.errors import Contended, Fenced, Retry
from ledger.store.connection import server
from ledger.store.connection.database import Connection, connect, faults
from ledger.store.tables import identity, stock_delta
from ledger.store.tables.lane import Claim

POLL_TIMEOUT_S = 0.1
PATIENCE_S = 60.0
"""How long a run that somebody waits for goes on without any progress."""
SAY_AFTER_S = 8.0
"""How long it keeps silent about that."""
PRUNE_INTERVAL_S = 30.0
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 5.0


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker needs to know. `kafka` holds librdkafka's properties by their dotted names."""

    dsn: str
    kafka: Mapping[str, str]
    topics: tuple[str, ...]
    group: str
    start: str | None = None
    until_caught_up: bool = False
    batch_size_max: int = 5_000
    status_interval_s: float = 10.0
    codec: CodecName | None = None


@dataclass
class Totals:
    """What a run has done: deliveries by outcome, and for how long.

    With a goal: whether it was `caught_up`, and if not, how many offsets were left (None: nobody knows).
    """

    counts: Counter[Outcome] = field(default_factory=Counter)
    seconds: float = 0.0
    caught_up: bool = False
    lag: int | None = None
    signal: int = 0
    """The one that ended it, 0 if it ended by itself."""


def rarely_collect_cycles() -> None:
    """Prepare a process for work: batches and requests make many objects and few cycles.

    Looking for some cost 17 % of a worker's CPU time, and a third of a gateway's event loop. Call it once:
    what is there now isn't looked at again.
    """
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


class Worker:
    """One process's share of the group's work."""

    def __init__(
        self, settings: WorkerSettings, log: FilteringBoundLogger, meter: Unwatched | None = None
    ) -> None:
        codec.choose(settings.codec)
        self.totals = Totals()
        self._meter = meter or Unwatched()
        self._spans = spans_of(settings.group)
        self._settings = settings
        self._log = log
        self._stopping = False
        self._goal = Goal(settings.topics) if settings.until_caught_up else None
        self._says = Announcements(log, settings.group, settings.status_interval_s)
        self._silence: Silence | None = None
        self._lanes: list[Lane] = []
        """All of the topics, whoever has them."""
        self._prune_due = time.monotonic() + PRUNE_INTERVAL_S

    def stop(self) -> None:
        """End after the batch in hand. Safe in a signal handler: it sets a flag."""
        self._stopping = True

    def _is_ending(self) -> bool:
        """Whether to end: told so, or the supervisor is gone, and with it whoever would start us again.

        Asked in every loop and every wait, so this is where we are seen to move.
        """
        self._meter.moved()
        supervisor = multiprocessing.parent_process()
        return self._stopping or (supervisor is not None and not supervisor.is_alive())

    def run(self) -> Totals:
        """Work until stopped or, with `until_caught_up`, until the topics' ends as of now are applied.

        A database or broker that can't be reached is waited for; everything else that is wrong is raised.
        With `until_caught_up`, which somebody waits for, so is that after `PATIENCE_S` without progress.
        """
        begun = time.monotonic()
        failures = 0
        while not self._is_ending():
            done = self.totals.counts.total()
            try:
                self._session()
                break
            except (Retry, Fenced) as fault:
                doubt = self._cause(fault)
                failures = 0 if self.totals.counts.total() > done else failures + 1
                if self._goal and self._goal.stalled_s > PATIENCE_S:
                    raise doubt from fault
                self._says.waiting(doubt)
                self._sleep(min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(failures, 10)))
        self.totals.seconds = time.monotonic() - begun
        if self._goal:
            self.totals.caught_up, self.totals.lag = self._goal.reached, self._goal.lag
        return self.totals

    def _session(self) -> None:
        settings = self._settings
        with faults(), contextlib.closing(connect(settings.dsn, purpose="run")) as conn:
            conn.on_silence = self._silence = Silence(conn, settings.dsn, self._is_ending, self._says.waiting)
            topics = assignment.preflight(conn, settings.kafka, settings.topics)
            identity.claim(conn, settings.group, topics[0].cluster_id)
            if (ahead_s := server.ahead_s(conn)) > 0:
                self._log.warning("clock", cause=f"{server.AHEAD_MEANS}: {ahead_s:.0f} s")
            if self._goal:
                self._aim(conn, self._goal, topics)
            watch = TopicWatch(settings.kafka, topics)
            claim = partial(self._claim, conn)
            with contextlib.closing(
                Source(
                    settings.kafka, settings.topics, settings.group, claim, self._log, settings.batch_size_max
                )
            ) as source:
                group_watch = GroupWatch(settings.kafka, settings.group, source.member)
                processor = Processor(conn, self._log)
                conn.meanwhile = source.decode
                self._lanes = [lane for facts in topics for lane in facts.lanes]
                self._says.ready(topics)
                while not self._is_ending() and not self._caught_up(conn, source):
                    source.poll(POLL_TIMEOUT_S)
                    self._apply_next(source, processor)
                    if watch.look(urgent=source.suspicious, without=source.unclaimed):
                        source.look_again()
                    source.suspicious = False
                    group_watch.look(idle=source.reachable and not source.lanes)
                    self._says.status(self.totals.counts, queued=source.queued, lanes=source.lanes)
                    self._meter.look(conn, source, self.totals.counts)
                    self._prune(conn)
                if self._goal and not self._goal.reached:
                    self._goal.look(conn, {})  # told to end: how much is left

    def _aim(self, conn: Connection, goal: Goal, topics: list[TopicFacts]) -> None:
        """Take the ends, of logs that are the known ones: who ends without an own lane has looked, too."""
        known = known_log.read(conn)  # first: others may come further meanwhile
        for facts in topics:
            known.lanes_of(facts)
        goal.aim(known.require_same(self._settings.kafka, topics))

    def _claim(self, conn: Connection, lanes: list[Lane]) -> Mapping[Lane, Claim]:
        """Own the lanes of an assignment. Topics are looked at anew: they may have grown or been replaced."""
        settings, known = self._settings, known_log.read(conn)
        topics = [known.inspect(settings.kafka, topic) for topic in settings.topics]

        def ask() -> Watermarks:
            marks = admin.watermarks(settings.kafka, [lane for facts in topics for lane in facts.lanes])
            self._says.silent(marks)
            return marks

        assignment.begin_lanes(conn, topics, ask, settings.start)
        return assignment.claim_lanes(conn, ask, lanes)

    def _apply_next(self, source: Source, processor: Processor) -> None:
        """Apply the next batch, if there is any."""
        if not (found := source.next_batch()):
            return
        queue, batch = found
        try:
            with self._spans.applying(batch, processor.counts):
                processor.apply(batch, queue.epoch)
        finally:
            self.totals.counts += processor.counts
            processor.counts.clear()
        self._meter.applied(batch)
        if self._says.going_on() and self._silence:
            self._silence.held = None
        source.applied(batch)
        failpoints.hit("advanced")

    def _caught_up(self, conn: Connection, source: Source) -> bool:
        """Whether the goal is reached, by us and the others; never without one.

        Raises what is in the way where nothing has moved for `PATIENCE_S`, and says it some time before.
        """
        goal = self._goal
        if goal is None:
            return False
        if goal.aim_due:
            goal.aim(admin.watermarks(self._settings.kafka, self._lanes))
        if goal.look(conn, source.lanes):
            return True
        if goal.stalled_s > (PATIENCE_S if self._says.waiting_for else SAY_AFTER_S):
            obstacle = goal.obstacle(self._settings.kafka)
            if goal.stalled_s > PATIENCE_S:
                raise obstacle
            self._says.waiting(obstacle)
        return False

    def _prune(self, conn: Connection) -> None:
        """Forget now and then what caches don't need any more; whichever worker comes first does."""
        if time.monotonic() >= self._prune_due:
            self._prune_due = time.monotonic() + PRUNE_INTERVAL_S
            stock_delta.prune(conn, stock_delta.KEEP)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._is_ending() and time.monotonic() < until:
            time.sleep(0.05)

    def _cause(self, fault: Retry | Fenced) -> Retry | Fenced:
        """The fault, or who held the lock that it waited for in vain."""
        held = self._silence.held if self._silence else None
        return held if held and isinstance(fault, Contended) and fault.is_lock_timeout else fault
