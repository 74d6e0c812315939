"""The relay's spans while somebody traces (`RelaySpans`); else nothing (`Untold`).

They stand alone. The journal doesn't keep in which trace a command was sent, and a relay that makes one up
would tell the readers of its topics something that isn't so.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby

from opentelemetry.trace import SpanKind, Tracer

from ledger.telemetry import tracing
from producer.relay.outputs import OutgoingRecord


class Untold:
    """Nobody traces."""

    def step(self, first: int, last: int) -> AbstractContextManager[object]:
        """While this the journal's entries at these positions are published, as one transaction."""
        return nullcontext()

    def sent(self, records: Iterable[OutgoingRecord]) -> Iterable[OutgoingRecord]:
        """The same records, on their way."""
        return records


class RelaySpans(Untold):
    """A span for each step, and within it one for all that goes to a topic in a row."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def step(self, first: int, last: int) -> AbstractContextManager[object]:
        positions: tracing.Attributes = {
            "stockledger.first_position": first,
            "stockledger.last_position": last,
        }
        return tracing.spanning(self._tracer, "relay", SpanKind.INTERNAL, positions)

    def sent(self, records: Iterable[OutgoingRecord]) -> Iterator[OutgoingRecord]:
        for topic, group in groupby(records, key=lambda record: record.topic):
            together = [*group]
            attributes = tracing.messaging("send", "send", topic)
            attributes["messaging.batch.message_count"] = len(together)
            # Not as the current one: what is current in a generator that nobody finishes would stay so.
            span = self._tracer.start_span(f"send {topic}", kind=SpanKind.PRODUCER, attributes=attributes)
            try:
                yield from together
            finally:
                span.end()


def relay_spans() -> Untold:
    """Those of a relay, as far as somebody traces."""
    tracer = tracing.tracer()
    return RelaySpans(tracer) if tracer else Untold()
