"""The consumer group as its coordinator describes it, and why it can't be joined.

Kafka's client tries for ever and says nothing of it: a worker would be ready, own no lane, and look well.
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ConsumerGroupDescription

from consumer.admin import cluster
from consumer.clients import KafkaProperties, answer, forget_frames, open_admin, open_consumer
from ledger.errors import BadSettings, BrokerUnavailable, GroupUnavailable, LedgerError, Stop

TIMEOUT_S = 3.0
PATIENCE_S = 60.0
"""How long a group may be without a coordinator: the first one ever waits until Kafka has made its topic, and
a broker that has just started on a busy machine takes its time over that."""
ASK_AFTER_S = 2.0
INTERVAL_S = 5.0
AGAIN_S = 0.5
JOIN_S = 3.0
"""How long a member may take to join where a coordinator answers."""
TRIAL_S = 4.0
OFFSETS_TOPIC = "__consumer_offsets"
COPIES = "offsets.topic.replication.factor"
UNCOORDINATED = "no broker coordinates the group"
STRATEGY = "partition.assignment.strategy"
MEMBERSHIP = {"group.protocol", "group.remote.assignor", "session.timeout.ms", STRATEGY}
"""Properties that a broker may refuse a member for."""
NO_ANSWER = {
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._WAIT_COORD,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}
REFUSALS = {
    KafkaError.INCONSISTENT_GROUP_PROTOCOL,
    KafkaError.INVALID_SESSION_TIMEOUT,
    KafkaError.GROUP_MAX_SIZE_REACHED,
}


class GroupWatch:
    """Looks after the group as long as we have no lane, without waiting for the answers.

    `member` is who we are there.
    """

    def __init__(self, kafka: KafkaProperties, group: str, member: str) -> None:
        self._about = kafka, group, member
        self._answer: Future[LedgerError | None] | None = None
        self._due = time.monotonic() + ASK_AFTER_S

    def look(self, *, idle: bool) -> None:
        """Raises GroupUnavailable where nobody coordinates it, or where it leaves us out."""
        if self._answer is not None and self._answer.done():
            future, self._answer = self._answer, None
            if idle and (fault := future.result()):
                raise fault
        elif idle and self._answer is None and time.monotonic() >= self._due:
            self._due = time.monotonic() + INTERVAL_S
            self._answer = Future()
            Thread(target=_ask, args=(*self._about, self._answer), daemon=True).start()


def _ask(kafka: KafkaProperties, group: str, member: str, answer: "Future[LedgerError | None]") -> None:
    """Why we have no lane, if the group is to blame."""
    fault: LedgerError | None = None
    with suppress(LedgerError):  # no broker answers at all, which the consumer says, or we may not see it
        if not _coordinated(kafka, group):
            fault = no_coordinator(kafka, group)
        elif _is_left_out(kafka, group, member):
            fault = left_out(kafka)
    answer.set_result(fault)


def _coordinated(kafka: KafkaProperties, group: str) -> bool:
    """Whether the group has a coordinator: one that says where its members are.

    By a consumer that doesn't join. An admin client whose question for a coordinator isn't answered in time,
    because the broker is frozen, ends the process (an assertion in librdkafka 2.16).
    """
    consumer = open_consumer(kafka, group=group)
    try:
        consumer.committed([TopicPartition(OFFSETS_TOPIC, 0)], timeout=TIMEOUT_S)
    except KafkaException as error:
        forget_frames(error)
        return error.args[0].code() not in NO_ANSWER
    finally:
        consumer.close()
    return True


def _is_left_out(kafka: KafkaProperties, group: str, member: str) -> bool:
    """Whether the group still lacks this member after a while.

    Asked only of the newer protocol, where the client itself chooses who it is. Where the broker's version
    of that is too old for it (before 4.0, even if it is switched on), it tries for ever and says nothing.
    """
    if kafka.get("group.protocol") != "consumer":
        return False
    until = time.monotonic() + JOIN_S
    while member not in {each.member_id for each in _described(kafka, group).members}:
        if time.monotonic() >= until:
            return True
        time.sleep(AGAIN_S)
    return False


def left_out(kafka: KafkaProperties) -> GroupUnavailable:
    """The coordinator answers, and has no such member."""
    return GroupUnavailable(
        f"the group's coordinator answers, but doesn't take group.protocol={kafka['group.protocol']}, "
        "which Kafka has from 4.0 on",
        remedy="leave group.protocol out",
    )


def _described(kafka: KafkaProperties, group: str) -> ConsumerGroupDescription:
    client = open_admin(kafka)  # by name: without a reference its requests are dropped
    future = client.describe_consumer_groups([group], request_timeout=TIMEOUT_S)[group]
    found: ConsumerGroupDescription = answer(future, f"describe the group {group}", TIMEOUT_S)
    return found


def assignor(kafka: KafkaProperties, group: str) -> str:
    """What the group's members have agreed on, "" if there are none. Raises GroupUnavailable."""
    until = time.monotonic() + PATIENCE_S
    fault: GroupUnavailable | None = None
    while not fault and time.monotonic() < until:
        with suppress(BrokerUnavailable):
            if _coordinated(kafka, group):
                return str(_described(kafka, group).partition_assignor or "")
            fault = _too_few_brokers(kafka, group)
        time.sleep(AGAIN_S)
    raise fault or no_coordinator(kafka, group)


