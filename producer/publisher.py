"""The producer client: every command that is sent ends as acknowledged, failed or unknown, never in silence.

Idempotent and `acks=all`; no topic is made by publishing to it. What isn't acknowledged may be in the topic
all the same (a lost answer): sending it again with the same id is always safe, because the ledger applies an
id once. After the first command without an acknowledgement nothing more is sent: no lane gets a hole.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache, partial
from multiprocessing.util import Finalize
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from ledger.domain.commands import AnyCommand
from ledger.domain.delivery import stream_of
from ledger.domain.envelope import fingerprint, headers
from ledger.errors import BrokerUnavailable, LedgerError, Stop
from ledger.telemetry import tracing
from producer import client, traces
from producer.arguments import message_key, require_command, require_key_part, seconds
from producer.faults import RIGHTS, TOPIC_ERRORS, VERDICTS, Trouble, kafka_error, topic_unfit
from producer.partition_by import PartitionBy
from producer.plain import Ready
from producer.routing import Routing
from producer.tally import Receipt, Reports, Tally, account

QUEUE_POLL_S = 0.1
"""How long to serve reports before trying again to get a command into a full queue."""
POLL_EVERY = 100
"""How many commands without a receipt go out before reports are served; a millisecond's worth."""
METADATA_TIMEOUT_S = 1.0
TOPIC_GRACE_S = 1.0
REPORT_DELAY_S = 1.0
"""librdkafka looks for timed-out messages once a second, so a report may come that much late."""
TIMEOUT_DEFAULT_S = 10.0
BY_KEY = -1
"""The partition's number that leaves it to the client's partitioner."""
SETTLE_S = 5.0
"""How long an error waits for the reports of what is under way, so that its account is the last word."""
NEW_ONE = (
    "make a new Publisher, this one sends no more, and send the same again with the same ids: what the topic "
    "holds already has no second effect"
)
EXIT_PRIORITY = 10  # anything from 0 on ends a process of `multiprocessing` too, which has no `atexit`

_OnDelivery = Callable[[KafkaError | None, Message], None]


class Forked(Stop):
    """The Publisher was made before this process was forked off: its client's threads aren't here."""

    code = "SL-PUB-001"


