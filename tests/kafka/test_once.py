"""Once, however often and in whatever shape a command arrives; what is no command is kept and passed by."""

import json

import pytest

from ledger.domain.outcome import Outcome
from tests.support.publish import buys, fields_of, headers_of, says, shop, structured


@pytest.fixture
def group(new_group):
    return new_group(partitions=3)


@pytest.fixture
def sender(group, publisher):
    """A producer of the group's topic; the shop is set up already."""
    sender = publisher(group)
    sender.send(*shop(), partition=0)
    sender.flush()
    group.catch_up()
    return sender


def test_duplicates_in_a_batch_across_batches_partitions_and_restarts_count_once(group, sender):
    """However often a command is delivered, its effect is there once; every repeat is a `duplicate`."""
    purchases = [buys(f"p{n}", quantity=n + 1) for n in range(20)]
    for partition in range(3):
        sender.send(*purchases, *purchases[:5], partition=partition)
    sender.flush()
    group.catch_up(batch_size_max=7)
    sender.send(*purchases, *shop(), partition=1)
    sender.flush()
    totals = group.catch_up()
    assert totals.counts == {Outcome.DUPLICATE: 23}
    group.prove(sender, tally={"applied": 23, "duplicate": 3 * 25 - 20 + 23})


def test_a_repeated_rejection_keeps_its_first_answer(group, sender):
    """An id that was once out of stock stays rejected, whatever is received since."""
    wanted = buys("late", quantity=1001)
    sender.send(wanted, says("ReceiveStock", "more", goods_id="tea", quantity=10_000), wanted, partition=0)
    sender.flush()
    group.catch_up()
    sender.send(wanted, partition=2)
    sender.flush()
    group.catch_up()
    model = group.prove(sender, tally={"applied": 4, "rejected": 1, "duplicate": 2})
    assert model.outcomes["shop", "late"] == ("rejected", "insufficient_stock")


def test_a_known_id_with_another_payload_is_a_conflict_with_evidence(group, sender):
    """It is never applied; both fingerprints and both deliveries are kept, in a batch and across lanes."""
    sender.send(buys("p", quantity=1), buys("p", quantity=2), partition=0)
    sender.flush()
    group.catch_up()
    sender.send(buys("p", quantity=3), buys("p", quantity=1), partition=1)
    sender.send(buys("p", quantity=1, source="other"), partition=1)
    sender.flush()
    group.catch_up()
    group.prove(sender, tally={"applied": 5, "conflict": 2, "duplicate": 1})
    rows = group.ask(
        """SELECT first_partition, first_offset, second_partition, second_offset,
                  first_fingerprint, second_fingerprint
           FROM ledger.conflicts ORDER BY second_partition"""
    )
    assert [row[:4] for row in rows] == [(0, 3, 0, 4), (0, 3, 1, 0)]
    assert rows[0][4] == rows[1][4]
    assert len({rows[0][4], rows[0][5], rows[1][5]}) == 3


GOOD = buys("bad", quantity=3)
FIELDS = fields_of(GOOD)


def with_value(value):
    return headers_of(GOOD), value


def with_field(**changed):
    return headers_of(GOOD), json.dumps({**FIELDS, **changed}).encode()


def with_text(old, new):
    return headers_of(GOOD), json.dumps(FIELDS).encode().replace(old, new)


def with_header(name, *values):
    kept = [(n, v) for n, v in headers_of(GOOD) if n != name]
    return [*kept, *((name, value) for value in values)], json.dumps(FIELDS).encode()


def in_structured(**changed):
    headers, value = structured(GOOD)
    event = {**json.loads(value), **changed}
    return headers, json.dumps({name: v for name, v in event.items() if v is not None}).encode()