def no_coordinator(kafka: KafkaProperties, group: str) -> GroupUnavailable:
    """Why nobody coordinates the group. Raises BrokerUnavailable where no broker answers at all."""
    return _too_few_brokers(kafka, group) or GroupUnavailable(
        f"{UNCOORDINATED} {group}: no partition leader of {OFFSETS_TOPIC} answers",
        remedy="start the brokers that hold it",
    )


def _too_few_brokers(kafka: KafkaProperties, group: str) -> GroupUnavailable | None:
    """What no patience mends: the offsets topic can't be made. None if it is there, or that can't be seen."""
    client = open_admin(kafka)
    found = cluster(client, TIMEOUT_S)
    there = len(found.brokers)
    if not there or OFFSETS_TOPIC in found.topics:
        return None
    needed = _copies(client, str(min(found.brokers)))
    if needed <= there:
        return None
    return GroupUnavailable(
        f"{UNCOORDINATED} {group}: "
        f"{OFFSETS_TOPIC} needs {needed} brokers ({COPIES}), the cluster has {there}",
        remedy=f"set {COPIES}={there} on the broker and restart it, or add brokers",
    )


def _copies(client: AdminClient, broker: str) -> int:
    resource = ConfigResource(ConfigResource.Type.BROKER, broker)
    try:
        found = client.describe_configs([resource], request_timeout=TIMEOUT_S)[resource].result(TIMEOUT_S)
    except (KafkaException, TimeoutError) as error:
        forget_frames(error)
        return 0  # an ACL may hide it
    return int(found[COPIES].value) if COPIES in found else 0


def refusal(kafka: KafkaProperties, group: str, error: KafkaError) -> LedgerError:
    """The ledger's fault for what the coordinator has against us as a member."""
    if error.code() == KafkaError.INVALID_SESSION_TIMEOUT:
        return BadSettings(
            f"the broker refuses session.timeout.ms={kafka.get('session.timeout.ms')}: {error.str()}",
            remedy="leave session.timeout.ms out",
        )
    if error.code() != KafkaError.INCONSISTENT_GROUP_PROTOCOL:
        return GroupUnavailable(f"the group {group} can't be joined: {error.str()}")
    return other_assignor(kafka, group, assignor(kafka, group))


def other_assignor(kafka: KafkaProperties, group: str, theirs: str) -> GroupUnavailable:
    """Members with different assignors can't share out lanes."""
    ours = kafka.get(STRATEGY, "cooperative-sticky")
    return GroupUnavailable(
        f"the group {group} has members with another assignor: theirs is {theirs or 'unknown'}, ours {ours}",
        remedy=f"stop those, or run with theirs: stockledger run -X {STRATEGY}={theirs or 'range'}",
    )


def gave_up(kafka: KafkaProperties, error: KafkaError) -> Stop:
    """The client's last word: it can't go on."""
    if "group.protocol" in kafka and "not support" in error.str().lower() + error.name().lower():
        return BadSettings(
            f"the broker doesn't take group.protocol={kafka['group.protocol']}: {error.str()}",
            remedy="leave group.protocol out, or switch that protocol on at the broker",
        )
    return Stop(f"the Kafka client gave up: {error.str()}", remedy="stockledger config")


def examine(kafka: KafkaProperties, group: str, topics: Sequence[str]) -> str:
    """Whether the group can be joined as we would, in words; joins none but one of its own, for a moment.

    Raises GroupUnavailable, BadSettings, or what else a member would meet.
    """
    theirs = assignor(kafka, group)
    ours = kafka.get(STRATEGY, "cooperative-sticky").split(",")
    if theirs and kafka.get("group.protocol") != "consumer" and theirs not in ours:
        raise other_assignor(kafka, group, theirs)
    if MEMBERSHIP & kafka.keys():
        _try(kafka, f"{group}-doctor-{uuid.uuid4().hex[:8]}", topics)
    return f"{group} has a coordinator" + (f", its members use {theirs}" if theirs else "")


def _try(kafka: KafkaProperties, group: str, topics: Sequence[str]) -> None:
    """Join a group of this name with these properties, and remove it. Silence is no finding."""
    faults: list[LedgerError] = []
    assigned: list[object] = []

    def note(error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._FATAL:
            faults.append(gave_up(kafka, error))
        elif error.code() in REFUSALS:
            faults.append(refusal(kafka, group, error))

    alone: Mapping[str, str] = {name: value for name, value in kafka.items() if name != "group.instance.id"}
    consumer = open_consumer(alone, group=group, on_error=note)
    try:
        consumer.subscribe([*topics], on_assign=lambda *_: assigned.append(1))
        until = time.monotonic() + TRIAL_S
        while not faults and not assigned and time.monotonic() < until:
            message = consumer.poll(0.1)
            if message is not None and (error := message.error()):
                note(error)
        if not faults and not assigned and _is_left_out(kafka, group, consumer.memberid() or ""):
            faults.append(left_out(kafka))
    finally:
        consumer.close()
    client = open_admin(kafka)
    with suppress(KafkaException, TimeoutError):  # then Kafka does so itself, some time
        client.delete_consumer_groups([group], request_timeout=TIMEOUT_S)[group].result(TIMEOUT_S + 1)
    if faults:
        raise faults[0]
