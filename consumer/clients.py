"""librdkafka's clients for reading: our properties, one way to wait for an answer, its errors as ours.

BrokerUnavailable where nobody answers in time, TopicUnfit where the topic can't be used, BadSettings where
the properties are wrong.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from ledger.brokers import Heard
from ledger.errors import DOCTOR, BadSettings, BrokerUnavailable, LedgerError, TopicMissing, TopicUnfit

REQUEST_TIMEOUT_S = 4.0  # less than the 5 s in which a worker must end
PATIENT_TIMEOUT_S = 10.0
RAW_READS = "stockledger-raw-reads"
"""The group that readers name which join none and advance nothing."""
PARTITIONS = 12
"""How many a topic is made with where nobody knows how many are wanted."""

KafkaProperties = Mapping[str, str]
"""librdkafka's properties by their dotted names."""
T = TypeVar("T")

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
    # What the client has fetched ahead: a batch's worth, because what is held back is fetched anew.
    "queued.max.messages.kbytes": "4096",
    "fetch.queue.backoff.ms": "10",  # by default a full queue delays a neighbour's records by a second
    "fetch.max.bytes": "16777216",  # what comes on top of that
    "allow.auto.create.topics": "false",
    "client.id": "stockledger",
}
CLASSIC_ONLY = {"partition.assignment.strategy", "session.timeout.ms"}
UNREACHABLE = {
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._RESOLVE,
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
}
PASSES = {  # the client's own errors that pass by themselves
    KafkaError._DESTROY_BROKER,  # it let go of a broker's handle, and takes another
    KafkaError._INTR,
    KafkaError._IN_PROGRESS,
    KafkaError._NOENT,  # no partition that it asks for has a leader
    KafkaError._OUTDATED,
    KafkaError._PARTIAL,  # a cluster whose brokers are all fenced
    KafkaError._PREV_IN_PROGRESS,
    KafkaError._RETRY,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._WAIT_CACHE,
    KafkaError._WAIT_COORD,
}
RETRIABLE = PASSES | {  # the protocol's own word for errors that pass: elections, starts, loading
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.CONCURRENT_TRANSACTIONS,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.ELIGIBLE_LEADERS_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.FETCH_SESSION_ID_NOT_FOUND,
    KafkaError.INCONSISTENT_TOPIC_ID,
    KafkaError.INVALID_FETCH_SESSION_EPOCH,
    KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.LISTENER_NOT_FOUND,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.NOT_CONTROLLER,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.PREFERRED_LEADER_NOT_AVAILABLE,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.REBOOTSTRAP_REQUIRED,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.STALE_BROKER_EPOCH,
    KafkaError.THROTTLING_QUOTA_EXCEEDED,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.UNKNOWN_TOPIC_ID,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
}
UNKNOWN = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
}
FORBIDDEN = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}


class Admin(AdminClient):
    """An admin client and what it heard, which doesn't refer back to it, so that both go at once."""

    heard: Heard


def open_admin(kafka: KafkaProperties) -> Admin:
    """An admin client that logs nothing by itself. Raises BadSettings for properties it doesn't know."""
    heard = Heard(kafka.get("bootstrap.servers", ""))
    properties: dict[str, Any] = {"log_level": "0", **kafka, "error_cb": heard.note}
    try:
        client = Admin(properties)
    except KafkaException as error:
        raise fault(error.args[0], "the Kafka settings") from error
    client.heard = heard
    return client


def open_consumer(
    kafka: KafkaProperties,
    *,
    group: str,
    on_error: Callable[[KafkaError], None] | None = None,
    isolation: str = "read_committed",
) -> Consumer:
    """A consumer with the settings that the promise needs. Raises BadSettings where `kafka` has others."""
    for name, value in REQUIRED.items():
        if kafka.get(name, value) != value:
            raise BadSettings(f"the Kafka property {name} must be {value}", remedy=f"leave {name} out")
    properties = {
        "log_level": "0",
        **DEFAULTS,
        **kafka,
        **REQUIRED,
        "group.id": group,
        "isolation.level": isolation,
    }
    if kafka.get("group.protocol") == "consumer":  # then these are the broker's business (KIP-848)
        for name in CLASSIC_ONLY - kafka.keys():
            properties.pop(name, None)
    try:
        return Consumer(properties | ({"error_cb": on_error} if on_error else {}))
    except KafkaException as error:
        raise fault(error.args[0], "the Kafka settings") from error


def answer(
    future: "Future[T]", what: str, timeout_s: float, topic: str = "", *, client: Admin | None = None
) -> T:
    """The future's result, or the ledger's fault; where nobody answers, with what the client heard."""
    try:
        return future.result(timeout_s + 1)
    except KafkaException as error:
        raise as_heard(fault(error.args[0], what, topic), what, client) from forget_frames(error)
    except TimeoutError as error:
        raise as_heard(
            BrokerUnavailable(f"{what}: no answer in {timeout_s:.0f} s", remedy=DOCTOR), what, client
        ) from error


def as_heard(error: LedgerError, what: str, client: Admin | None) -> LedgerError:
    """The error, or where nobody answers, what the client heard of why."""
    if client is None:
        return error
    client.poll(0)  # which calls `error_cb`
    if client.heard.code is None or not isinstance(error, BrokerUnavailable):
        return error
    found = client.heard.complaint
    return BrokerUnavailable(f"{what}: {found.what}", remedy=found.remedy)


def forget_frames(error: Exception) -> Exception:
    """Let go of what the error passed through: the client, above all, with its threads and connections.

    The binding ties a failed request's error and its future into a cycle; a worker looks for those rarely.
    """
    return error.with_traceback(None)


def fault(error: KafkaError, what: str, topic: str = "") -> LedgerError:
    """The ledger's fault for a broker's or the client's error; `what` was attempted, with this topic."""
    code = error.code()
    if code in UNREACHABLE:
        return BrokerUnavailable(f"{what}: no broker answers ({error.str()})", remedy="stockledger doctor")
    if code in RETRIABLE:
        return BrokerUnavailable(f"{what}: not yet ({error.str()})", remedy="stockledger doctor")
    if code in UNKNOWN:
        remedy = f"stockledger migrate --topic {topic} --partitions {PARTITIONS}"
        return TopicMissing(f"{what}: the topic doesn't exist", remedy=remedy if topic else DOCTOR)
    if code in FORBIDDEN:
        return TopicUnfit(f"{what}: not allowed ({error.str()})", remedy="grant this user the missing ACL")
    if code == KafkaError._INVALID_ARG:
        return BadSettings(f"{what}: {error.str()}", remedy="stockledger config")
    return TopicUnfit(f"{what}: {error.name()}: {error.str()}", remedy="stockledger doctor")
