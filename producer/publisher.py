"""The producer client: every command that is sent ends as acknowledged, failed or unknown, never in silence.

Idempotent and `acks=all`; no topic is made by publishing to it. What isn't acknowledged may be in the topic
all the same (a lost answer): sending it again with the same id is always safe, because the ledger applies an
id once. After the first command without an acknowledgement nothing more is sent: no lane gets a hole.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from types import TracebackType
from typing import Any, NamedTuple, Self

import uuid_utils
from confluent_kafka import KafkaError, KafkaException, Message

from ledger.domain.commands import KEY_PART_MAX, AnyCommand, MessageKey, is_key_part
from ledger.domain.envelope import headers
from ledger.errors import BadSettings, LedgerError
from producer import properties
from producer.quick import Ready
from producer.trouble import TOPIC_ERRORS, VERDICTS, Trouble, topic_unfit

QUEUE_POLL_S = 0.1
"""How long to serve reports before trying again to get a command into a full queue."""
POLL_EVERY = 100
"""After so many commands without a receipt the reports that are there are served; a millisecond's worth."""
METADATA_TIMEOUT_S = 1.0
TOPIC_GRACE_S = 1.0
REPORT_DELAY_S = 1.0
"""librdkafka looks for timed-out messages once a second, so a report may come that much late."""
TIMEOUT_DEFAULT_S = 10.0

_OnDelivery = Callable[[KafkaError | None, Message], None]


@dataclass(slots=True)
class Receipt:
    """A command that was sent. `partition` and `offset` are set once the broker has acknowledged it."""

    key: MessageKey
    partition: int | None = None
    offset: int | None = None


class Tally(NamedTuple):
    """What became of all that a publisher sent so far.

    `failed`: refused, not in the topic. `unknown`: no answer yet, or none in time: possibly in the topic.
    """

    acknowledged: int
    failed: int
    unknown: int

    @property
    def is_complete(self) -> bool:
        """Whether all is acknowledged."""
        return not self.failed and not self.unknown


