"""The topics of the relay: made, and looked at before anything is written to them."""

from collections.abc import Mapping

from consumer import admin, records
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


def look(settings: Settings, prefix: str) -> Relayed:
    """What is there. Raises TopicUnfit where a topic can't do what it is for, BrokerUnavailable."""
    outputs, kafka = Outputs.of(prefix), settings.kafka_properties()
    found = {}
    for name in outputs:
        try:
            found[name] = admin.inspect(kafka, name)
        except TopicMissing as missing:
            raise TopicMissing(
                missing.message,
                remedy=command("migrate --partitions 12 --relay", prefix),
            ) from None
        _require_fit(found[name], compacted=name in outputs.compacted)
    _require_one_partition(found[outputs.positions])
    ids = {name: facts.topic_id for name, facts in found.items()}
    return Relayed(ids, records.last_value(kafka, Lane(outputs.positions, 0)))


def _require_fit(facts: TopicFacts, *, compacted: bool) -> None:
    if facts.cleanup_policy and ("compact" in facts.cleanup_policy) != compacted:
        wanted = "compact" if compacted else "delete"
        why = "it would grow for ever" if compacted else "Kafka would remove what was relayed"
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
