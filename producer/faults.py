"""What stands between a publisher and its acknowledgements: the cause, what wasn't done, the next step."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches

from confluent_kafka import KafkaError, KafkaException

from ledger.brokers import CREDENTIALS, HOPELESS, Heard
from ledger.errors import BadSettings, BrokerUnavailable, Defect, LedgerError, TopicUnfit
from ledger.shell import command

VERDICTS = {  # the broker refused the record, so it isn't in the topic
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.INVALID_RECORD,
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.POLICY_VIOLATION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
}
RIGHTS = {  # CLUSTER: without a right to write to any topic, an idempotent producer isn't given its id
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
}
TOPIC_ERRORS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
}


class Trouble(Heard):
    """The last thing that librdkafka complained about, and the errors to raise because of it."""

    @property
    def is_hopeless(self) -> bool:
        """Whether waiting is of no use: what is there refuses us, or isn't a broker."""
        return self.code in HOPELESS

    def unreachable(self, waited_s: float) -> LedgerError:
        """No broker answered within the time, so nothing was sent."""
        found = self.complaint
        kind = BadSettings if self.code in CREDENTIALS else BrokerUnavailable
        words = f"{found.what}, tried {waited_s:.0f} s; nothing was published"
        return kind(words, remedy=found.remedy)

    def unanswered(self, reason: str, account: str, remedy: str) -> BrokerUnavailable:
        """A broker was there, but something that was sent isn't acknowledged."""
        causes = "; ".join(filter(None, (reason, self.cause)))
        return BrokerUnavailable(
            f"the broker at {self.servers} doesn't acknowledge ({causes}); {account}",
            remedy=remedy,
        )

    def refused(self, error: KafkaError, account: str) -> Defect:
        """The broker won't have the record."""
        return Defect(f"the broker at {self.servers} refuses the record: {error.str()}; {account}")


def serve(call: Callable[[float], object], timeout_s: float) -> KafkaError | None:
    """Let the client serve its callbacks; the error that has ended the client, or None.

    A fatal error isn't given to `error_cb`: the client raises it out of whichever call comes next.
    """
    try:
        call(timeout_s)
    except (KafkaException, SystemError) as error:
        return kafka_error(error)
    return None


def kafka_error(error: KafkaException | SystemError) -> KafkaError:
    """What the client means. SystemError: it went on to call us back while its own exception was pending."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KafkaException):
        cause = cause.__cause__ or cause.__context__
    return cause.args[0] if cause else KafkaError(KafkaError._FATAL, str(error), fatal=True)


def topic_unfit(topic: str, error: KafkaError, topics: Iterable[str], account: str) -> TopicUnfit:
    """The topic can't be published to; `topics` are the ones that exist."""
    closest = get_close_matches(topic, topics, 1)
    question = f"; did you mean {closest[0]}?" if closest else ""
    if error.code() in RIGHTS:
        refused = f"this user may not write to the topic {topic} ({error.str()}); {account}"
        grant = f"grant the rights Describe and Write on the topic {topic} to this user"
        return TopicUnfit(refused, remedy=f"{grant}, then publish the same again with the same ids")
    return TopicUnfit(
        f"the topic {topic} doesn't exist or isn't shown to this user ({error.str()}){question}; {account}",
        remedy=command("migrate --partitions 12 --topic", topic),
    )
