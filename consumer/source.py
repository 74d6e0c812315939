"""The consumer client: polls, decodes, and queues per lane; assigns exactly where the ledger says.

Callbacks never raise: what goes wrong in one is kept and raised from `poll`, before any record read
after it is used. (An exception out of a rebalance callback is swallowed by the client, which then assigns
by its own reset policy; one out of any callback destroys the records being handed over.)
"""

import time
from collections.abc import Callable, Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from structlog.typing import FilteringBoundLogger

from consumer.lane_queue import LaneQueue
from consumer.topic import FORBIDDEN, UNREACHABLE, available, delivery, fault, offset_of, open_consumer
from ledger import failpoints
from ledger.domain.delivery import Lane
from ledger.errors import BrokerUnavailable, Fenced, Stop, TopicReplaced
from ledger.store.lane import Claim

HAND_OVER_INTERVAL_S = 0.5
"""How often Kafka is told how far the lanes are; each time takes a third of what a small batch does."""
DECODED_AT_ONCE = 32
"""Records: a third of a millisecond."""
ClaimLanes = Callable[[list[int]], Mapping[int, Claim]]


class Source:
    """A member of the group, and the queues of the lanes that it was assigned.

    `claim` is called with the partitions of each assignment and says where to read each from.
    """

    def __init__(
        self, kafka: Mapping[str, str], topic: str, group: str, claim: ClaimLanes, log: FilteringBoundLogger
    ) -> None:
        self.lanes: dict[int, LaneQueue[Message]] = {}
        self.suspicious = False
        """Something happened that a look at the topic may explain."""
        self._topic = topic
        self._claim = claim
        self._log = log
        self._failure: BaseException | None = None
        self._reachable = True
        self._leader_epochs: dict[int, int] = {}
        self._applied: dict[int, TopicPartition] = {}
        """Of each lane that Kafka wasn't told of yet."""
        self._hand_over_due = 0.0
        incremental = kafka.get("group.protocol") == "consumer" or "cooperative" in kafka.get(
            "partition.assignment.strategy", "cooperative-sticky"
        )
        self._consumer = open_consumer(kafka, group=group, on_error=self._on_error)
        self._assign = self._consumer.incremental_assign if incremental else self._consumer.assign
        self._consumer.subscribe(
            [topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def poll(self, size_max: int, timeout_s: float) -> None:
        """Queue whatever records are there, up to `size_max` in all; wait for a first one if there is none.

        Raises what went wrong in a callback, TopicReplaced, TopicUnfit; Fenced or BrokerUnavailable where the
        lanes are in doubt.
        """
        queued = self.queued
        messages = available(self._consumer, max(size_max - queued, 1), 0 if queued else timeout_s)
        if self._failure:
            raise self._failure
        if self._applied and time.monotonic() >= self._hand_over_due:
            self._hand_over()
        if messages:
            failpoints.hit("decode")
        last: dict[LaneQueue[Message], Message] = {}
        for message in messages:
            queue = self.lanes.get(message.partition())  # type: ignore[arg-type]
            if queue is None or message.error():
                self._take_event(message, queue)
            elif queue.offer(offset_of(message), message):
                last[queue] = message
        for queue, message in last.items():
            self._check_leader(queue.lane, message.leader_epoch())
        for partition, queue in self.lanes.items():
            if queue.seek_to is not None:
                self._seek(partition, queue)

    @property
    def queued(self) -> int:
        """How many records and gaps are in all queues."""
        return sum(map(len, self.lanes.values()))

    def next_lane(self) -> LaneQueue[Message] | None:
        """The queue with something in it that has waited longest for its turn; now it has had it."""
        for partition, queue in self.lanes.items():
            if len(queue):
                self.lanes[partition] = self.lanes.pop(partition)
                return queue
        return None

    def decode(self) -> bool:
        """Decode a few of the queued records, if any is left: for who has time, as while he waits."""
        return any(queue.decode(DECODED_AT_ONCE) for queue in self.lanes.values())

    def _take_event(self, message: Message, queue: LaneQueue[Message] | None) -> None:
        error = message.error()
        if error and error.code() != KafkaError._PARTITION_EOF:
            self._handle(error, message)
        elif error and queue is not None:
            self._heard()
            queue.reached_end(offset_of(message))
        # else of a lane that was revoked while the record was on its way

    def _seek(self, partition: int, queue: LaneQueue[Message]) -> None:
        assert queue.seek_to is not None
        self._log.debug("seek back to a hole", partition=partition, offset=queue.seek_to)
        try:
            self._consumer.seek(TopicPartition(self._topic, partition, queue.seek_to))
        except KafkaException as error:
            raise fault(error.args[0], f"seek in {queue.lane}") from error
        queue.sought()

    def _check_leader(self, lane: Lane, epoch: int | None) -> None:
        """A leader's epoch only rises; where it falls, this is another log than the one read before."""
        if epoch is None:
            return
        if epoch < self._leader_epochs.get(lane.partition, -1):
            raise TopicReplaced(
                f"the leader epoch of {lane} fell to {epoch}: its log isn't the one read before",
                remedy="stockledger doctor",
            )
        self._leader_epochs[lane.partition] = epoch

    def _handle(self, error: KafkaError, message: Message) -> None:
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            # Records were deleted, or it is another topic: the next session sees which.
            lane = Lane(self._topic, message.partition() or 0)
            raise BrokerUnavailable(f"Kafka doesn't have the next record of {lane}: {error.str()}")
        if error.code() == KafkaError._MAX_POLL_EXCEEDED:
            # We have left the group, and may never be told which lanes we lost.
            raise Fenced(f"a batch took too long, so others have the lanes now: {error.str()}")
        self._on_error(error)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._failure = Stop(f"the Kafka client gave up: {error.str()}", remedy="stockledger doctor")
        elif error.code() in FORBIDDEN:
            self._failure = fault(error, f"read {self._topic}")
        elif error.code() in UNREACHABLE:
            if self._reachable and error.code() == KafkaError._ALL_BROKERS_DOWN:
                self._reachable = False
                self._log.warning("no broker answers; waiting for one", cause=error.str())
        else:
            self.suspicious = True
            self._log.warning("the broker reports", error=error.name(), detail=error.str())

    def _heard(self) -> None:
        if not self._reachable:
            self._reachable = True
            self._log.info("a broker answers again")

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        starts = []  # where the claim fails it is assigned nothing: else it would choose offsets of its own
        try:
            claims = self._claim([p.partition for p in partitions])
            for number, claim in claims.items():
                self.lanes[number] = LaneQueue(Lane(self._topic, number), claim, delivery)
            starts = [TopicPartition(self._topic, n, claim.next_offset) for n, claim in claims.items()]
        except BaseException as error:  # noqa: BLE001 (raised again by `poll`)
            self._failure = error
        try:
            self._assign(starts)
        except KafkaException as error:
            self._failure = self._failure or fault(error.args[0], "take over lanes")
        self._log.info("assigned", partitions=sorted(self.lanes), reachable=self._reachable)

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._hand_over()
        self._drop(partitions)
        self._log.info("revoked", partitions=sorted(p.partition for p in partitions))

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._drop(partitions)
        self._log.warning("lost", partitions=sorted(p.partition for p in partitions))

    def _drop(self, partitions: list[TopicPartition]) -> None:
        for p in partitions:
            self._applied.pop(p.partition, None)
            self.lanes.pop(p.partition, None)

    def hand_over(self, lane: Lane, next_offset: int) -> None:
        """Tell Kafka how far the lane is applied: for lag tools, some time soon, free to fail."""
        self._applied[lane.partition] = TopicPartition(lane.topic, lane.partition, next_offset)

    def _hand_over(self) -> None:
        self._hand_over_due = time.monotonic() + HAND_OVER_INTERVAL_S
        offsets, self._applied = [*self._applied.values()], {}
        if not offsets:
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self._log.debug("group offset not advanced", error=str(error))

    def close(self) -> None:
        """Leave the group."""
        self._hand_over()
        self._consumer.close()
