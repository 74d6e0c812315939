"""The topics of the relay: made, and looked at before anything is written to them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from consumer import admin, hidden
from consumer.admin import TopicFacts
from ledger.domain.delivery import Lane
from ledger.errors import TopicMissing, TopicUnfit
from ledger.shell import command
from producer.relay.outputs import Outputs, Relayed
from stockledger.settings import Settings
from stockledger.wiring import topic_facts

COMPACTED = {"cleanup.policy": "compact"}
KEPT = {"cleanup.policy": "delete"}
OFTEN = {"segment.ms": "3600000", "min.cleanable.dirty.ratio": "0.1"}
"""One key, written ten times a second: compacted soon, or each start would have much to skip."""


def make(settings: Settings, prefix: str, partitions: int) -> list[TopicFacts]:
    """Make those that don't exist. Raises BrokerUnavailable or TopicUnfit."""
    outputs = Outputs.of(prefix)
    wanted: dict[str, tuple[int, Mapping[str, str]]] = {
        outputs.events: (partitions, KEPT),
        outputs.outcomes: (partitions, KEPT),
        outputs.stock: (partitions, COMPACTED),
        outputs.positions: (1, COMPACTED | OFTEN),
    }
    kafka = settings.kafka_properties()
    for name, (number, config) in wanted.items():
        admin.create(kafka, name, number, config=config)
    return [topic_facts(settings, name) for name in wanted]


class KafkaTopics:
    """The topics of one relay, as Kafka describes them."""

    def __init__(self, settings: Settings, prefix: str) -> None:
        self._kafka = settings.kafka_properties()
        self._prefix = prefix
        self._outputs = Outputs.of(prefix)

    def inspect(self) -> dict[str, TopicFacts]:
        """What they are. Raises TopicUnfit where one can't do what it is for, TopicMissing, Unavailable."""
        found = {}
        for name in self._outputs:
            with self._made_by():
                found[name] = admin.inspect(self._kafka, name)
            _require_fit(found[name], compacted=name in self._outputs.compacted)
        _require_one_partition(found[self._outputs.positions])
        return found

    def look(self) -> Relayed:
        """What is there. Raises what `inspect` raises."""
        ids = {name: facts.topic_id for name, facts in self.inspect().items()}
        return Relayed(ids, hidden.last_value(self._kafka, Lane(self._outputs.positions, 0)))

    def ids(self) -> dict[str, str]:
        """Kafka's ids of them, by name. Raises TopicMissing or BrokerUnavailable."""
        with self._made_by():
            return admin.topic_ids(self._kafka, self._outputs)

    @contextmanager
    def _made_by(self) -> Iterator[None]:
        """The verb that makes a missing topic is another one than that of a command topic."""
        try:
            yield
        except TopicMissing as missing:
            remedy = command("migrate --partitions 12 --relay", self._prefix)
            raise TopicMissing(missing.message, remedy=remedy) from None


def _require_fit(facts: TopicFacts, *, compacted: bool) -> None:
    wanted = "compact" if compacted else "delete"
    if facts.cleanup_policy not in ("", wanted):
        why = "Kafka would remove what was relayed"
        if compacted:
            why = "it has to keep the last record of each key, and only that"
        raise TopicUnfit(
            f"the topic {facts.name} has cleanup.policy={facts.cleanup_policy}: {why}",
            remedy=f"set cleanup.policy={wanted} on the topic {facts.name}",
        )
    if facts.replication < facts.min_insync_replicas:
        raise TopicUnfit(
            f"the topic {facts.name} has {facts.replication} replicas and min.insync.replicas="
            f"{facts.min_insync_replicas}: nothing can be written to it",
            remedy=f"give the topic {facts.name} more replicas",
        )


def _require_one_partition(positions: TopicFacts) -> None:
    if positions.partitions != 1:
        raise TopicUnfit(
            f"the topic {positions.name} has {positions.partitions} partitions: the last position is known "
            "only where there is one",
            remedy="relay to topics of another name, with --to",
        )
