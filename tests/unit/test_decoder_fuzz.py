"""Whatever the bytes are, a record is exactly one of a command or dead, and storable. Nothing is raised."""

import json
import re
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ledger.domain.delivery import Bad, Headers, Request
from ledger.domain.envelope import DETAIL_MAX, encode, fingerprint, judge, parse_fields
from tests.support.codecs import decode
from tests.unit.strategies import commands, keys, quick

QUICK = quick(100)

CODES = {
    "attribute",
    "content_type",
    "data_base64",
    "encoding",
    "field",
    "json",
    "repeated_attribute",
    "tombstone",
    "unknown_type",
}
"""The words for a dead record that the decoder gives. Stored and shown: none is renamed."""

JSON_TYPES = [b"application/json", b"application/cloudevents+json"]
NAMES = [
    "ce_specversion",
    "ce_id",
    "ce_source",
    "ce_type",
    "ce_time",
    "content-type",
    "CE_ID",
    "x",
    "",
    "ce_\0é",
]
VALUES = [
    *JSON_TYPES,
    b"application/json; charset=\0",
    *rb"1.0 stockledger.ListGoods.v1".split(),
    b"\xff",
    b"\0",
]
TYPES = [b"text/plain", b"application/avro", b"application/json; charset=utf-16", *JSON_TYPES]
TOKENS = [
    *rb'NaN -Infinity 1e400 1.0 -0 0 true null 9223372036854775808 ] } {} [] "" " \ , :'.split(),
    *rb'\u0000 \ud800 "\u0000" "\ud800" "\udc00\ud800" "e\u0301"'.split(),
    *(b" ", b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"9" * 5000, b"[" * 5000, b'{"a":' * 5000),
]
MEMBERS = rb'"quantity":1, "name":"x", "note":null, "colour":1, "\u0000":1, "\ud800":1,'.split()

names = st.sampled_from(NAMES) | st.text(max_size=20)
values = st.none() | st.sampled_from(VALUES) | st.binary(max_size=40)
arbitrary_headers = st.none() | st.lists(st.tuples(names, values), max_size=8)


def assert_one_answer(headers: Headers | None, value: bytes | None) -> Request | Bad:
    """The property: one of the two, storable, the same when asked again, and what the models alone say."""
    found = decode(headers, value)
    assert decode(headers, value) == judge(headers, value) == found
    if type(found) is Bad:
        assert found.code in CODES
        assert found.detail
        assert len(found.detail) <= DETAIL_MAX
        assert_storable(found.detail)
    else:
        assert type(found) is Request
        assert_storable(found.key)
        assert_storable(found.command)
        assert found.fingerprint == fingerprint(found.key, found.command)
        assert decode(*encode(found.key, found.command)) == found  # what was taken in can be sent again
    return found


