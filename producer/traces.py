"""A span for each command that is sent, from the time it is queued until there is an answer."""

from collections.abc import Callable
from typing import Self

from confluent_kafka import KafkaError, Message
from opentelemetry.trace import Span, SpanKind, Tracer

from ledger.domain.envelope import TYPE_PREFIX, TYPE_VERSION
from ledger.telemetry import tracing
from producer.plain import Ready


class SendSpans:
    """Those of a topic."""

    def __init__(self, tracer: Tracer, topic: str) -> None:
        self._tracer = tracer
        self._name = f"send {topic}"
        self._attributes = tracing.messaging("send", "send", topic)

    @classmethod
    def of(cls, topic: str) -> Self | None:
        """None where nobody traces."""
        tracer = tracing.tracer()
        return cls(tracer, topic) if tracer else None

    def begin(self, ready: Ready, id: str) -> Span:
        """The span of this command, whose record is to take it along."""
        attributes = self._attributes | {
            "messaging.message.id": id,
            "cloudevents.event_source": ready.source,
            "cloudevents.event_type": f"{TYPE_PREFIX}{ready.name}{TYPE_VERSION}",
        }
        return self._tracer.start_span(self._name, kind=SpanKind.PRODUCER, attributes=attributes)


def end(
    span: Span, then: Callable[[KafkaError | None, Message], None], error: KafkaError | None, message: Message
) -> None:
    """The command's report: the span ends with it. Never raises."""
    if error:
        tracing.failed(span, error.name())
    else:
        span.set_attributes(tracing.place(message.partition() or 0, message.offset() or 0))
    span.end()
    then(error, message)


def unsent(span: Span) -> None:
    """The publisher sends no more: this one never left."""
    tracing.failed(span, "unsent")
    span.end()
