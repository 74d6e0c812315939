"""Is it still the same topic? Asked every few seconds, without waiting for the answer.

A topic that was deleted and made again has another id; its offsets begin anew, and reading on at the old
number would skip what was published since. Kafka tells a consumer nothing of it.
"""

import time
from collections.abc import Mapping
from concurrent.futures import Future

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import TopicDescription

from consumer.topic import ELSEWHERE, TopicFacts, admin, forget_frames, require_same_topic
from ledger.errors import TopicUnfit

INTERVAL_S = 5.0
URGENT_INTERVAL_S = 0.5
MISSES_MAX = 2  # a broker that has just started may not know all its topics yet


class TopicWatch:
    """Compares the topic's id with the one that the lanes were begun with."""

    def __init__(self, kafka: Mapping[str, str], facts: TopicFacts) -> None:
        self._client = admin(kafka)
        self._facts = facts
        self._asked = time.monotonic()
        self._answer: Future[TopicDescription] | None = None
        self._misses = 0
        self._urgent = False

    def look(self, *, urgent: bool) -> None:
        """Take an answer that has come, and ask again when it is time: soon, if something is `urgent`.

        Raises TopicReplaced, or TopicUnfit where the topic is gone.
        """
        self._urgent = self._urgent or urgent
        if self._answer is not None:
            if self._answer.done():
                future, self._answer = self._answer, None
                self._judge(future)
            return
        if time.monotonic() - self._asked >= (URGENT_INTERVAL_S if self._urgent else INTERVAL_S):
            self._asked, self._urgent = time.monotonic(), False
            topics = TopicCollection([self._facts.name])
            self._answer = self._client.describe_topics(topics, request_timeout=INTERVAL_S)[self._facts.name]

    def _judge(self, future: "Future[TopicDescription]") -> None:
        name = self._facts.name
        try:
            topic_id = str(future.result().topic_id)
        except KafkaException as error:
            forget_frames(error)
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                return  # no broker answers: the consumer says so
            self._misses += 1
            if self._misses >= MISSES_MAX:
                raise TopicUnfit(f"the topic {name} was deleted", remedy=ELSEWHERE) from error
        else:
            self._misses = 0
            require_same_topic(name, self._facts.topic_id, topic_id)
