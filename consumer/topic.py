"""What Kafka says about a topic: its id, its partitions, how far its log goes, its raw records.

Faults become the ledger's: BrokerUnavailable where nobody answers in time, TopicUnfit where the topic
can't be used. Nothing here joins a group or moves an offset.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import TypeVar, cast

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec

from ledger.domain import envelope
from ledger.domain.delivery import Bad, Delivery, Headers, Lane, pack
from ledger.errors import BadSettings, BrokerUnavailable, LedgerError, TopicReplaced, TopicUnfit

REQUEST_TIMEOUT_S = 4.0  # less than the 5 s in which a worker must end
PATIENT_TIMEOUT_S = 10.0
READ_SIZE = 1000

Settings = Mapping[str, str]
T = TypeVar("T")

UNREACHABLE = {
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._RESOLVE,
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
}
RETRIABLE = {  # the protocol's own word for errors that pass: elections, starts, loading
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.NOT_CONTROLLER,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.UNKNOWN_LEADER_EPOCH,
}
FORBIDDEN = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}


@dataclass(frozen=True)
class TopicFacts:
    """A topic as the broker describes it. Empty or -1: the broker doesn't say."""

    name: str
    topic_id: str
    cluster_id: str
    partitions: int
    replication: int
    cleanup_policy: str = ""
    retention_ms: int = -1
    min_insync_replicas: int = -1


def fault(error: KafkaError, what: str) -> LedgerError:
    """The ledger's fault for a broker's or the client's error; `what` was attempted."""
    code = error.code()
    if code in UNREACHABLE:
        return BrokerUnavailable(f"{what}: no broker answers ({error.str()})", remedy="stockledger doctor")
    if code in RETRIABLE:
        return BrokerUnavailable(f"{what}: not yet ({error.str()})", remedy="stockledger doctor")
    if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
        return TopicUnfit(
            f"{what}: the topic doesn't exist", remedy="stockledger migrate --topic NAME --partitions N"
        )
    if code in FORBIDDEN:
        return TopicUnfit(f"{what}: not allowed ({error.str()})", remedy="grant this user the missing ACL")
    if code == KafkaError._INVALID_ARG:
        return BadSettings(f"{what}: {error.str()}", remedy="stockledger config")
    return TopicUnfit(f"{what}: {error.name()}: {error.str()}", remedy="stockledger doctor")


ELSEWHERE = (
    "publish to a topic of another name and run with --topic: what is applied already stays applied once"
)


def require_same_topic(name: str, begun_with: str, topic_id: str) -> None:
    """Raise TopicReplaced unless the topic is the one that its lanes were begun with."""
    if topic_id != begun_with:
        raise TopicReplaced(
            f"the topic {name} was deleted and made again: its id was {begun_with}, now it is {topic_id}",
            remedy=ELSEWHERE,
        )


def admin(kafka: Settings) -> AdminClient:
    """An admin client that logs nothing by itself. Raises BadSettings for properties it doesn't know."""
    try:
        return AdminClient({"log_level": "0", **kafka})
    except KafkaException as error:
        raise fault(error.args[0], "the Kafka settings") from error


def inspect(kafka: Settings, topic: str, timeout_s: float = REQUEST_TIMEOUT_S) -> TopicFacts:
    """Describe the topic. Raises BrokerUnavailable, or TopicUnfit (it doesn't exist, no right to see it)."""
    client = admin(kafka)
    cluster = answer(client.describe_cluster(request_timeout=timeout_s), "describe the cluster", timeout_s)
    described = answer(
        client.describe_topics(TopicCollection([topic]), request_timeout=timeout_s)[topic],
        f"describe the topic {topic}",
        timeout_s,
    )
    config = _config(client, topic, timeout_s)
    return TopicFacts(
        name=topic,
        topic_id=str(described.topic_id),
        cluster_id=cluster.cluster_id,
        partitions=len(described.partitions),
        replication=min((len(p.replicas) for p in described.partitions), default=0),
        cleanup_policy=config.get("cleanup.policy", ""),
        retention_ms=int(config.get("retention.ms", -1)),
        min_insync_replicas=int(config.get("min.insync.replicas", -1)),
    )


def _config(client: AdminClient, topic: str, timeout_s: float) -> dict[str, str]:
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    try:
        entries = client.describe_configs([resource], request_timeout=timeout_s)[resource].result(timeout_s)
    except (KafkaException, FutureTimeout) as error:
        forget_frames(error)
        return {}  # an ACL may hide it, and the embedded broker has none
    return {name: entry.value for name, entry in entries.items() if entry.value is not None}


def create(kafka: Settings, topic: str, partitions: int, replication: int = -1) -> None:
    """Create the topic; -1 takes the broker's default replication. One that exists is left alone."""
    client = admin(kafka)  # named: its requests die with it
    made = client.create_topics([NewTopic(topic, partitions, replication)], request_timeout=PATIENT_TIMEOUT_S)
    try:
        made[topic].result(PATIENT_TIMEOUT_S + 1)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise fault(error.args[0], f"create the topic {topic}") from error
    except FutureTimeout as error:
        raise BrokerUnavailable(
            f"create the topic {topic}: no answer", remedy="stockledger doctor"
        ) from error


