"""The consumer client: polls, decodes, and queues per lane; assigns exactly where the ledger says.

Callbacks never raise: what goes wrong in one is kept and raised from `poll`, before any record read
after it is used. (An exception out of a rebalance callback is swallowed by the client, which then assigns
by its own reset policy; one out of any callback destroys the records being handed over.)
"""

import time
from collections.abc import Callable, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from structlog.typing import FilteringBoundLogger

from consumer.announcements import said
from consumer.clients import FORBIDDEN, UNREACHABLE, fault, open_consumer
from consumer.fairness import Fairness
from consumer.group import REFUSALS, gave_up, refusal
from consumer.lane_queue import BATCH_BYTES_MAX, PORTION, LaneQueue
from consumer.raw_headers import RawReader
from consumer.records import available, delivery, offset_of
from ledger import failpoints
from ledger.domain.delivery import Batch, Lane
from ledger.errors import BrokerUnavailable, Fenced
from ledger.store.tables.lane import Claim

READ_AHEAD = 3
"""Portions, or larger batches, that are in hand: one is decoded while another is written.

So of four lanes each is found with a batch of nearly full size (of two: two thirds).
"""
IN_HAND_BYTES_MAX = READ_AHEAD * BATCH_BYTES_MAX
HAND_OVER_INTERVAL_S = 0.5
"""How often Kafka is told how far the lanes are; each time takes a third of what a small batch does."""
DECODED_AT_ONCE = 32
"""Records: a third of a millisecond."""
ClaimLanes = Callable[[list[Lane]], Mapping[Lane, Claim]]


