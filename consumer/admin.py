"""What Kafka says about a topic: its id, its partitions, its settings, how far its logs go.

Raises the ledger's faults: BrokerUnavailable where nobody answers in time, TopicUnfit where the topic can't
be used. Nothing here joins a group or moves an offset.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import ClusterMetadata, ConfigResource, NewTopic, OffsetSpec

from consumer.clients import (
    PATIENT_TIMEOUT_S,
    REQUEST_TIMEOUT_S,
    Admin,
    KafkaProperties,
    answer,
    as_heard,
    fault,
    forget_frames,
    open_admin,
)
from ledger.domain.delivery import Lane
from ledger.errors import BrokerUnavailable, LedgerError, TopicUnfit


@dataclass(frozen=True)
class TopicFacts:
    """A topic as the broker describes it. Empty or -1: the broker doesn't say."""

    name: str
    topic_id: str
    cluster_id: str
    partitions: int
    replication: int
    in_sync: int = -1
    """The fewest replicas of any partition that have all that is acknowledged."""
    cleanup_policy: str = ""
    retention_ms: int = -1
    min_insync_replicas: int = -1

    @property
    def lanes(self) -> list[Lane]:
        """Its partitions."""
        return [Lane(self.name, partition) for partition in range(self.partitions)]


def cluster_id(kafka: KafkaProperties, timeout_s: float = REQUEST_TIMEOUT_S) -> str:
    """The cluster's id. Raises BrokerUnavailable."""
    return str(cluster(open_admin(kafka), timeout_s).cluster_id)


def cluster(client: Admin, timeout_s: float = REQUEST_TIMEOUT_S) -> ClusterMetadata:
    """The cluster's id, its brokers and the topics that this user may see. Raises BrokerUnavailable.

    By the client's plain request for metadata: where all brokers are fenced, as after a freeze, its
    `describe_cluster` ends the process (an assertion in librdkafka 2.16).
    """
    what = "ask what the cluster has"
    try:
        return client.list_topics(timeout=timeout_s)
    except KafkaException as error:
        raise as_heard(fault(error.args[0], what), what, client) from error


def inspect(kafka: KafkaProperties, topic: str, timeout_s: float = REQUEST_TIMEOUT_S) -> TopicFacts:
    """Describe the topic. Raises BrokerUnavailable, TopicMissing, or TopicUnfit (no right to see it)."""
    client = open_admin(kafka)
    cluster_id = cluster(client, timeout_s).cluster_id
    described = answer(
        client.describe_topics(TopicCollection([topic]), request_timeout=timeout_s)[topic],
        f"describe the topic {topic}",
        timeout_s,
        topic,
        client=client,
    )
    config = _config(client, topic, timeout_s)
    return TopicFacts(
        name=topic,
        topic_id=str(described.topic_id),
        cluster_id=str(cluster_id),
        partitions=len(described.partitions),
        replication=min((len(p.replicas) for p in described.partitions), default=0),
        in_sync=min((len(p.isr) for p in described.partitions), default=-1),
        cleanup_policy=config.get("cleanup.policy", ""),
        retention_ms=int(config.get("retention.ms", -1)),
        min_insync_replicas=int(config.get("min.insync.replicas", -1)),
    )


def topics(kafka: KafkaProperties) -> set[str]:
    """The names of all topics that this user may see. Raises BrokerUnavailable."""
    return set(cluster(open_admin(kafka)).topics)


def topic_ids(kafka: KafkaProperties, topics: Collection[str]) -> dict[str, str]:
    """The topics' ids by name. Raises BrokerUnavailable, TopicMissing, TopicUnfit (no right to see one)."""
    client = open_admin(kafka)
    asked = client.describe_topics(TopicCollection([*topics]), request_timeout=REQUEST_TIMEOUT_S)
    found = {}
    for name, future in asked.items():
        described = answer(future, f"describe the topic {name}", REQUEST_TIMEOUT_S, name, client=client)
        found[name] = str(described.topic_id)
    return found


def _config(client: Admin, topic: str, timeout_s: float) -> dict[str, str]:
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    try:
        entries = client.describe_configs([resource], request_timeout=timeout_s)[resource].result(timeout_s)
    except (KafkaException, TimeoutError) as error:
        forget_frames(error)
        return {}  # an ACL may hide it, and the embedded broker has none
    return {name: entry.value for name, entry in entries.items() if entry.value is not None}


def create(
    kafka: KafkaProperties,
    topic: str,
    partitions: int,
    replication: int = -1,
    config: Mapping[str, str] | None = None,
) -> None:
    """Create the topic; -1 takes the broker's default replication. One that exists is left alone."""
    client = open_admin(kafka)  # named: its requests die with it
    wanted = NewTopic(topic, partitions, replication, config=dict(config or {}))
    made = client.create_topics([wanted], request_timeout=PATIENT_TIMEOUT_S)
    try:
        made[topic].result(PATIENT_TIMEOUT_S + 1)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise as_heard(
                fault(error.args[0], f"create the topic {topic}"), f"create the topic {topic}", client
            ) from error
    except TimeoutError as error:
        raise BrokerUnavailable(
            f"create the topic {topic}: no answer", remedy="stockledger doctor"
        ) from error


class Marks(NamedTuple):
    """A partition's first offset that is still there, where readers of committed records end, and its end.

    An open producer transaction hides everything from its first record on, also what others have written and
    had acknowledged: there `stable` is below `end`, and who asks how much there is must ask for `end`.
    """

    first: int
    stable: int
    end: int


@dataclass(frozen=True)
class Watermarks:
    """Where each lane's log begins and ends; of a lane that is silent, why."""

    known: Mapping[Lane, Marks]
    silent: Mapping[Lane, LedgerError]

    def all(self) -> Mapping[Lane, Marks]:
        """Those of every lane. Raises BrokerUnavailable if one is silent."""
        for why in self.silent.values():
            raise why
        return self.known


def watermarks(kafka: KafkaProperties, lanes: Collection[Lane]) -> Watermarks:
    """Where the logs of these lanes begin and end. One whose broker is away is silent and holds up no other.

    Raises TopicUnfit, or BrokerUnavailable if nobody answers.
    """
    client = open_admin(kafka)
    silent: dict[Lane, LedgerError] = {}

    def ask(spec: OffsetSpec, isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED) -> dict[Lane, int]:
        request = {TopicPartition(*lane): spec for lane in lanes if lane not in silent}
        if not request:
            return {}
        futures = client.list_offsets(request, isolation_level=isolation, request_timeout=REQUEST_TIMEOUT_S)
        found = {}
        for tp, future in futures.items():
            lane = Lane(tp.topic, tp.partition)
            what = f"ask for the offsets of {lane}"
            try:
                found[lane] = answer(future, what, REQUEST_TIMEOUT_S, lane.topic, client=client).offset
            except BrokerUnavailable as silence:
                silent[lane] = silence
        return found

    first, end = ask(OffsetSpec.earliest()), ask(OffsetSpec.latest())
    # Asked last: what is written in between can't look like a transaction that is open.
    stable = ask(OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)
    known = {lane: Marks(first[lane], at, max(at, end[lane])) for lane, at in stable.items()}
    return Watermarks(known, silent)


def require_uncompacted(name: str, cleanup_policy: str) -> None:
    """Raise TopicUnfit if Kafka may remove commands that were never applied."""
    if "compact" in cleanup_policy:
        raise TopicUnfit(
            f"the topic {name} is compacted: Kafka would remove commands that were never applied",
            remedy=f"set cleanup.policy=delete on the topic {name}",
        )
