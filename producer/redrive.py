"""Dead letters back into the topic: byte for byte, each to the partition it came from, in the order given.

The only way back in is the front door: a dead record was never registered, so its id is still free and the
ledger judges it anew. A letter counts as sent only once the broker has acknowledged it; after the first
report that one isn't, nothing more is sent. Sending one again is always safe.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

from confluent_kafka import KafkaError, KafkaException, Message

from ledger.domain.delivery import Lane, Record
from ledger.errors import LedgerError, TopicUnfit
from producer import client
from producer.faults import RIGHTS, TOPIC_ERRORS, VERDICTS, Trouble, serve

REPORT_DELAY_S = 1.0  # librdkafka looks for timed-out records once a second
QUEUE_POLL_S = 0.1
AGAIN = "run the same again: what the topic holds already has no second effect"


class Letter(Protocol):
    """A record and the place that it came from; whoever keeps it gives it whatever else it has."""

    @property
    def lane(self) -> Lane: ...
    @property
    def offset(self) -> int: ...
    @property
    def record(self) -> Record: ...


L = TypeVar("L", bound=Letter)


def is_sendable(record: Record) -> bool:
    """Whether all its header names are UTF-8: the client takes only text, and any other ends the process."""
    try:
        for name, _ in record.headers or []:
            name.encode()
    except UnicodeEncodeError:
        return False
    return True


class Redriver:
    """Sends sendable dead letters. Raises BadSettings at once; connects at the first `send`."""

    def __init__(self, kafka: Mapping[str, str]) -> None:
        settings = client.complete(kafka)
        self._trouble = Trouble(settings["bootstrap.servers"])
        self._producer = client.make_producer(settings, self._trouble.note)
        self._timeout_s = int(settings[client.TIMEOUT_MS]) / 1000 + REPORT_DELAY_S
        self._error: KafkaError | None = None

    def send(self, letters: Sequence[L]) -> tuple[list[L], LedgerError | None]:
        """Send the letters and wait for their reports; returns those acknowledged, and why others aren't."""
        acknowledged: list[L] = []
        for letter in letters:
            self._produce(letter, acknowledged)
            if self._error:
                break
        self._serve(self._producer.flush, self._timeout_s)
        self._producer.purge()
        self._serve(self._producer.flush, REPORT_DELAY_S)
        acknowledged.sort(key=lambda letter: (letter.lane, letter.offset))  # reports come lane by lane
        if len(acknowledged) == len(letters):
            return acknowledged, None
        return acknowledged, self._fault(f"{len(acknowledged)} of {len(letters)} records are acknowledged")

    def _fault(self, account: str) -> LedgerError:
        error = self._error
        if error is None:
            return self._trouble.unanswered("no answer", account, AGAIN)
        if error.code() in RIGHTS:
            return TopicUnfit(
                f"this user may not write to the topic that a record came from ({error.str()}); {account}",
                remedy="grant this user the rights Describe and Write on it, then run the same again",
            )
        if error.code() in TOPIC_ERRORS:
            return TopicUnfit(
                f"the topic or partition that a record came from is gone ({error.str()}); {account}",
                remedy="publish the command to the topic that took its place, then discard the record",
            )
        if error.code() in VERDICTS:
            return self._trouble.refused(error, account)
        return self._trouble.unanswered(error.str(), account, AGAIN)

    def _produce(self, letter: L, acknowledged: list[L]) -> None:
        record = letter.record
        report = partial(self._report, letter, acknowledged)
        while self._error is None:
            try:
                self._producer.produce(
                    letter.lane.topic,
                    record.value,
                    record.key,
                    partition=letter.lane.partition,
                    headers=[*record.headers] if record.headers is not None else None,
                    on_delivery=report,
                )
                self._serve(self._producer.poll, 0)
                return
            except BufferError:
                self._serve(self._producer.poll, QUEUE_POLL_S)
            except KafkaException as error:
                self._error = error.args[0]
                self._serve(self._producer.poll, 0)  # where the client has ended, this brings why

    def _serve(self, call: Callable[[float], object], timeout_s: float) -> None:
        self._error = serve(call, timeout_s) or self._error

    def _report(self, letter: L, acknowledged: list[L], error: KafkaError | None, _: Message) -> None:
        if error is None:
            acknowledged.append(letter)
        else:
            self._error = self._error or error
