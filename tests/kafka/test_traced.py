"""Traces from the request to the batch, and of the relay, on real services: what they say, and what not."""

import json

import pytest
from opentelemetry.trace import SpanKind

from consumer import records
from ledger import failpoints
from ledger.domain.delivery import Lane
from ledger.signals import Asked
from producer.publisher import Publisher
from producer.relay.outputs import Outputs
from producer.relay.relay import Relay, RelayTerms
from producer.relay.told import RelayLog
from stockledger import PurchaseGoods, relay_topics
from tests.support.doorstep import gateway, settings_of
from tests.support.publish import buys
from tests.support.spans import recording

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CLIENT = f"00-{TRACE}-{SPAN}-01"
USER, GOODS = "anna", "tea"


class Silent(RelayLog):
    """Nobody wants to know how it goes."""

    def ready(self, after):
        return

    def relayed(self, step):
        return

    def status(self, at, lag):
        return

    def waiting(self, cause):
        raise cause


def key(span):
    """Which span it is, by trace and own id."""
    return span.context.trace_id, span.context.span_id


def above(span):
    """Which span it is a child of."""
    return (span.parent.trace_id, span.parent.span_id) if span.parent else None


def linked(span):
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


@pytest.fixture
def group(new_group):
    return new_group(partitions=1)


@pytest.fixture
def recorded(monkeypatch, group, sender):
    """Whatever is made after the shop was set up is traced."""
    return recording(monkeypatch)


def publish(group, *ids, goods=GOODS):
    with Publisher({"bootstrap.servers": group.kafka["bootstrap.servers"]}, group.topic, "shop") as publisher:
        for id in ids:
            publisher.send(PurchaseGoods(user_id=USER, goods_id=goods, quantity=1), id=id)


def test_a_command_leads_to_its_batch(group, recorded):
    """Each is sent in a span of its own, which its record takes along, and the batch links to all of them."""
    publish(group, "p-0", "p-1", "p-2")
    sent = recorded.named(f"send {group.topic}")
    group.catch_up()
    [batch] = [span for span in recorded.named(f"process {group.topic}") if span.links]
    assert linked(batch) == [key(span) for span in sent]
    assert {(span.kind, above(span)) for span in sent} == {(SpanKind.PRODUCER, None)}
    for at, span in enumerate(sent):
        assert span.attributes["messaging.message.id"] == f"p-{at}"
        assert span.attributes["messaging.destination.partition.id"] == "0"
    places = [span.attributes["messaging.kafka.offset"] for span in sent]
    assert [link.attributes["messaging.kafka.offset"] for link in batch.links] == places
    assert batch.kind is SpanKind.CONSUMER
    assert batch.attributes["stockledger.applied"] == 3
    [commit] = [span for span in recorded.named(f"commit {group.topic}") if above(span) == key(batch)]
    assert commit.attributes["messaging.operation.type"] == "settle"
    assert commit.status.is_ok


def test_a_repeat_in_another_trace_is_a_repeat(group, recorded):
    """The second delivery of an id is in a trace of its own, and a duplicate all the same."""
    publish(group, "p-0")
    publish(group, "p-0")
    totals = group.catch_up()
    assert totals.counts == {"applied": 1, "duplicate": 1}
    assert len({key(span)[0] for span in recorded.named(f"send {group.topic}")}) == 2


def test_what_others_write_there_harms_nothing(group, sender, recorded):
    """Nonsense and bytes in place of a trace: the command counts, and its batch has no link."""
    for number, value in enumerate((b"nonsense", b"\xff\xfe", b"", None, b"00-" + b"0" * 49)):
        line = buys(f"stranger-{number}")
        headers = [
            ("ce_specversion", b"1.0"), ("ce_id", line["id"].encode()), ("ce_source", b"shop"),
            ("ce_type", b"stockledger.PurchaseGoods.v1"), ("ce_traceparent", value),
        ]  # fmt: skip
        fields = {name: line[name] for name in ("user_id", "goods_id", "quantity")}
        sender.send_raw(json.dumps(fields).encode(), headers, line=line, partition=0)
    sender.flush()
    assert group.catch_up().counts == {"applied": 5}
    assert [linked(span) for span in recorded.named(f"process {group.topic}") if span.links] == []


def test_a_batch_that_is_lost_is_a_failed_span(group, recorded, monkeypatch):
    """So is the commit that it had begun. The next batch is another span, and links to the same commands."""
    monkeypatch.setattr(failpoints, "_armed", {"sending": ("raise", 1)})
    publish(group, "p-0")
    with pytest.raises(failpoints.Injected):
        group.catch_up()
    group.catch_up()
    lost, applied = [span for span in recorded.named(f"process {group.topic}") if span.links]
    assert lost.attributes["error.type"] == "Injected"
    assert linked(lost) == linked(applied)
    assert applied.attributes["stockledger.applied"] == 1
    assert [span.status.is_ok for span in recorded.named(f"commit {group.topic}")][-2:] == [False, True]


