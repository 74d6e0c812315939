"""What stands between a publisher and its acknowledgements: the cause, what wasn't done, the next step."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

from confluent_kafka import KafkaError

from ledger.errors import BadSettings, BrokerUnavailable, Defect, LedgerError, TopicUnfit

VERDICTS = {  # the broker refused the record, so it isn't in the topic
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.INVALID_RECORD,
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.POLICY_VIOLATION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
}
TOPIC_ERRORS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
}
CREDENTIAL_ERRORS = {KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._AUTHENTICATION, KafkaError._SSL}


class Trouble:
    """The last thing that librdkafka complained about, and the errors to raise because of it."""

    def __init__(self, servers: str) -> None:
        self._servers = servers
        self._last: KafkaError | None = None

    def note(self, error: KafkaError) -> None:
        """librdkafka's `error_cb`; never raises."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # it follows each cause and says less
            self._last = error

    @property
    def is_hopeless(self) -> bool:
        """Whether waiting is of no use: what is there refuses us, or isn't a broker."""
        return self._code in CREDENTIAL_ERRORS or self._code == KafkaError._BAD_MSG

    def unreachable(self, waited_s: float) -> LedgerError:
        """No broker answered within the time, so nothing was sent."""
        cause = f"{self._cause or 'no answer'}, tried {waited_s:.0f} s"
        if self._code in CREDENTIAL_ERRORS:
            refused = f"the broker at {self._servers} refuses the connection ({cause}); nothing was published"
            return BadSettings(refused, remedy="correct security.protocol, sasl.* and ssl.*")
        if self._code == KafkaError._BAD_MSG:
            wrong = f"{self._servers} does not speak Kafka (HTTP or TLS?); nothing was published"
            return BrokerUnavailable(wrong, remedy="correct the port, or set security.protocol=ssl")
        remedy = "start the broker or correct bootstrap.servers"
        if self._code == KafkaError._RESOLVE:
            remedy = "correct the host name; one that only the broker gave is in its advertised.listeners"
        return BrokerUnavailable(
            f"no broker reachable at {self._servers} ({cause}); nothing was published",
            remedy=f"{remedy}; then run the same again. `stockledger doctor` looks closer",
        )

    def unanswered(self, reason: str, account: str) -> BrokerUnavailable:
        """A broker was there, but something that was sent isn't acknowledged."""
        causes = "; ".join(filter(None, (reason, self._cause)))
        return BrokerUnavailable(
            f"the broker at {self._servers} doesn't acknowledge ({causes}); {account}",
            remedy="run the same again, with the same ids: what the topic holds already has no second effect",
        )

    def refused(self, error: KafkaError, account: str) -> Defect:
        """The broker won't have the record."""
        return Defect(f"the broker at {self._servers} refuses the record: {error.str()}; {account}")

    @property
    def _code(self) -> int | None:
        return None if self._last is None else self._last.code()

    @property
    def _cause(self) -> str:
        if self._last is None:
            return ""
        # For people: without librdkafka's name of the broker in front and its connection's state behind.
        return re.sub(r"^\S+/\w+: | \(after \d+ms in state .*$", "", self._last.str())


def topic_unfit(topic: str, error: KafkaError, topics: Iterable[str], account: str) -> TopicUnfit:
    """The topic can't be published to; `topics` are the ones that exist."""
    closest = get_close_matches(topic, topics, 1)
    question = f"; did you mean {closest[0]}?" if closest else ""
    if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        refused = f"this user may not write to the topic {topic} ({error.str()}); {account}"
        return TopicUnfit(refused, remedy=f"grant the rights Describe and Write on the topic {topic}")
    return TopicUnfit(
        f"the topic {topic} doesn't exist or isn't shown to this user ({error.str()}){question}; {account}",
        remedy=f"stockledger migrate --topic {topic} --partitions N",
    )
