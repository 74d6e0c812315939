"""Traces: what a command takes along, what of it is believed, and nothing at all where nobody traces."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind

from consumer.traces import LINKS_MAX, spans_of
from gateway.sender import Order
from gateway.traces import traced
from ledger import failpoints
from ledger.domain.commands import MessageKey, PurchaseGoods
from ledger.domain.delivery import Batch, Delivery, Lane, Request, pack
from ledger.domain.envelope import decode, encode
from ledger.errors import Fenced
from ledger.telemetry import tracing
from producer.relay.traces import Untold, relay_spans
from producer.traces import SendSpans
from tests.support.spans import recording

KEY = MessageKey("shop", "order-1")
COMMAND = PurchaseGoods(user_id="anna", goods_id="tea", quantity=1)
LANE = Lane("commands", 3)
TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = f"00-{TRACE}-b7ad6b7169203331-01"
UNSAMPLED = SAMPLED[:-2] + "02"


def record(*extra, offset=0):
    """A delivery of the command with these headers besides its own."""
    headers, value = encode(KEY, COMMAND)
    headers = [*headers, *extra]
    return Delivery(offset, decode(headers, value), pack(b"tea", value, headers))


def batch(*deliveries):
    return Batch(LANE, 0, len(deliveries), list(deliveries))


def parent(value):
    return tracing.TRACEPARENT, value.encode() if isinstance(value, str) else value


def applied(recorded, *deliveries):
    """The span of a batch of these."""
    with spans_of("stock").applying(batch(*deliveries), {}):
        pass
    return recorded.named("process commands")[-1]


# What a command takes along


@pytest.mark.parametrize(
    "extra",
    [
        [parent(SAMPLED)],
        [parent(SAMPLED), ("ce_tracestate", b"vendor=1")],
        [parent("nonsense")],
        [parent(b"\xff\xfe")],
        [parent(None)],
    ],
)
def test_a_command_is_the_same_in_whichever_trace(extra):
    """Neither field counts for the fingerprint: a retry in another trace is a repeat, never a conflict."""
    found = record(*extra).content
    assert isinstance(found, Request)
    assert found == record().content


def test_a_sent_command_is_found_again(monkeypatch):
    """What a span puts into the headers is read back as that span."""
    recording(monkeypatch)
    tracer = tracing.tracer()
    assert tracer
    with tracing.spanning(tracer, "x", SpanKind.PRODUCER, {}) as span:
        headers = tracing.carried(span)
    assert [name for name, _ in headers] == [tracing.TRACEPARENT]
    here, there = span.get_span_context(), tracing.taken_along(headers)
    assert (there.trace_id, there.span_id, there.trace_flags) == (
        here.trace_id, here.span_id, here.trace_flags,
    )  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(["ce_traceparent", "ce_tracestate", "ce_id"]), st.binary())))
def test_any_bytes_may_stand_there(headers):
    """Whatever a stranger writes into the headers, it is a trace or none."""
    assert tracing.taken_along(headers).is_valid in (True, False)


# A worker's batch


def test_a_batch_links_to_its_commands(monkeypatch):
    """To those that are recorded somewhere, with their places; the others are looked at no further."""
    recorded = recording(monkeypatch)
    span = applied(
        recorded,
        record(parent(SAMPLED), offset=0),
        record(offset=1),
        record(parent(UNSAMPLED), offset=2),
        record(parent("nonsense"), offset=3),
        record(parent(SAMPLED), offset=4),
    )
    assert [f"{link.context.trace_id:032x}" for link in span.links] == [TRACE] * 2
    assert [dict(link.attributes or {}) for link in span.links] == [tracing.place(3, at) for at in (0, 4)]
    assert span.attributes == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "commands",
        "messaging.destination.partition.id": "3",
        "messaging.consumer.group.name": "stock",
        "messaging.batch.message_count": 5,
        "stockledger.first_offset": 0,
        "stockledger.next_offset": 5,
        "stockledger.links_left_out": 0,
    }


def test_links_are_bounded(monkeypatch):
    """A batch of thousands has so many links and no more, and says how many it hasn't."""
    recorded = recording(monkeypatch)
    span = applied(recorded, *(record(parent(SAMPLED), offset=n) for n in range(LINKS_MAX + 7)))
    assert len(span.links) == LINKS_MAX
    assert span.attributes
    assert span.attributes["stockledger.links_left_out"] == 7


def test_a_batch_that_came_to_nothing_says_so(monkeypatch):
    """By the error's code, without its text: that may quote ids."""
    recorded = recording(monkeypatch)
    with pytest.raises(Fenced), spans_of("stock").applying(batch(record()), {}):
        raise Fenced("of anna's tea")
    [span] = recorded.named("process commands")
    assert span.attributes
    assert span.attributes["error.type"] == Fenced.code
    assert not span.status.is_ok
    assert "anna" not in span.to_json()


def test_each_try_to_commit_is_one(monkeypatch):
    """A try that is begun anew, or given up, has failed; the one that is committed hasn't."""
    recorded = recording(monkeypatch)
    with spans_of("stock").applying(batch(record()), {}):
        for step in ("begin", "dedup", "seal", "begin", "seal", "committed", "begin", "seal"):
            failpoints.hit(step)
    tries = recorded.named("commit commands")
    assert [span.status.is_ok for span in tries] == [False, True, False]
    [whole] = recorded.named("process commands")
    assert whole.context
    assert {span.parent.span_id for span in tries if span.parent} == {whole.context.span_id}


# Where nobody traces


def test_nothing_is_done_where_nobody_traces():
    """No record is looked at, nothing stands around the gateway, and a publisher asks nobody."""

    class Untouchable(Delivery, frozen=True, gc=False):
        @property
        def record(self):
            raise AssertionError("it was looked at")

    seen = Untouchable(0, record().content, record(parent(SAMPLED)).packed)
    with spans_of("stock").applying(batch(seen), {}):
        pass
    assert SendSpans.of("commands") is None
    assert type(relay_spans()) is Untold
    app = object()
    assert traced(app) is app  # type: ignore[arg-type]


def test_what_is_not_sampled_still_goes_along(monkeypatch):
    """W3C: whoever is asked later knows that nothing of this trace is kept."""
    recorded = recording(monkeypatch, ALWAYS_OFF)
    spans = SendSpans.of("commands")
    assert spans
    with tracing.spanning(spans._tracer, "above", SpanKind.SERVER, {}) as above:
        [(name, value)] = tracing.carried(above)
    assert (name, int((value or b"")[-2:], 16) % 2) == (tracing.TRACEPARENT, 0)
    assert recorded.named("above") == []


def test_an_order_knows_who_ordered_it(monkeypatch):
    """It is sent by another thread, in the trace in which it was made."""
    recording(monkeypatch)
    tracer = tracing.tracer()
    assert tracer
    with tracing.spanning(tracer, "request", SpanKind.SERVER, {}):
        order, here = Order(KEY, COMMAND), tracing.trace_id()
    assert here
    assert tracing.trace_id() == ""
    assert order.context.run(tracing.trace_id) == here


def test_the_sdk_is_imported_by_nobody_who_has_no_use_for_it():
    """Every verb's imports, without the variables: OpenTelemetry's interface alone."""
    script = (
        "import sys\n"
        "from consumer import supervisor; from gateway import server; from producer import publisher\n"
        "from producer.relay import relay; from ledger.telemetry.exporting import exported\n"
        "with exported('x', print): pass\n"
        "print([m for m in sys.modules if m.startswith('opentelemetry.sdk')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