class Publisher:
    """Sends commands to one topic, from one thread and one process. Use it in a `with` block, or `close` it.

    `close`, and leaving the block, wait for the reports of what was sent and raise where not all is
    acknowledged, unless `flush` has handed its tally to the caller since the last `send`. Leaving the block
    by an exception drops what is still queued. One that is forgotten waits as well, when it is collected or
    the program ends, with a ResourceWarning, and what isn't acknowledged is told on stderr. After a command
    that isn't acknowledged a publisher sends no more: go on with a new one. `kafka` holds librdkafka's
    properties, as the client takes them; `source` is the default of `send`.

    `partition_by` says what stays in order on one lane: commands about the same `goods`, or those of the same
    `user`. `mixed` is `goods`, but for the `hot_goods`: by `isolate` these share `hot_partitions` (default:
    1) that nothing else uses; by `spread` purchases of each go to so many (default: all), by user.

    Raises ValueError or TypeError for an argument that can't be one, BadSettings at once where a property is
    unknown, unusable or would break the promise. Connects at the first `send` or `connect`. In a process that
    was forked off later everything raises Forked.
    """

    def __init__(
        self,
        kafka: Mapping[str, Any],
        topic: str,
        source: str = "",
        *,
        partition_by: str = "goods",
        hot_goods: Iterable[str] = (),
        hot_by: str = "isolate",
        hot_partitions: int | None = None,
    ) -> None:
        if not isinstance(topic, str) or not isinstance(source, str):
            name, given = ("topic", topic) if not isinstance(topic, str) else ("source", source)
            raise TypeError(f"{name} must be text, not {type(given).__name__}")
        if not topic:
            raise ValueError("topic must not be empty")
        if source:
            require_key_part("source", source)
        self.routing = Routing.of(partition_by, hot_goods, hot_by, hot_partitions)
        """Which lane a command goes to."""
        self._is_routed = self.routing.partition_by is not PartitionBy.GOODS
        settings = client.complete(kafka)
        if self.routing.partition_by is PartitionBy.MIXED:
            client.require_partitioner(settings)
        self._trouble = Trouble(settings["bootstrap.servers"])
        self._producer = client.make_producer(settings, self._trouble.note)
        self.topic = topic
        self.source = source
        self.partitions = 0
        """How many the topic has; 0 until connected."""
        self.timeout_s = int(settings[client.TIMEOUT_MS]) / 1000 or TIMEOUT_DEFAULT_S
        """How long a command may wait for its acknowledgement, and a connection for its broker."""
        self._reports = Reports()
        self._spans = traces.SendSpans.of(topic)
        self._process = os.getpid()
        self._closed = False
        remains = self._reports, self._producer, self.timeout_s + REPORT_DELAY_S, topic
        self._forgotten = Finalize(self, _forgotten, args=remains, exitpriority=EXIT_PRIORITY)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if (
            os.getpid() == self._process
        ):  # else the block is left twice, and this is the process without client
            self._close(waits=error is None)

    def close(self) -> None:
        """Wait until all is reported and send no more.

        Raises what `check` raises unless `flush` has handed the account over.
        """
        self._refuse_fork()
        self._close(waits=True)

    def _close(self, *, waits: bool) -> None:
        reports, waits = self._reports, waits and not self._reports.handed_over
        if waits:
            self.flush()
        self._closed = True
        self._forgotten.cancel()
        self._producer.purge()  # or the rest would go out behind the caller's back
        reports.serve(self._producer.flush, REPORT_DELAY_S)
        if waits:
            self.check()

    def connect(self, timeout_s: float | None = None) -> None:
        """Find the topic; does nothing if that is done.

        Raises BrokerUnavailable after `timeout_s` (default: the publisher's own), TopicUnfit where the topic
        doesn't exist or may not be written, BadSettings where the broker refuses the credentials, or the
        topic has too few partitions for its hot goods. Nothing was sent then.
        """
        self._refuse_fork()
        started, patience_s = time.monotonic(), self.timeout_s if timeout_s is None else seconds(timeout_s)
        while not self.partitions:
            try:
                found = self._count_partitions(time.monotonic() - started, patience_s)
                self.routing.require(self.topic, found)
                self.partitions = found
            except (KafkaException, SystemError) as exception:
                error = kafka_error(exception)
                self.poll(QUEUE_POLL_S)  # brings the cause
                self._refuse_after_error()
                waited_s = time.monotonic() - started
                # A new topic takes a moment to be known to every broker.
                if error.code() in RIGHTS or (error.code() in TOPIC_ERRORS and waited_s >= TOPIC_GRACE_S):
                    raise self._fault(error) from None
                if waited_s >= patience_s or self._trouble.is_hopeless:
                    raise self._trouble.unreachable(waited_s) from None

    def send(
        self,
        command: AnyCommand,
        *,
        id: str | UUID | None = None,
        source: str | None = None,
        on_report: Callable[[Receipt], object] | None = None,
    ) -> Receipt:
        """Queue the command; waits while the queue is full. Without an `id` it gets a UUIDv7.

        `on_report` is given the receipt by a later call of this publisher, once there is an answer: without
        an offset it isn't acknowledged. It must not raise. Raises what `connect` and `check` raise;
        ValueError or TypeError naming what can't be sent.
        """
        self._refuse_fork()
        key = message_key(self.source if source is None else source, id)
        require_command(command)
        receipt = Receipt(key, fingerprint(key, command), stream_of(command))
        self.post(Ready.of(*key, command), key.id, partial(self._reports.note_for, receipt, on_report))
        self.poll(0)
        return receipt

    def post(self, ready: Ready, id: str, on_report: _OnDelivery | None = None) -> None:
        """Queue the command under this id as `send` does, without a receipt: the tally accounts for it.

        Raises what `connect` and `check` raise. A fork is noticed by `connect` and `flush`, not here.
        """
        if not self.partitions:
            self.connect()
        reports = self._reports
        on_report = on_report or reports.note
        now = _timestamp(time.time_ns() // 1_000_000)
        key, partition, moved_key = ready.subject, BY_KEY, ""
        if self._is_routed:
            route = self.routing.route(ready, self.partitions)
            partition = BY_KEY if route.partition is None else route.partition
            if route.key != key:
                key = moved_key = route.key
        head: list[Any] = headers(ready.source, id, ready.name, now, ready.subject, moved_key)
        span = None
        if self._spans:
            span = self._spans.begin(ready, id)
            head += tracing.carried(span)
            on_report = partial(traces.end, span, on_report)
        while True:
            if reports.first_error or self._closed:
                if span:
                    traces.unsent(span)
                self._refuse()
            try:
                self._producer.produce(
                    self.topic, ready.value, key, partition, headers=head, on_delivery=on_report
                )
                break
            except BufferError:
                self.poll(QUEUE_POLL_S)
            except KafkaException as error:
                reports.first_error = error.args[0]
                self.poll(0)  # where the client has ended, this brings why
        reports.sent += 1
        reports.handed_over = False
        if not reports.sent % POLL_EVERY:
            self.poll(0)

    def poll(self, timeout_s: float) -> None:
        """Serve the delivery reports that are there or come within the time; returns after the first ones."""
        self._reports.serve(self._producer.poll, timeout_s)

    def flush(self, timeout_s: float | None = None) -> Tally:
        """Wait until all is reported, at most so long (default: until all has timed out); the tally then."""
        self._refuse_fork()
        whole = self.timeout_s + REPORT_DELAY_S
        self._reports.serve(self._producer.flush, whole if timeout_s is None else seconds(timeout_s))
        self._reports.handed_over = True
        return self.tally

    @property
    def tally(self) -> Tally:
        """What became of all that was sent, as far as it is reported."""
        return self._reports.tally

    def check(self) -> None:
        """Raises BrokerUnavailable, TopicUnfit or Defect unless all that was sent is acknowledged."""
        self._refuse_fork()
        self._refuse_after_error()
        if not self.tally.is_complete:
            again = "flush again: the client goes on trying until message.timeout.ms"
            raise self._trouble.unanswered("no report yet", account(self.tally), again)

    def _refuse(self) -> None:
        self._refuse_after_error()
        raise ValueError("the Publisher is closed; make a new one")

    def _refuse_fork(self) -> None:
        if os.getpid() != self._process:
            raise Forked(
                f"the Publisher of {self.topic} was made by process {self._process}, from which this one was "
                "forked off later; nothing was published here",
                remedy="make a Publisher in each process after its fork (gunicorn: in post_fork)",
            )

    def _refuse_after_error(self) -> None:
        if self._reports.first_error is not None:
            raise self._fault(self._reports.first_error)

    def _count_partitions(self, waited_s: float, patience_s: float) -> int:
        # Short waits at first, to hear early of a hopeless case; longer ones for a slow broker.
        timeout_s = min(max(METADATA_TIMEOUT_S, waited_s), max(QUEUE_POLL_S, patience_s - waited_s))
        found = self._producer.list_topics(self.topic, timeout=timeout_s).topics[self.topic]
        if found.error is not None:
            raise KafkaException(found.error)
        return len(found.partitions)

    def _fault(self, error: KafkaError) -> LedgerError:
        self._reports.serve(self._producer.flush, SETTLE_S)
        self._producer.purge()
        self._reports.serve(self._producer.flush, REPORT_DELAY_S)
        error, told = self._reports.first_error or error, account(self.tally)
        if error.code() in TOPIC_ERRORS or error.code() in RIGHTS:
            return topic_unfit(self.topic, error, self._topics(), told)
        if error.code() in VERDICTS:
            return self._trouble.refused(error, told)
        return self._trouble.unanswered(error.str(), told, NEW_ONE)

    def _topics(self) -> list[str]:
        try:
            return list(self._producer.list_topics(timeout=METADATA_TIMEOUT_S).topics)
        except (KafkaException, SystemError):
            return []


def _forgotten(reports: Reports, producer: Producer, timeout_s: float, topic: str) -> None:
    """The end of a publisher that nobody closed. `Finalize` does nothing in a process forked off."""
    if reports.handed_over:
        return
    warnings.warn(
        f"a Publisher of {topic} wasn't closed: use it in a `with` block, or close it",
        ResourceWarning,
        stacklevel=2,
    )
    reports.serve(producer.flush, timeout_s)
    if not reports.tally.is_complete:  # nobody is there to catch it: the interpreter shows it on stderr
        raise BrokerUnavailable(
            f"a Publisher of {topic} wasn't closed, and not all is acknowledged: {account(reports.tally)}",
            remedy="send the same again with the same ids, by a Publisher in a `with` block",
        )


@lru_cache(maxsize=1)
def _timestamp(milliseconds: int) -> str:
    now = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
