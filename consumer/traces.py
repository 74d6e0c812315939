"""A worker's spans while somebody traces (`BatchSpans`); else nothing (`Untraced`).

A batch is one span, because it is one transaction. It links to the spans in which its commands were sent, as
far as these are recorded somewhere, up to a bound. The steps are heard of at the points where a test may
crash the worker, as `WorkerMeter` does.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

from opentelemetry.trace import Link, Span, SpanKind, Tracer

from ledger import failpoints
from ledger.domain.delivery import Batch
from ledger.domain.outcome import Outcome
from ledger.telemetry import tracing

LINKS_MAX = 128
"""Of one span: what OpenTelemetry's SDK keeps unless it is told otherwise."""
_MARK = tracing.TRACEPARENT.encode()
_UNRECORDED = b"02468ace"
"""The last digit of W3C's `traceparent`, where no span of the trace is recorded."""


class Untraced:
    """Nobody traces, so no record is looked at for it."""

    def applying(self, batch: Batch, counts: Mapping[Outcome, int]) -> AbstractContextManager[object]:
        """While this the batch is applied; `counts` then says how its deliveries ended."""
        return nullcontext()


class BatchSpans(Untraced):
    """Spans of one worker."""

    def __init__(self, tracer: Tracer, group: str) -> None:
        self._tracer = tracer
        self._group = {"messaging.consumer.group.name": group}

    @contextmanager
    def applying(self, batch: Batch, counts: Mapping[Outcome, int]) -> Iterator[None]:
        topic, partition = batch.lane
        lane = self._group | {"messaging.destination.partition.id": str(partition)}
        links, left_out = _links(batch)
        attributes = {
            **tracing.messaging("process", "process", topic),
            **lane,
            "messaging.batch.message_count": len(batch.deliveries),
            "stockledger.first_offset": batch.first_offset,
            "stockledger.next_offset": batch.next_offset,
            "stockledger.links_left_out": left_out,
        }
        settles = tracing.messaging("commit", "settle", topic) | lane | {"db.system.name": "postgresql"}
        commits = _Commits(self._tracer, f"commit {topic}", settles)
        with (
            tracing.spanning(
                self._tracer, f"process {topic}", SpanKind.CONSUMER, attributes, links=links
            ) as span,
            failpoints.watching(commits.passed),
        ):
            try:
                yield
            finally:
                commits.over()
                span.set_attributes({f"stockledger.{word}": number for word, number in counts.items()})


def spans_of(group: str) -> Untraced:
    """Those of a worker of this group, as far as somebody traces."""
    tracer = tracing.tracer()
    return BatchSpans(tracer, group) if tracer else Untraced()


class _Commits:
    """A span for each try to commit the lane's next offset with all that follows from the batch."""

    def __init__(self, tracer: Tracer, name: str, attributes: tracing.Attributes) -> None:
        self._tracer = tracer
        self._name = name
        self._attributes = attributes
        self._trying: Span | None = None

    def passed(self, step: str) -> None:
        if step == "begin":
            self.over()
        elif step == "seal":
            self._trying = self._tracer.start_span(
                self._name, kind=SpanKind.CLIENT, attributes=self._attributes
            )
        elif step == "committed" and self._trying:
            self._trying.end()
            self._trying = None

    def over(self) -> None:
        """What was tried and isn't known to be committed has failed."""
        if self._trying:
            tracing.failed(self._trying, "not committed")
            self._trying.end()
            self._trying = None


def _links(batch: Batch) -> tuple[list[Link], int]:
    """Links to where the first of its commands were sent, and how many were left out."""
    links: list[Link] = []
    left_out = 0
    for delivery in batch.deliveries:
        if _MARK not in delivery.packed:
            continue
        headers = delivery.record.headers or []
        if (dict(headers).get(tracing.TRACEPARENT) or b"")[-1:] in _UNRECORDED:  # a parser takes longer
            continue
        if len(links) == LINKS_MAX:
            left_out += 1
        elif (sent := tracing.taken_along(headers)).is_valid:
            links.append(Link(sent, tracing.place(batch.lane.partition, delivery.offset)))
    return links, left_out