class Source:
    """A member of the group, and the queues of the lanes that it was assigned.

    `claim` is called with the lanes of each assignment and says where to read each from. A batch has at most
    `batch_size_max` records.
    """

    def __init__(
        self,
        kafka: Mapping[str, str],
        topics: Sequence[str],
        group: str,
        claim: ClaimLanes,
        log: FilteringBoundLogger,
        batch_size_max: int,
    ) -> None:
        self.lanes: dict[Lane, LaneQueue[Message]] = {}
        self._in_hand_max = READ_AHEAD * max(batch_size_max, PORTION)
        self._fairness = Fairness(self.lanes, batch_size_max)
        self._held: set[Lane] = set()
        """Lanes that aren't read on for now."""
        self.suspicious = False
        """Something happened that a look at the topics may explain."""
        self.unclaimed: set[Lane] = set()
        """Lanes that were assigned, but can't be read yet: nobody knows where they begin."""
        self._topics = topics
        self._claim = claim
        self._log = log
        self._kafka = kafka
        self._group = group
        self._raw = RawReader(kafka)
        self._failure: BaseException | None = None
        self._refusal: KafkaError | None = None
        self.reachable = True
        """Whether some broker answers, as far as the client has noticed."""
        self._applied: dict[Lane, int] = {}
        """How far the lanes are applied of which Kafka wasn't told yet."""
        self._hand_over_due = 0.0
        incremental = kafka.get("group.protocol") == "consumer" or "cooperative" in kafka.get(
            "partition.assignment.strategy", "cooperative-sticky"
        )
        self._consumer = open_consumer(kafka, group=group, on_error=self._on_error)
        self._assign = self._consumer.incremental_assign if incremental else self._consumer.assign
        self._consumer.subscribe(
            [*topics], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def poll(self, timeout_s: float) -> None:
        """Queue what records are there, as far as there is room; wait for a first one if there is none.

        Where there is no room it is one at a time, so that what happens to the lanes is still heard of.
        Raises what went wrong in a callback, TopicReplaced, TopicUnfit; Fenced or BrokerUnavailable where the
        lanes are in doubt.
        """
        self._hold(self._fairness.full(self._held))
        read_on = [queue for lane, queue in self.lanes.items() if lane not in self._held]
        room = self._in_hand_max - sum(map(len, read_on))
        if sum(queue.bytes for queue in read_on) > IN_HAND_BYTES_MAX:
            room = 1
        messages = available(self._consumer, max(room, 1), 0 if self.queued else timeout_s)
        if self._failure:
            raise self._failure
        if self._refusal:
            raise refusal(self._kafka, self._group, self._refusal)
        if self._applied and time.monotonic() >= self._hand_over_due:
            self._hand_over()
        if messages:
            failpoints.hit("decode")
        last: dict[LaneQueue[Message], Message] = {}
        for message in messages:
            queue = self.lanes.get((message.topic(), message.partition()))  # type: ignore[call-overload]
            if queue is None or message.error():
                self._take_event(message, queue)
            elif queue.offer(offset_of(message), message):
                last[queue] = message
        for queue, message in last.items():
            queue.read_under(-1 if (epoch := message.leader_epoch()) is None else epoch)
        for queue in self.lanes.values():
            if queue.seek_to is not None:
                self._seek(queue)

    @property
    def member(self) -> str:
        """Who we are in the group; "" if nobody has said so yet."""
        return self._consumer.memberid() or ""

    @property
    def queued(self) -> int:
        """How many records and gaps are in all queues."""
        return sum(map(len, self.lanes.values()))

    def lags(self) -> dict[Lane, int]:
        """How many offsets each lane has to go to the log's end, where the client has heard of one."""
        ends = {
            lane: self._consumer.get_watermark_offsets(TopicPartition(*lane), cached=True)
            for lane in self.lanes
        }
        return {
            lane: max(end[1] - self.lanes[lane].next_offset, 0)
            for lane, end in ends.items()
            if end and end[1] >= 0
        }

    def next_batch(self) -> tuple[LaneQueue[Message], Batch] | None:
        """The next batch, of the lane whose turn it is; it stays the next until it is `applied`.

        Raises TopicReplaced where the log isn't the one that was applied up to here.
        """
        if not (turn := self._fairness.next_turn()):
            return None
        queue, size_max = turn
        batch = queue.take(size_max)
        return (queue, batch) if batch else None

    def applied(self, batch: Batch) -> None:
        """The batch is applied. Kafka is told so some time soon, for lag tools; that may fail."""
        self._fairness.had(batch.lane, len(batch.deliveries))
        self.lanes[batch.lane].advance(batch.next_offset)
        self._applied[batch.lane] = batch.next_offset

    def look_again(self) -> None:
        """Have the lanes that are idle read their last applied record again: is it still there?

        A busy lane shows by its records that no other leader took over.
        """
        for queue in self.lanes.values():
            if queue.mark and queue.proven and not len(queue) and queue.seek_to is None:
                queue.look_again()
                self._seek(queue)  # at once: a record that came in between would show a hole

    def decode(self) -> bool:
        """Decode a few of the queued records, and say whether there were any: work for a time of waiting."""
        return any(queue.decode(DECODED_AT_ONCE) for queue in self.lanes.values())

    def _take_event(self, message: Message, queue: LaneQueue[Message] | None) -> None:
        error = message.error()
        if error and error.code() != KafkaError._PARTITION_EOF:
            self._handle(error, message)
        elif error and queue is not None:
            self._heard()
            end = offset_of(message)
            if end < queue.next_offset and queue.seek_to is None:
                # Not believed at once: a new leader may not know yet how far it may hand out records.
                raise BrokerUnavailable(
                    f"{queue.lane} is applied up to {queue.next_offset} and ends at {end}"
                )
            queue.reached_end(end)
        # else of a lane that was revoked while the record was on its way

    def _seek(self, queue: LaneQueue[Message]) -> None:
        assert queue.seek_to is not None
        self._hold(self._held - {queue.lane})
        self._log.debug("seek back to a hole", lane=str(queue.lane), offset=queue.seek_to)
        try:
            self._consumer.seek(TopicPartition(*queue.lane, queue.seek_to))
        except KafkaException as error:
            raise fault(error.args[0], f"seek in {queue.lane}") from error
        queue.sought()

    def _handle(self, error: KafkaError, message: Message) -> None:
        topic = message.topic() or ", ".join(self._topics)
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION):
            # Records were deleted, or it is another topic: the next session sees which.
            lane = Lane(topic, message.partition() or 0)
            raise BrokerUnavailable(f"Kafka doesn't have the next record of {lane}: {error.str()}")
        if error.code() == KafkaError._MAX_POLL_EXCEEDED:
            # We have left the group, and may never be told which lanes we lost.
            raise Fenced(f"a batch took too long, so others have the lanes now: {error.str()}")
        if error.code() in FORBIDDEN:
            raise fault(error, f"read {topic}")
        self._on_error(error)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._failure = gave_up(self._kafka, error)
        elif error.code() in REFUSALS:
            self._refusal = error
        elif error.code() in FORBIDDEN:
            self._failure = fault(error, f"read {', '.join(self._topics)}")
        elif error.code() in UNREACHABLE:
            if self.reachable and error.code() == KafkaError._ALL_BROKERS_DOWN:
                self.reachable = False
                self._log.warning("no broker answers; waiting for one", cause=error.str())
        else:
            self.suspicious = True
            self._log.warning("the broker reports", error=error.name(), detail=error.str())

    def _heard(self) -> None:
        if not self.reachable:
            self.reachable = True
            self._log.info("a broker answers again")

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        starts = []  # where the claim fails it is assigned nothing: else it would choose offsets of its own
        try:
            claims = self._claim(_lanes(partitions))
            self.unclaimed |= {*_lanes(partitions)} - claims.keys()
            for lane, claim in claims.items():
                self.lanes[lane] = LaneQueue(lane, claim, delivery, self._raw.complete)
            starts = [TopicPartition(*lane, self.lanes[lane].start) for lane in claims]
        except BaseException as error:  # noqa: BLE001 (raised again by `poll`)
            self._failure = error
        try:
            self._assign(starts)
        except KafkaException as error:
            self._failure = self._failure or fault(error.args[0], "take over lanes")
        self._log.info("assigned", lanes=said(self.lanes), reachable=self.reachable)

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._hand_over()
        self._drop(partitions)
        self._log.info("revoked", lanes=said(_lanes(partitions)))

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._drop(partitions)
        self._log.warning("lost", lanes=said(_lanes(partitions)))

    def _hold(self, lanes: set[Lane]) -> None:
        """Read none of these on, and all others. Kafka's client reads anew what it had fetched of them."""
        try:
            if begun := lanes - self._held:
                self._consumer.pause([TopicPartition(*lane) for lane in begun])
            if ended := self._held - lanes:
                self._consumer.resume([TopicPartition(*lane) for lane in ended])
        except KafkaException as error:
            self._failure = self._failure or fault(error.args[0], f"hold {said(lanes)}")
        self._held = lanes

    def _drop(self, partitions: list[TopicPartition]) -> None:
        # What is held stays so in the client, even if the lane comes back.
        self._hold(self._held - {*_lanes(partitions)})
        for lane in _lanes(partitions):
            self.unclaimed.discard(lane)
            self._applied.pop(lane, None)
            self.lanes.pop(lane, None)

    def _hand_over(self) -> None:
        self._hand_over_due = time.monotonic() + HAND_OVER_INTERVAL_S
        offsets = [TopicPartition(*lane, offset) for lane, offset in self._applied.items()]
        self._applied = {}
        if not offsets:
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self._log.debug("group offset not advanced", error=str(error))

    def close(self) -> None:
        """Leave the group."""
        self._hand_over()
        self._raw.close()
        self._consumer.close()


def _lanes(partitions: list[TopicPartition]) -> list[Lane]:
    return [Lane(p.topic, p.partition) for p in partitions]