def watermarks(kafka: Settings, topic: str, partitions: int) -> dict[int, tuple[int, int]]:
    """By partition: the first offset that is still there, and the log end offset (of committed records)."""
    client = admin(kafka)

    def ask(spec: OffsetSpec) -> dict[int, int]:
        request = {TopicPartition(topic, p): spec for p in range(partitions)}
        futures = client.list_offsets(
            request, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=REQUEST_TIMEOUT_S
        )
        what = f"ask for the offsets of {topic}"
        return {tp.partition: answer(f, what, REQUEST_TIMEOUT_S).offset for tp, f in futures.items()}

    first, end = ask(OffsetSpec.earliest()), ask(OffsetSpec.latest())
    return {p: (first[p], end[p]) for p in range(partitions)}


def answer(future: "Future[T]", what: str, timeout_s: float) -> T:
    """The future's result, or the ledger's fault."""
    try:
        return future.result(timeout_s + 1)
    except KafkaException as error:
        raise fault(error.args[0], what) from forget_frames(error)
    except FutureTimeout as error:
        raise BrokerUnavailable(
            f"{what}: no answer in {timeout_s:.0f} s", remedy="stockledger doctor"
        ) from error


def forget_frames(error: Exception) -> Exception:
    """Let go of what the error passed through: the client, above all, with its threads and connections.

    The binding ties a failed request's error and its future into a cycle; a worker looks for those rarely.
    """
    return error.with_traceback(None)


def deliveries(kafka: Settings, lane: Lane, first_offset: int, next_offset: int) -> Iterator[Delivery]:
    """The lane's committed records in [`first_offset`, `next_offset`), as far as Kafka still has them.

    Raises BrokerUnavailable or TopicUnfit.
    """
    consumer = open_consumer(kafka, group="stockledger-raw-reads")
    try:
        position = max(first_offset, _kept_from(consumer, lane))
        consumer.assign([TopicPartition(lane.topic, lane.partition, position)])
        while position < next_offset:
            messages = available(consumer, READ_SIZE, PATIENT_TIMEOUT_S)
            if not messages:
                raise BrokerUnavailable(f"read {lane}: no answer", remedy="stockledger doctor")
            for message in messages:
                error = message.error()
                if error and error.code() != KafkaError._PARTITION_EOF:
                    raise fault(error, f"read {lane}")
                position = offset_of(message) + (0 if error else 1)
                if error and position < next_offset:
                    return  # the log ends before the range does
                if not error and position <= next_offset:
                    yield delivery(message)
    finally:
        consumer.close()


def _kept_from(consumer: Consumer, lane: Lane) -> int:
    try:
        marks = consumer.get_watermark_offsets(TopicPartition(*lane), timeout=PATIENT_TIMEOUT_S)
    except KafkaException as error:
        raise fault(error.args[0], f"read {lane}") from error
    return int(marks[0])


def available(consumer: Consumer, size_max: int, timeout_s: float) -> list[Message]:
    """Wait for a first message, then take whatever else is there: never wait to fill a batch."""
    first = consumer.poll(timeout_s)
    return [] if first is None else [first, *consumer.consume(size_max - 1, timeout=0)]


def open_consumer(
    kafka: Settings, *, group: str, on_error: Callable[[KafkaError], None] | None = None
) -> Consumer:
    """A consumer with the settings that the promise needs. Raises BadSettings where `kafka` has others."""
    for name, value in REQUIRED.items():
        if kafka.get(name, value) != value:
            raise BadSettings(f"the Kafka property {name} must be {value}", remedy=f"leave {name} out")
    properties = {"log_level": "0", **DEFAULTS, **kafka, **REQUIRED, "group.id": group}
    if kafka.get("group.protocol") == "consumer":  # then these are the broker's business (KIP-848)
        for name in CLASSIC_ONLY - kafka.keys():
            properties.pop(name, None)
    try:
        return Consumer(properties | ({"error_cb": on_error} if on_error else {}))
    except KafkaException as error:
        raise fault(error.args[0], "the Kafka settings") from error


REQUIRED = {
    "auto.offset.reset": "error",  # never jump over records
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "enable.partition.eof": "true",
    "isolation.level": "read_committed",
}
DEFAULTS = {
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": "10000",
    "fetch.wait.max.ms": "50",
    "queued.max.messages.kbytes": "32768",
    "allow.auto.create.topics": "false",
    "client.id": "stockledger",
}
CLASSIC_ONLY = {"partition.assignment.strategy", "session.timeout.ms"}


def offset_of(message: Message) -> int:
    """The message's offset, which every consumed message has."""
    offset = message.offset()
    assert offset is not None
    return offset


def delivery(message: Message) -> Delivery:
    """The record and what it says."""
    key, value = message.key(), message.value()
    try:
        headers = cast("Headers | None", message.headers())
    except Exception:  # noqa: BLE001 (the binding fails in several ways on header names that aren't UTF-8)
        bad = Bad("headers", "a header's name isn't UTF-8; the headers couldn't be read")
        return Delivery(offset_of(message), bad, pack(key, value, None))
    return Delivery(offset_of(message), envelope.decode(headers, value), pack(key, value, headers))
