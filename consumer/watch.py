"""Are the topics still as they must be? Asked every few seconds, without waiting for the answer.

A topic that was deleted and made again has another id; its offsets begin anew, and reading on at the old
number would skip what was published since. Kafka tells a consumer nothing of it, nor that the topic is
compacted from now on.
"""

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import ConfigEntry, ConfigResource, TopicDescription

from consumer.admin import TopicFacts, require_uncompacted
from consumer.clients import forget_frames, open_admin
from consumer.known_log import deleted, require_same_topic
from ledger.domain.delivery import Lane
from ledger.errors import BrokerUnavailable

INTERVAL_S = 5.0
URGENT_INTERVAL_S = 0.5
MISSES_MAX = 2  # a broker that has just started may not know all its topics yet


class TopicWatch:
    """Compares the topics' ids with those that lanes were begun with, and their settings with our need."""

    def __init__(self, kafka: Mapping[str, str], topics: Iterable[TopicFacts]) -> None:
        self._kafka = kafka
        self._client = open_admin(kafka)
        self._facts = {facts.name: facts for facts in topics}
        self._asked = time.monotonic()
        self._described: dict[str, Future[TopicDescription]] = {}
        self._settings: dict[str, Future[dict[str, ConfigEntry]]] = {}
        self._misses: Counter[str] = Counter()
        self._urgent = False

    def look(self, *, urgent: bool, without: Collection[Lane] = ()) -> bool:
        """Take the answers once all have come, and ask again when it is time: soon, if something is `urgent`.

        Returns whether answers have come that say that these are the known topics. Raises TopicReplaced where
        one isn't, or is gone; TopicUnfit where it is compacted; BrokerUnavailable where a lane that we are
        `without` can be read now.
        """
        self._urgent = self._urgent or urgent
        if self._described:
            futures: list[Future[Any]] = [*self._described.values(), *self._settings.values()]
            if not all(future.done() for future in futures):
                return False
            described, settings = self._described, self._settings
            self._described, self._settings = {}, {}
            for name, facts in self._facts.items():
                _judge_settings(facts, settings[name])
            known = [self._judge(facts, described[name], without) for name, facts in self._facts.items()]
            return all(known)
        if time.monotonic() - self._asked >= (URGENT_INTERVAL_S if self._urgent else INTERVAL_S):
            self._ask()
        return False

    def _ask(self) -> None:
        self._asked, self._urgent = time.monotonic(), False
        names, client = [*self._facts], self._client
        self._described = client.describe_topics(TopicCollection(names), request_timeout=INTERVAL_S)
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
        asked = client.describe_configs(resources, request_timeout=INTERVAL_S)
        self._settings = {resource.name: future for resource, future in asked.items()}

    def _judge(
        self, facts: TopicFacts, future: "Future[TopicDescription]", without: Collection[Lane]
    ) -> bool:
        try:
            described = future.result()
        except KafkaException as error:
            forget_frames(error)
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                # No broker answers: the consumer says so. A client that lost its controller may look for it
                # for ever, while others answer.
                self._client = open_admin(self._kafka)
                return False
            self._misses[facts.name] += 1
            if self._misses[facts.name] >= MISSES_MAX:
                raise deleted(facts.name, facts.partitions) from error
            return False
        self._misses[facts.name] = 0
        found = replace(facts, topic_id=str(described.topic_id), partitions=len(described.partitions))
        require_same_topic(facts.topic_id, found)
        if back := [p.id for p in described.partitions if p.leader and Lane(facts.name, p.id) in without]:
            raise BrokerUnavailable(f"{facts.name}[{back[0]}] can be read now: its lane is taken up")
        return True


def _judge_settings(facts: TopicFacts, future: "Future[dict[str, ConfigEntry]]") -> None:
    try:
        policy = future.result().get("cleanup.policy")
    except KafkaException as error:
        forget_frames(error)
        return  # an ACL may hide them, and the embedded broker has none
    require_uncompacted(facts.name, (policy and policy.value) or "")