class Publisher:
    """Sends commands to one topic, from one thread. Use it in a `with` block.

    Leaving the block waits for the reports of what was sent and raises where not all is acknowledged, unless
    `flush` has handed its tally to the caller since the last `send`. Leaving it by an exception drops what is
    still queued. A publisher with one command that isn't acknowledged sends no more: go on with a new one.
    `kafka` holds librdkafka's properties; `source` is the default of `send`.

    Raises BadSettings at once where a property is unknown, unusable or would break the promise. Connects at
    the first `send` or `connect`.
    """

    def __init__(self, kafka: Mapping[str, str], topic: str, source: str = "") -> None:
        if source and not is_key_part(source):
            raise BadSettings(f"the source must be 1 to {KEY_PART_MAX} visible ASCII characters")
        settings = properties.complete(kafka)
        self._trouble = Trouble(settings["bootstrap.servers"])
        self._producer = properties.make_producer(settings, self._trouble.note)
        self.topic = topic
        self.source = source
        self.partitions = 0
        """Of the topic; 0 until connected."""
        self.timeout_s = int(settings[properties.TIMEOUT_MS]) / 1000 or TIMEOUT_DEFAULT_S
        """How long a command may wait for its acknowledgement, and a connection for its broker."""
        self._first_error: KafkaError | None = None
        self._sent = self._acknowledged = self._failed = 0
        self._handed_over = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        waits = error is None and not self._handed_over
        if waits:
            self.flush()
        self._producer.purge()  # or the rest would go out behind the caller's back
        self._producer.flush(REPORT_DELAY_S)
        if waits:
            self.check()

    def connect(self) -> None:
        """Find the topic; does nothing if that is done.

        Raises BrokerUnavailable after `timeout_s`, TopicUnfit where the topic doesn't exist, BadSettings
        where the broker refuses the credentials. Nothing was sent then.
        """
        started = time.monotonic()
        while not self.partitions:
            try:
                self.partitions = self._count_partitions(time.monotonic() - started)
            except KafkaException as exception:
                self._producer.poll(QUEUE_POLL_S)  # brings the cause
                waited_s = time.monotonic() - started
                # A new topic takes a moment to be known to every broker.
                if exception.args[0].code() in TOPIC_ERRORS and waited_s >= TOPIC_GRACE_S:
                    raise self._fault(exception.args[0]) from None
                if waited_s >= self.timeout_s or self._trouble.is_hopeless:
                    raise self._trouble.unreachable(waited_s) from None

    def send(self, command: AnyCommand, *, id: str | None = None, source: str | None = None) -> Receipt:
        """Queue the command; waits while the queue is full. Without an `id` it gets a UUIDv7.

        Raises what `connect` and `check` raise, and ValueError where `id` or `source` can't be one.
        """
        key = _message_key(self.source if source is None else source, id)
        receipt = Receipt(key)
        self.post(Ready.of(*key, command), key.id, partial(self._report_receipt, receipt))
        self._producer.poll(0)
        return receipt

    def post(self, ready: Ready, id: str, on_report: _OnDelivery | None = None) -> None:
        """Queue the command under this id as `send` does, without a receipt: the tally accounts for it.

        Raises what `connect` and `check` raise.
        """
        if not self.partitions:
            self.connect()
        key, on_report = ready.record_key, on_report or self._report
        now = _timestamp(time.time_ns() // 1_000_000)
        head: list[Any] = headers(ready.source, id, ready.name, now, key)
        while True:
            self._refuse_after_error()
            try:
                self._producer.produce(self.topic, ready.value, key, headers=head, on_delivery=on_report)
                break
            except BufferError:
                self._producer.poll(QUEUE_POLL_S)
            except KafkaException as error:
                raise self._fault(error.args[0]) from None
        self._sent += 1
        self._handed_over = False
        if not self._sent % POLL_EVERY:
            self._producer.poll(0)

    def poll(self, timeout_s: float) -> None:
        """Serve the delivery reports that are there or come within the time; returns after the first ones."""
        self._producer.poll(timeout_s)

    def flush(self, timeout_s: float | None = None) -> Tally:
        """Wait until all is reported, at most so long (default: until all has timed out); the tally then."""
        self._producer.flush(self.timeout_s + REPORT_DELAY_S if timeout_s is None else timeout_s)
        self._handed_over = True
        return self.tally

    @property
    def tally(self) -> Tally:
        """What became of all that was sent, as far as it is reported."""
        return Tally(self._acknowledged, self._failed, self._sent - self._acknowledged - self._failed)

    def check(self) -> None:
        """Raises BrokerUnavailable, TopicUnfit or Defect unless all that was sent is acknowledged."""
        self._refuse_after_error()
        if not self.tally.is_complete:
            raise self._trouble.unanswered("no report yet", self._account())

    def _refuse_after_error(self) -> None:
        if self._first_error is not None:
            raise self._fault(self._first_error)

    # A callback inside poll and flush: an exception would lose the reports behind it, so it never raises.
    def _report(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self._acknowledged += 1
            return
        self._first_error = self._first_error or error
        if error.code() in VERDICTS:
            self._failed += 1

    def _report_receipt(self, receipt: Receipt, error: KafkaError | None, message: Message) -> None:
        if error is None:
            receipt.partition, receipt.offset = message.partition(), message.offset()
        self._report(error, message)

    def _count_partitions(self, waited_s: float) -> int:
        # Short waits at first, to hear early of a hopeless case; longer ones for a slow broker.
        timeout_s = min(max(METADATA_TIMEOUT_S, waited_s), max(QUEUE_POLL_S, self.timeout_s - waited_s))
        found = self._producer.list_topics(self.topic, timeout=timeout_s).topics[self.topic]
        if found.error is not None:
            raise KafkaException(found.error)
        return len(found.partitions)

    def _fault(self, error: KafkaError) -> LedgerError:
        if error.code() in TOPIC_ERRORS:
            return topic_unfit(self.topic, error, self._topics(), self._account())
        if error.code() in VERDICTS:
            return self._trouble.refused(error, self._account())
        return self._trouble.unanswered(error.str(), self._account())

    def _topics(self) -> list[str]:
        try:
            return list(self._producer.list_topics(timeout=METADATA_TIMEOUT_S).topics)
        except KafkaException:
            return []

    def _account(self) -> str:
        if not self._sent:
            return "nothing was published"
        acknowledged, failed, unknown = self.tally
        counts = f"{acknowledged} acknowledged, {failed} refused, {unknown} in the topic or not"
        return f"of {self._sent} sent: {counts}"


def _message_key(source: str, id: str | None) -> MessageKey:
    key = MessageKey(source, str(uuid_utils.uuid7()) if id is None else id)
    for name, part in key._asdict().items():
        if not is_key_part(part):
            raise ValueError(f"{name} must be 1 to {KEY_PART_MAX} visible ASCII characters")
    return key


@lru_cache(maxsize=1)
def _timestamp(milliseconds: int) -> str:
    now = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