BAD = {
    "tombstone": [with_value(None)],
    "encoding": [
        with_text(b"anna", b"ann\xe4"),
        with_value(json.dumps(FIELDS).encode("utf-16")),
        with_header("content-type", b"application/json; charset=latin-1"),
    ],
    "json": [
        with_value(b""),
        with_value(b"null"),
        with_value(b"[1]"),
        with_value(b"not json"),
        with_value(b"[" * 200_000),
        with_value(b"\xef\xbb\xbf" + json.dumps(FIELDS).encode()),
        with_text(b"3", b"NaN"),
        with_text(b"3", b"1e400"),
        with_text(b"3", b"3.0"),
        with_text(b"3", b"1e3"),
        with_text(b"3", b"9" * 5000),
        with_text(b'"quantity": 3', b'"quantity": 3, "quantity": 4'),
        in_structured(data="text"),
    ],
    "field": [
        with_field(quantity=0),
        with_field(quantity=-3),
        with_field(quantity=2**70),
        with_field(quantity=True),
        with_field(quantity="3"),
        with_field(extra=1),
        with_field(goods_id="tea\0"),
        with_field(goods_id=" tea"),
        with_field(goods_id="\ud800"),
        with_field(goods_id="e\u0301"),
        with_field(goods_id="x" * 65),
        with_value(b"{}"),
    ],
    "unknown_type": [
        with_header("ce_type", b"stockledger.PurchaseGoods.v2"),
        with_header("ce_type", b"com.example.order.created"),
    ],
    "attribute": [
        with_header("ce_id"),
        with_header("ce_id", b""),
        with_header("ce_id", b"x" * 129),
        with_header("ce_id", "é".encode()),
        with_header("ce_source", b"\xff"),
        with_header("ce_specversion", b"0.3"),
        with_header("ce_specversion", None),
        ([], json.dumps(FIELDS).encode()),
        in_structured(id=7),
    ],
    "repeated_attribute": [with_header("ce_id", b"bad", b"bad"), with_header("content-type", b"a", b"b")],
    "content_type": [
        with_header("content-type", b"application/avro"),
        in_structured(datacontenttype="text/xml"),
    ],
    "data_base64": [in_structured(data=None, data_base64="e30=")],
}


def test_what_is_no_command_is_kept_byte_for_byte_and_the_lane_goes_on(group, sender):
    """Every kind of bad record ends as a dead letter with its code; its neighbours are applied, in order."""
    kinds = [(code, *record) for code, records in BAD.items() for record in records]
    for number, (_, headers, value) in enumerate(kinds):
        sender.send_raw(value, headers, key=bytes([number, 0, 255]), partition=0)
        sender.send(buys(f"p{number}"), partition=0)
    sender.send_raw(b"\xff" * 900_000, partition=0)
    sender.flush()
    group.catch_up(batch_size_max=9)
    group.prove(sender, tally={"applied": 3 + len(kinds), "dead": len(kinds) + 1})
    codes = group.ask('SELECT code FROM ledger.dead_letters ORDER BY "offset"')
    assert [code for (code,) in codes][:-1] == [code for code, *_ in kinds]


def test_a_repaired_record_with_the_same_id_is_applied(group, sender):
    """A dead record is never registered: its id is free for the command that was meant."""
    headers, value = with_field(quantity="3")
    sender.send_raw(value, headers, partition=0)
    sender.send(GOOD, GOOD, partition=0)
    sender.flush()
    group.catch_up()
    group.prove(sender, tally={"applied": 4, "dead": 1, "duplicate": 1})


@pytest.mark.parametrize("partitioner", ["murmur2_random", "random", "consistent_random", "fnv1a"])
def test_any_partitioner_may_be_used(group, sender, publisher, partitioner):
    """Wherever a record lands it counts once; the same commands by another partitioner are duplicates."""
    other = publisher(group, partitioner=partitioner)
    goods = [f"goods-{n}" for n in range(12)]
    sender.send(*(line for line in shop(goods=goods) if line["id"] != "user-anna"), partition=0)
    sender.flush()
    group.catch_up()
    for name in goods:
        purchases = [buys(f"{name}-{n}", goods=name, quantity=300) for n in range(5)]
        sender.send(*purchases)
        other.send(*purchases)
    sender.flush()
    other.flush()
    group.catch_up(batch_size_max=11)
    model = group.prove(sender, other)
    assert model.tally["duplicate"] == 60
    assert model.stock == dict.fromkeys(goods, 100) | {"tea": 1000}


def test_any_cloudevents_client_may_write_the_topic(group, sender):
    """Structured or binary mode, any field order and white space, unknown headers, no record key."""
    first, second, third = buys("s1"), buys("b2", quantity=2), buys("k3", unit_price_minor=199)
    headers, value = structured(first)
    sender.send_raw(value, headers, line=first, partition=0)
    sender.send(first, partition=0)  # the same in binary mode
    more = [
        ("ce_time", b"2026-01-02T03:04:05Z"),
        ("ce_subject", b"tea"),
        ("traceparent", b"00-1-2"),
        ("x", None),
    ]
    pretty = json.dumps(dict(reversed(fields_of(second).items())), indent=4).encode()
    sender.send_raw(pretty, [*headers_of(second), *more], key=b"whatever", line=second, partition=0)
    sender.send(second, partition=1)
    bare = [
        (name, value) for name, value in headers_of(third) if name != "content-type"
    ]  # as kcat -H has them
    null = json.dumps(fields_of(third) | {"unit_price_minor": None}).encode()
    sender.send_raw(json.dumps(fields_of(third)).encode(), bare, line=third, partition=0)
    sender.send_raw(null, bare, line=third | {"unit_price_minor": None}, partition=0)
    sender.flush()
    group.catch_up()
    group.prove(sender, tally={"applied": 6, "duplicate": 2, "conflict": 1})