def assert_storable(value: Any) -> None:
    """Postgres can hold it: every text is UTF-8 without NUL, every number a bigint."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.astuple(value)
    if isinstance(value, str):
        assert "\0" not in value
        value.encode()
    elif isinstance(value, int):
        assert type(value) is int
        assert -(2**63) <= value < 2**63
    elif value is not None:
        for each in value:
            assert_storable(each)


@QUICK
@given(arbitrary_headers, st.none() | st.binary(max_size=200))
def test_arbitrary_records(headers, value):
    """Any headers with any bytes."""
    assert_one_answer(headers, value)


texts = st.text(st.characters(), max_size=8) | st.sampled_from(
    ["\ud800", "\0", "e\u0301", "1.0", "tea", "x" * 201]
)
fields = st.sampled_from(
    ["goods_id", "user_id", "quantity", "delta", "name", "note", "purchase_id", "colour"]
)
trees = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | texts
    | st.just("tea")
    | st.just(5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(fields | texts, children, max_size=4),
    max_leaves=8,
)
types = st.sampled_from(
    [
        f"stockledger.{name}.v1"
        for name in ("ListGoods", "ReceiveStock", "PurchaseGoods", "CancelPurchase", "X")
    ]
)
objects = st.dictionaries(fields, st.just("tea") | st.just(5) | trees, max_size=4)


@QUICK
@given(types, objects | trees, st.booleans())
def test_arbitrary_json_in_binary_mode(type_, data, ascii_only):
    """Any JSON under valid headers."""
    headers: Headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"1"),
        ("ce_source", b"s"),
        ("ce_type", type_.encode()),
    ]
    assert_one_answer(headers, json.dumps(data, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))


@QUICK
@given(
    st.fixed_dictionaries(
        {"specversion": st.just("1.0") | trees, "id": st.just("1") | trees, "type": types | texts | trees},
        optional={
            "source": st.just("s") | trees,
            "data": objects | trees,
            "datacontenttype": st.sampled_from(["application/json", "text/x\0"]) | trees,
            "data_base64": trees,
            "ext": trees,
        },
    ),
    st.sampled_from(["", "; charset=UTF-8", "; charset=\0", "-batch"]),
)
def test_arbitrary_json_in_structured_mode(event, parameters):
    """Any JSON where the attributes and the data of an event would be."""
    assert_one_answer(
        [("content-type", f"application/cloudevents+json{parameters}".encode())], json.dumps(event).encode()
    )


keys_with_colons = st.sampled_from(["a", "b", ":", "a:", 'a":"b'])
colons = st.sampled_from([":", r"\u003a", r"\u003A"])
plain_values = st.sampled_from(["1", "null", "[1]", "{}", r'"x\":\"::"', r'"\u003a"'])


@st.composite
def written_objects(draw: st.DrawFn, depth: int = 2) -> tuple[str, bool]:
    """An object as JSON text, and whether it or one inside it repeats a key. Colons hide in texts."""
    names = draw(st.lists(keys_with_colons, max_size=4))
    repeated = len(set(names)) != len(names)
    members = []
    for name in names:
        value = draw(plain_values)
        if depth and draw(st.booleans()):
            inner, inner_repeated = draw(written_objects(depth - 1))
            value, repeated = draw(st.sampled_from([inner, f"[{inner}]"])), repeated or inner_repeated
        members.append(json.dumps(name).replace(":", draw(colons)) + ":" + value)
    return "{" + ",".join(members) + "}", repeated


@QUICK
@given(written_objects())
def test_repeated_keys_are_found_wherever_they_are(case):
    """A JSON object is refused if, and only if, it or one inside it repeats a key, however it is spelt."""
    text, repeated = case
    if repeated:
        with pytest.raises(ValueError, match="repeated key"):
            parse_fields(text)
    else:
        assert parse_fields(text) == json.loads(text)


@st.composite
def mutated(draw: st.DrawFn) -> tuple[Headers, bytes]:
    """A valid record, in either mode, with up to three things done to it."""
    key, command = draw(keys), draw(commands)
    headers, value = encode(key, command)
    if draw(st.booleans()):
        event = {
            "specversion": "1.0",
            "id": key.id,
            "source": key.source,
            "type": f"stockledger.{command.NAME}.v1",
        }
        value = json.dumps(event | {"data": json.loads(value)}).encode()
        headers = [("content-type", b"application/cloudevents+json")]
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(value)))
        end = draw(st.integers(at, min(len(value), at + 9)))
        which = draw(st.integers(0, len(headers))) % max(len(headers), 1)
        match draw(st.integers(0, 12)):
            case 0 | 1:
                value = value[:at] + draw(st.sampled_from(TOKENS)) + value[at:]
            case 2:
                value = value[:at] + draw(st.sampled_from(TOKENS)) + value[end:]
            case 3:
                value = value[:at] + draw(st.binary(max_size=3)) + value[end:]
            case 4:
                value = value[:at] + value[at:end] * 2 + value[end:]
            case 5:
                headers = [*headers, (draw(names), draw(values))]
            case 6:
                headers = headers[:which] + headers[which + 1 :]
            case 7 if headers:
                headers = [*headers[:which], (headers[which][0], draw(values)), *headers[which + 1 :]]
            case 8 if headers:
                headers = [*headers, headers[which]]
            case 9:
                before, _, after = value.rpartition(b"{")
                value = before + b"{" + draw(st.sampled_from(MEMBERS)) + after
            case 10:
                value = re.sub(rb"\d+", lambda _: draw(st.sampled_from(TOKENS)), value, count=1)
            case 11:
                headers = [header for header in headers if header[0] != "content-type"]
                headers = [*headers, ("content-type", draw(st.sampled_from(TYPES)))]
            case 12:
                value = value.replace(b".v1", b".v2")
                headers = [(name, raw and raw.replace(b".v1", b".v2")) for name, raw in headers]
    return headers, value


@QUICK
@given(mutated())
@example(([("content-type", b"application/json\xff")], b"{}"))
@example(([("ce_id", b"1"), ("ce_id\0", b"1"), ("ce_\0", b"1"), ("ce_\0", b"1")], b"{}"))
@example(([], b"[" * 100_000))
def test_mutated_records(record):
    """Valid records, cut, spliced and with their headers changed: the neighbourhood of what is accepted."""
    assert_one_answer(*record)


def test_the_fuzzer_reaches_every_answer():
    """The generator is audited: commands and every code that a mutation can cause come out of it."""
    seen: Counter[str] = Counter()

    @settings(max_examples=400, derandomize=True, database=None)
    @given(mutated())
    def watch(record):
        found = decode(*record)
        seen[found.code if isinstance(found, Bad) else "command"] += 1

    watch()
    assert seen.keys() >= (CODES | {"command"}) - {"tombstone", "data_base64"}, seen
    assert seen["command"] >= 25, seen


tellings = {
    "goods_id": ['"tea"', '"a:b"', r'"a\u003ab"', '"\u00e9"', '"e\u0301"', '" tea"', '""', "7", "null"],
    "user_id": ['"anna"', r'"\u0061nna"', '"an na"', r'"\ud83d\ude00"', r'"\ud800"', r'"\t"'],
    "quantity": ["1", "-0", "1.0", "1e0", "01", "1000000000", "1000000001", "true", '"1"', "9" * 30],
    "unit_price_minor": ["0", "null", "-1", "10.0", "1000000000000", "NaN"],
    "colour": ["1", "null"],
}


@st.composite
def told_purchases(draw: st.DrawFn) -> str:
    """A purchase as JSON text, right in most fields, in any order, some of them twice or spelt oddly."""
    names = draw(st.permutations(["goods_id", "user_id", "quantity"]))
    names += draw(st.lists(st.sampled_from(list(tellings)), max_size=2))
    spelt = {
        name: draw(st.sampled_from([name, name, name, rf"\u{ord(name[0]):04x}{name[1:]}"])) for name in names
    }
    gap = draw(st.sampled_from(["", "", " ", "\n\t", "\u00a0"]))
    values = [draw(st.sampled_from(tellings[name][:1] * 5 + tellings[name])) for name in names]
    members = (f'"{spelt[name]}"{gap}:{gap}{value}' for name, value in zip(names, values, strict=True))
    return "{" + f"{gap},".join(members) + "}" + draw(st.sampled_from(["", "", gap, "x", "\0"]))


@settings(QUICK, max_examples=500)
@given(told_purchases())
def test_both_modes_take_the_same_payloads(text):
    """What is a command's payload, however it is written, does not depend on the mode that it comes in."""
    attributes = {"specversion": "1.0", "id": "1", "source": "s", "type": "stockledger.PurchaseGoods.v1"}
    binary = decode([(f"ce_{name}", value.encode()) for name, value in attributes.items()], text.encode())
    event = f'{json.dumps(attributes)[:-1]},"data":{text}}}'
    structured = decode([("content-type", b"application/cloudevents+json")], event.encode())
    if isinstance(binary, Request) or isinstance(structured, Request):
        assert binary == structured