def test_a_request_is_in_its_client_s_trace(group, recorded):
    """The server's span is the client's child, the command's is the server's, and the batch links to that."""
    with gateway(group) as door, group.running():
        assert door.buys("order-1", headers={"traceparent": CLIENT}).status == 200
        [server] = recorded.waits_for("POST /v1/purchases")
    [sent] = recorded.named(f"send {group.topic}")
    [batch] = [span for span in recorded.named(f"process {group.topic}") if span.links]
    assert above(server) == (int(TRACE, 16), int(SPAN, 16))
    assert above(sent) == key(server)
    assert linked(batch) == [key(sent)]
    assert server.kind is SpanKind.SERVER
    assert dict(server.attributes) == {
        "http.request.method": "POST",
        "url.scheme": "http",
        "http.route": "/v1/purchases",
        "http.response.status_code": 200,
    }
    lane = Lane(group.topic, 0)
    [kept] = [
        dict(each.record.headers or [])
        for each in records.deliveries(group.kafka, lane, 0, sent.attributes["messaging.kafka.offset"] + 1)
        if each.offset == sent.attributes["messaging.kafka.offset"]
    ]
    assert (kept["ce_traceparent"] or b"").decode().split("-")[1:3] == [TRACE, f"{sent.context.span_id:016x}"]


def test_a_refusal_names_its_trace(group, recorded):
    """Of an endpoint, of a line among others, of the framework and of the guard: by the client's own trace,
    else by the one that the gateway began."""
    asked = {"traceparent": CLIENT}
    lines = {"Content-Type": "application/x-ndjson", "Prefer": "wait=30"} | asked
    with gateway(group) as door, group.running():
        assert "trace_id" not in door.buys("order-1", headers=asked).body
        other = {"type": "PurchaseGoods", "id": "order-1", "user_id": USER, "goods_id": GOODS, "quantity": 2}
        [line] = door("POST", "/v1/commands", json.dumps(other), lines).body
        bad = door("GET", "/v1/stock/tea?as_of=x", headers=asked)
        none = door("GET", "/none", headers=asked)
        guarded = door("GET", "/v1/status", headers={"host": "evil.example"} | asked)
        own = door("GET", "/v1/stock/tea?as_of=x")
        spans = recorded.waits_for("GET /v1/stock/{goods_id}", times=2)
    assert (line["status"], bad.status, none.status, guarded.status) == (422, 400, 404, 400)
    assert {each["trace_id"] for each in (line, bad.body, none.body, guarded.body)} == {TRACE}
    assert [own.body["trace_id"]] == [f"{span.context.trace_id:032x}" for span in spans if not span.parent]


def test_each_endpoint_is_one_name(group, recorded):
    """Whatever is in the path. Probes have no span; what isn't there has one without a route."""
    with gateway(group) as door:
        for path in ("/livez", "/readyz", "/metrics", "/v1/stock/tea", "/v1/stock/cup", "/none"):
            door("GET", path)
        recorded.waits_for("GET")
    served = [span.name for span in recorded.all() if span.kind is SpanKind.SERVER]
    assert sorted(served) == ["GET", "GET /v1/stock/{goods_id}", "GET /v1/stock/{goods_id}"]


def test_no_span_says_who_bought_what(group, recorded):
    """Neither users nor goods nor quantities: a trace is read by more people than a ledger."""
    with gateway(group) as door, group.running():
        door.buys("order-1")
        door("GET", f"/v1/users/{USER}/purchases")
        door("GET", "/v1/stock/tea")
        recorded.waits_for("GET /v1/users/{user_id}/purchases")
        recorded.waits_for("GET /v1/stock/{goods_id}")
    everything = "".join(span.to_json() for span in recorded.all())
    assert "order-1" in everything
    assert USER not in everything
    assert f'"{GOODS}"' not in everything


@pytest.mark.real_kafka
def test_the_relay_has_a_trace_of_its_own(group, recorded, services):
    """A span a step, and one a topic within it; no record of it claims to be of another trace."""
    settings = settings_of(group)
    relay_topics.make(settings, group.topic, 1)
    outputs = Outputs.of(group.topic)
    publish(group, "p-0", "p-1")
    group.catch_up()
    try:
        terms = RelayTerms(settings.kafka_properties(), outputs, until_caught_up=True)
        topics = relay_topics.KafkaTopics(settings, group.topic)
        Relay(group.connect, topics, terms, Asked(), Silent()).run()
        [step] = recorded.named("relay")
        sent = [span for topic in outputs for span in recorded.named(f"send {topic}")]
        assert [above(span) for span in sent] == [key(step)] * 3
        published = [*records.deliveries(group.kafka, Lane(outputs.events, 0), 0, 100)]
        assert sent[0].attributes["messaging.batch.message_count"] == len(published) == 5
        names = {name for each in published for name, _ in each.record.headers or []}
        assert not any(name.endswith("traceparent") for name in names)
    finally:
        for topic in outputs:
            services.kafka.delete_topic(topic)
