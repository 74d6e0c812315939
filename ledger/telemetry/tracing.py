"""Spans by OpenTelemetry's API, and how a command carries its trace. Without a provider there are neither.

Spans say which record it is and how it went, never what is in it: an exception's text stays out, too.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    ProxyTracerProvider,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

SCOPE = "stockledger"
EXTENSION = "ce_"
"""CloudEvents' extension "distributed-tracing": W3C's two fields as attributes of the event."""
TRACEPARENT = f"{EXTENSION}traceparent"
W3C = TraceContextTextMapPropagator()

Attributes = dict[str, str | int]


def tracer() -> Tracer | None:
    """Makes spans; None as long as no provider is set, so that whoever has none does nothing for it."""
    provider = trace.get_tracer_provider()
    return None if isinstance(provider, ProxyTracerProvider) else provider.get_tracer(SCOPE)


def messaging(operation: str, kind: str, topic: str) -> Attributes:
    """What a span about a topic has, by OpenTelemetry's conventions."""
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "messaging.destination.name": topic,
    }


def place(partition: int, offset: int) -> Attributes:
    """Where a record is."""
    return {"messaging.destination.partition.id": str(partition), "messaging.kafka.offset": offset}


@contextmanager
def spanning(
    made_by: Tracer,
    name: str,
    kind: SpanKind,
    attributes: Attributes,
    *,
    parent: Context | None = None,
    links: Sequence[Link] = (),
) -> Iterator[Span]:
    """A span of what is done meanwhile, and the current one; an exception makes it a failed one."""
    with made_by.start_as_current_span(
        name,
        parent,
        kind,
        attributes,
        links,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except Exception as error:
            failed(span, str(getattr(error, "code", type(error).__name__)))
            raise


def failed(span: Span, code: str) -> None:
    """It came to nothing; the code says why."""
    span.set_attribute("error.type", code)
    span.set_status(StatusCode.ERROR)


def carried(span: Span) -> list[tuple[str, bytes | None]]:
    """The headers by which a command takes the span along."""
    fields: dict[str, str] = {}
    W3C.inject(fields, set_span_in_context(span))
    return [(EXTENSION + name, value.encode()) for name, value in fields.items()]


def context_of(fields: Mapping[str, str]) -> Context:
    """The context that W3C's fields tell of; an empty one where they make no sense."""
    return W3C.extract(fields, Context())


def taken_along(headers: Sequence[tuple[str, bytes | None]]) -> SpanContext:
    """The span that a command was sent in; an invalid one where its headers say nothing sensible."""
    fields = {
        name.removeprefix(EXTENSION): value.decode("ascii", "replace")
        for name, value in headers
        if value and name.startswith(EXTENSION)
    }
    return get_current_span(context_of(fields)).get_span_context()


def trace_id() -> str:
    """The current trace's id, as hexadecimal; "" outside of any."""
    here = get_current_span().get_span_context()
    return f"{here.trace_id:032x}" if here.is_valid else ""
