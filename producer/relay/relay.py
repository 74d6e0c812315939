"""The relay at work: what the journal has is published in its order, with how far that is.

Each step is a few entries. What they say and the position that is reached then are one transaction of Kafka,
so whoever reads committed records has each entry once, wherever a relay was killed. At its start a relay
fences the one before, and reads back how far that came. The journal proves that it is still the same: one
that was restored to an earlier state isn't published over what others have read. So do the topics, every few
seconds: one that was made again hasn't what was relayed so far.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from threading import Event
from typing import Any, Protocol

from ledger import failpoints
from ledger.domain.token import AnyPosition, Token
from ledger.errors import HistoryChanged, Retry, TopicReplaced, TopicUnfit
from ledger.history import events
from ledger.store.connection.database import Connection, faults
from ledger.store.reads import history, lag
from producer.relay import steps
from producer.relay.outputs import Outputs, Placed, Relayed
from producer.relay.steps import JournalStep
from producer.relay.told import RelayedStep, RelayLog
from producer.relay.traces import relay_spans
from producer.relay.transactions import Transactions

POLL_INTERVAL_S = 0.1
RECONNECT_FIRST_S = 0.1
RECONNECT_LONGEST_S = 10.0
TOPICS_INTERVAL_S = 5.0


class RelayTopics(Protocol):
    """The topics that it writes."""

    def look(self) -> Relayed:
        """What is there. Raises TopicUnfit where one can't do what it is for, Unavailable."""
        ...

    def ids(self) -> Mapping[str, str]:
        """Kafka's ids of them, by name. Raises TopicMissing, Unavailable."""
        ...


@dataclass(frozen=True)
class RelayTerms:
    """What it is to do. A relay that has published nothing yet begins after `first` (None: what is there)."""

    kafka: Mapping[str, Any]
    outputs: Outputs
    first: AnyPosition | None = 0
    until_caught_up: bool = False


class Relay:
    """`run` owns its connection, its producer and all transactions of both."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        topics: RelayTopics,
        terms: RelayTerms,
        stop: Event,
        log: RelayLog,
    ) -> None:
        self._connect = connect
        self._topics = topics
        self._terms = terms
        self._stop = stop
        self._log = log
        self._spans = relay_spans()
        self._pause_s = RECONNECT_FIRST_S
        self._away_for = ""
        self._topics_due = self._status_due = 0.0

    def run(self) -> None:
        """Publish until stopped, or until all is that the journal has now.

        Raises RelayTaken once another relay has taken over, HistoryChanged where the journal isn't the one
        that was published, TopicUnfit where a topic can't be written to. Raises Unavailable only if it was to
        catch up: else it begins again, for ever.
        """
        while not self._stop.is_set():
            try:
                self._session()
                return
            except Retry as cause:
                if self._terms.until_caught_up and not self._stop.is_set():
                    raise
                self._wait(cause)

    def _wait(self, cause: Retry) -> None:
        if cause.code != self._away_for:
            self._log.waiting(cause)
            self._away_for = cause.code
        self._log.moved()
        self._stop.wait(self._pause_s)
        self._pause_s = min(2 * self._pause_s, RECONNECT_LONGEST_S)

    def _session(self) -> None:
        name = f"stockledger-{self._terms.outputs.positions}"
        with (
            closing(Transactions(self._terms.kafka, name, self._stop.is_set)) as producer,
            closing(self._connect()) as conn,
            ThreadPoolExecutor(1) as reader,
        ):
            producer.begin_session()
            failpoints.hit("relay.fenced")
            at = self._begin(conn, producer)
            self._log.ready(at.token)
            self._away_for = ""
            self._topics_due = time.monotonic() + TOPICS_INTERVAL_S
            self._status_due = time.monotonic() + self._log.status_interval_s
            ahead: Future[JournalStep | None] | None = None
            while not self._stop.is_set():
                step = ahead.result() if ahead else steps.following(conn, at.token)
                ahead = None
                self._look(conn, at)
                if step:
                    if not step.is_last:  # the next one is read while this is on its way
                        ahead = reader.submit(steps.following, conn, step.reached)
                    at = self._publish(producer, at, step)
                    self._pause_s = RECONNECT_FIRST_S
                elif self._terms.until_caught_up:
                    return
                else:
                    self._stop.wait(POLL_INTERVAL_S)

    def _look(self, conn: Connection, at: Placed) -> None:
        """Now and then: are these still the topics, and how far is it?"""
        self._log.moved()
        if time.monotonic() >= self._topics_due:
            _require_same(at, self._topics.ids())
            self._topics_due = time.monotonic() + TOPICS_INTERVAL_S
        if time.monotonic() >= self._status_due:
            with faults():
                found = lag.after(conn, at.token.position)
            self._log.status(at.token, found)
            self._status_due = time.monotonic() + self._log.status_interval_s

    def _begin(self, conn: Connection, producer: Transactions) -> Placed:
        """How far the relay before came; else where the first one is to begin, which is kept at once.

        Raises HistoryChanged, or TopicReplaced where what was published so far is gone.
        """
        source, found = events.source(conn), self._topics.look()
        if found.last is None:
            with faults():
                first = self._terms.first
                moment = history.now(conn) if first is None else history.moment(conn, first)
            at = Placed(source, Token.parse(moment.token), found.ids)
            with producer.transaction():
                producer.send([at.record(self._terms.outputs.positions)])
            return at
        topic = self._terms.outputs.positions
        try:
            at = Placed.read(found.last)
        except ValueError as error:
            raise TopicUnfit(
                f"the last record of {topic} isn't a relay's position: {error}",
                remedy=f"write nothing else to the topic {topic}; a relay with another --to begins anew",
            ) from None
        if at.source not in (source, events.SOURCE):
            raise HistoryChanged(
                f"the topics of {topic} have what the ledger {at.source} said, and this is {source}",
                position=at.token.position, expected=at.token.hash, actual=None,
                remedy="relay this ledger to topics of its own: stockledger relay --to",
            )  # fmt: skip
        _require_same(at, found.ids)
        return at._replace(source=source)

    def _publish(self, producer: Transactions, at: Placed, step: JournalStep) -> Placed:
        reached = at._replace(token=step.reached)
        with self._spans.step(step.entries[0].position, reached.token.position), producer.transaction():
            failpoints.hit("relay.begun")
            records = step.records(self._terms.outputs, reached.source)
            sent = producer.send(self._spans.sent(records))
            failpoints.hit("relay.placed")
            producer.send([reached.record(self._terms.outputs.positions)])
        happened, decided = step.happened, step.decided
        stock = sent - happened - decided
        self._log.relayed(RelayedStep(len(step.entries), happened, decided, stock, reached.token))
        return reached


def _require_same(at: Placed, ids: Mapping[str, str]) -> None:
    """Raise TopicReplaced where what was relayed so far is gone."""
    for name, id in at.ids.items():
        if ids.get(name, id) != id:
            raise TopicReplaced(
                f"the topic {name} was deleted and made again: what was relayed up to position "
                f"{at.token.position} isn't there any more",
                remedy="begin anew in other topics: stockledger relay --to",
            )
