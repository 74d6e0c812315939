"""What became of what was sent: a receipt for each command that wants one, and the account of all."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from confluent_kafka import KafkaError, Message

from ledger.domain.commands import MessageKey
from ledger.figures import count
from producer.faults import VERDICTS, serve


@dataclass(slots=True)
class Receipt:
    """A command that was sent, its payload's fingerprint, and the stream of its event if it is applied.

    `Ledger.wait` knows it by these. `partition` and `offset` are set once the broker has acknowledged it.
    """

    key: MessageKey
    fingerprint: bytes
    stream: str
    partition: int | None = None
    offset: int | None = None


class Tally(NamedTuple):
    """What became of all that a publisher sent so far.

    `failed`: refused, not in the topic. `unknown`: no answer yet, or none in time: possibly in the topic.
    """

    acknowledged: int
    failed: int
    unknown: int

    @property
    def is_complete(self) -> bool:
        """Whether all is acknowledged."""
        return not self.failed and not self.unknown


def account(tally: Tally) -> str:
    """What became of all that was sent, as errors say it."""
    if not sum(tally):
        return "nothing was published"
    acknowledged, failed, unknown = map(count, tally)
    return (
        f"of {count(sum(tally))} sent: {acknowledged} acknowledged, {failed} refused, "
        f"{unknown} in the topic or not"
    )


class Reports:
    """The account, apart from its publisher: reports that are to come keep this alive, not the publisher.

    So one that nobody needs any more is noticed at once, with what it had under way.
    """

    def __init__(self) -> None:
        self.sent = self.acknowledged = self.failed = 0
        self.first_error: KafkaError | None = None
        self.handed_over = True
        """Whether the caller knows the account of all that was sent."""

    @property
    def tally(self) -> Tally:
        return Tally(self.acknowledged, self.failed, self.sent - self.acknowledged - self.failed)

    # A callback inside poll and flush: an exception would lose the reports after it, so it never raises.
    def note(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.acknowledged += 1
            return
        self.first_error = self.first_error or error
        if error.code() in VERDICTS:
            self.failed += 1

    def note_for(
        self,
        receipt: Receipt,
        then: Callable[[Receipt], object] | None,
        error: KafkaError | None,
        message: Message,
    ) -> None:
        if error is None:
            receipt.partition, receipt.offset = message.partition(), message.offset()
        self.note(error, message)
        if then:
            then(receipt)

    def serve(self, call: Callable[[float], object], timeout_s: float) -> None:
        """Let the client serve its callbacks; its own end, a fatal error, is noted as any other."""
        self.first_error = serve(call, timeout_s) or self.first_error
