"""Is the topic still as it must be? Asked every few seconds, without waiting for the answer.

A topic that was deleted and made again has another id; its offsets begin anew, and reading on at the old
number would skip what was published since. Kafka tells a consumer nothing of it, nor that the topic is
compacted from now on.
"""

import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from dataclasses import replace

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import ConfigEntry, ConfigResource, TopicDescription

from consumer.admin import TopicFacts, require_uncompacted
from consumer.clients import forget_frames, open_admin
from consumer.known_log import deleted, require_same_topic
from ledger.errors import BrokerUnavailable

INTERVAL_S = 5.0
URGENT_INTERVAL_S = 0.5
MISSES_MAX = 2  # a broker that has just started may not know all its topics yet


class TopicWatch:
    """Compares the topic's id with the one that the lanes were begun with, and its settings with our need."""

    def __init__(self, kafka: Mapping[str, str], facts: TopicFacts) -> None:
        self._kafka = kafka
        self._client = open_admin(kafka)
        self._facts = facts
        self._asked = time.monotonic()
        self._described: Future[TopicDescription] | None = None
        self._settings: Future[dict[str, ConfigEntry]] | None = None
        self._misses = 0
        self._urgent = False

    def look(self, *, urgent: bool, without: Collection[int] = ()) -> bool:
        """Take an answer that has come, and ask again when it is time: soon, if something is `urgent`.

        Returns whether an answer has come that says that it is the known topic. Raises TopicReplaced where it
        isn't, or is gone; TopicUnfit where it is compacted; BrokerUnavailable where a partition that we are
        `without` can be read now.
        """
        self._urgent = self._urgent or urgent
        if self._described and self._settings:
            if not (self._described.done() and self._settings.done()):
                return False
            described, settings = self._described, self._settings
            self._described = self._settings = None
            self._judge_settings(settings)
            return self._judge(described, without)
        if time.monotonic() - self._asked >= (URGENT_INTERVAL_S if self._urgent else INTERVAL_S):
            self._ask()
        return False

    def _ask(self) -> None:
        self._asked, self._urgent = time.monotonic(), False
        name, client = self._facts.name, self._client
        self._described = client.describe_topics(TopicCollection([name]), request_timeout=INTERVAL_S)[name]
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        self._settings = client.describe_configs([resource], request_timeout=INTERVAL_S)[resource]

    def _judge(self, future: "Future[TopicDescription]", without: Collection[int]) -> bool:
        name = self._facts.name
        try:
            described = future.result()
        except KafkaException as error:
            forget_frames(error)
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                # No broker answers: the consumer says so. A client that lost its controller may look for it
                # for ever, while others answer.
                self._client = open_admin(self._kafka)
                return False
            self._misses += 1
            if self._misses >= MISSES_MAX:
                raise deleted(name, self._facts.partitions) from error
            return False
        self._misses = 0
        found = replace(self._facts, topic_id=str(described.topic_id), partitions=len(described.partitions))
        require_same_topic(self._facts.topic_id, found)
        if back := [p.id for p in described.partitions if p.id in without and p.leader]:
            raise BrokerUnavailable(f"{name}[{back[0]}] can be read now: its lane is taken up")
        return True

    def _judge_settings(self, future: "Future[dict[str, ConfigEntry]]") -> None:
        try:
            policy = future.result().get("cleanup.policy")
        except KafkaException as error:
            forget_frames(error)
            return  # an ACL may hide them, and the embedded broker has none
        require_uncompacted(self._facts.name, (policy and policy.value) or "")
