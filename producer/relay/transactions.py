"""Kafka's transactions, one after the other, by a producer that fences any other of its name."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from ledger import failpoints
from ledger.errors import BrokerUnavailable, Defect, LedgerError, RelayTaken, TopicUnfit
from producer import client
from producer.faults import TOPIC_ERRORS, VERDICTS, Trouble, kafka_error, serve
from producer.relay.outputs import OutgoingRecord

REQUEST_TIMEOUT_S = 3.0
"""How long one request to the coordinator is waited for at a time; then it is looked whether to end."""
PATIENCE_S = 10.0
"""After that the session is given up; the next one finds what became of it."""
QUEUE_POLL_S = 0.1
SERVED_EVERY = 100
"""Records between two looks at what became of those before."""
TRANSACTION_TIMEOUT_MS = 60_000
FENCED = {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}
ANY_ERROR = (KafkaException, SystemError)
"""The second: the client went on to call us back while the first was pending."""
PURGED = {KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT}
"""What becomes of the rest once a transaction has failed for another reason."""


class Transactions:
    """One session of the relay's producer. After any error it is of no use: `close` it, and open another."""

    def __init__(self, kafka: Mapping[str, Any], name: str, is_over: Callable[[], bool]) -> None:
        settings = client.complete(kafka)
        settings |= {"transactional.id": name, "transaction.timeout.ms": str(TRANSACTION_TIMEOUT_MS)}
        self._name = name
        self._is_over = is_over
        self._trouble = Trouble(settings["bootstrap.servers"])
        self._failed: KafkaError | None = None
        self._over_at = math.inf
        """When the broker undoes the transaction that is open."""
        self._producer: Producer = client.make_producer(settings, self._trouble.note)

    def begin_session(self) -> None:
        """Fence who had the name before; what that one left open is decided when this returns.

        Raises BrokerUnavailable, or another LedgerError for what waiting won't mend.
        """
        self._patiently(self._producer.init_transactions)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is sent within is there as a whole, or not at all. Raises LedgerError."""
        try:
            self._over_at = time.monotonic() + TRANSACTION_TIMEOUT_MS / 1000
            self._producer.begin_transaction()
            yield
            failpoints.hit("relay.sent")
            self._patiently(self._producer.commit_transaction)
            failpoints.hit("relay.committed")
        except ANY_ERROR as error:
            self._fail(kafka_error(error))

    def send(self, records: Iterable[OutgoingRecord]) -> int:
        """Hand these over, in this order; returns how many they were."""
        sent = 0
        produce, note = self._producer.produce, self._note
        for topic, key, value, headers in records:
            while True:
                try:
                    produce(topic, value, key, headers=headers, on_delivery=note)  # type: ignore[arg-type]
                    break
                except BufferError:
                    self._serve(QUEUE_POLL_S)
            sent += 1
            if not sent % SERVED_EVERY:
                self._serve(0)
        return sent

    def _serve(self, timeout_s: float) -> None:
        """Let the client call back. Raises what has come to nothing."""
        if error := serve(self._producer.poll, timeout_s) or self._failed:
            self._fail(error)

    def close(self) -> None:
        """Leave; what is open is undone by the next session, or by the broker when its time is up."""
        self._producer.purge(in_queue=True, in_flight=True, blocking=False)

    def _note(self, error: KafkaError | None, message: Message) -> None:
        if error and error.code() not in PURGED and self._failed is None:
            self._failed = error

    def _patiently(self, request: Callable[[float], object]) -> None:
        """Ask again as long as the client says that it helps. Asked again, it is still the same request."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                request(REQUEST_TIMEOUT_S)
            except ANY_ERROR as error:
                code = kafka_error(error)
                if code.retriable() and not self._is_over() and time.monotonic() < until:
                    continue
                self._fail(code)
            return

    def _fail(self, error: KafkaError) -> NoReturn:
        if error.code() == KafkaError._FATAL:
            error = self._reason(error)
        raise self._fault(self._failed if self._failed and not error.fatal() else error) from None

    def _reason(self, error: KafkaError) -> KafkaError:
        """To produce says no more than that there is a fatal error; to abort says which."""
        try:
            self._producer.abort_transaction(REQUEST_TIMEOUT_S)
        except ANY_ERROR as said:
            return kafka_error(said)
        return error

    def _fault(self, error: KafkaError) -> LedgerError:
        if error.code() in FENCED and time.monotonic() > self._over_at:
            return BrokerUnavailable("the relay's transaction took too long, and the broker has undone it")
        if error.code() in FENCED:
            return RelayTaken(
                f"another relay with the name {self._name} has taken over; this one can write no more",
                remedy="leave the other one at work, or end it and start this one again",
            )
        if error.code() in TOPIC_ERRORS:
            return TopicUnfit(
                f"the relay can't write to one of its topics ({error.str()}); nothing of this step is there",
                remedy="stockledger doctor",
            )
        if error.code() in VERDICTS:
            return Defect(f"the broker refuses a record of the relay: {error.name()}: {error.str()}")
        return BrokerUnavailable(
            f"the relay's transaction came to nothing ({self._trouble.cause or error.str()})"
        )
