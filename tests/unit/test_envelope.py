"""The decoder, case by case: design, section 3 ("On the topic"), and the bounds of section 2."""

import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain import structs
from ledger.domain.commands import COMMANDS, ListGoods, MessageKey, ReceiveStock, record_key
from ledger.domain.delivery import Bad, Headers, Request
from ledger.domain.envelope import encode, fingerprint, request
from ledger.domain.structs import canonical
from tests.support import contract
from tests.support.codecs import decode
from tests.unit.strategies import commands, keys, quick

QUICK = quick(60)

STRUCTURED = "application/cloudevents+json"
RECEIVE = '{"goods_id":"tea","quantity":5}'
RECEIVED = ReceiveStock(goods_id="tea", quantity=5)
ATTRIBUTES = {"specversion": "1.0", "id": "1", "source": "shop", "type": "stockledger.ReceiveStock.v1"}

# One valid payload a command; each row below changes it in one place.
VALID: dict[str, dict[str, Any]] = {
    "RegisterUser": {"name": "Anna", "user_id": "anna"},
    "CloseUser": {"user_id": "anna"},
    "ListGoods": {"goods_id": "tea", "name": "Tea"},
    "ReceiveStock": {"goods_id": "tea", "quantity": 5},
    "AdjustStock": {"delta": -5, "goods_id": "tea", "note": "counted"},
    "PurchaseGoods": {"goods_id": "tea", "quantity": 5, "unit_price_minor": 250, "user_id": "anna"},
    "CancelPurchase": {"goods_id": "tea", "purchase_id": "p1", "purchase_source": "crm"},
}
FIELDS = [(name, field) for name, payload in VALID.items() for field in payload]
NUMBERS = [(name, field) for name, field in FIELDS if isinstance(VALID[name][field], int)]
TEXTS = [(name, field) for name, field in FIELDS if isinstance(VALID[name][field], str)]
OPTIONAL = [(name, field) for name, field in FIELDS if not COMMANDS[name].model_fields[field].is_required()]
REQUIRED = [pair for pair in FIELDS if pair not in OPTIONAL]
BUSINESS_IDS = [(name, field) for name, field in FIELDS if field in ("user_id", "goods_id")]
KEY_PARTS = [(name, field) for name, field in FIELDS if field in ("purchase_id", "purchase_source")]
NOTES = [(name, field) for name, field in FIELDS if field in ("name", "note")]


def headers(**changed: str | bytes | None) -> Headers:
    """The headers of a valid ReceiveStock, some of them changed; `content_type` stands for content-type."""
    content_type = changed.pop("content_type", ...)
    attributes: dict[str, Any] = ATTRIBUTES | changed
    found = [
        ("ce_" + name, text.encode() if isinstance(text, str) else text) for name, text in attributes.items()
    ]
    if content_type is not ...:
        found.append(
            ("content-type", content_type.encode() if isinstance(content_type, str) else content_type)
        )
    return found


def without(name: str) -> Headers:
    return [header for header in headers() if header[0] != name]


def event(data: str = RECEIVE, **changed: Any) -> bytes:
    """The valid ReceiveStock as a structured event; `data` is JSON text. A change to `...` leaves it out."""
    attributes = {name: value for name, value in (ATTRIBUTES | changed).items() if value is not ...}
    return (json.dumps(attributes)[:-1] + f', "data": {data}}}').encode()


def structured(data: str = RECEIVE, content_type: str = STRUCTURED, **changed: Any) -> Request | Bad:
    return decode([("content-type", content_type.encode())], event(data, **changed))


def both(name: str, data: str) -> tuple[Request | Bad, Request | Bad]:
    """What the decoder makes of the payload in binary and in structured mode."""
    type_ = f"stockledger.{name}.v1"
    # surrogatepass: a lone surrogate that isn't escaped gives the bytes that some encoders write
    return (
        decode(headers(type=type_), data.encode("utf-8", "surrogatepass")),
        decode([("content-type", STRUCTURED.encode())], event(data, type=type_)),
    )


def changed(name: str, field: str, raw: str) -> str:
    """The valid payload as JSON text, with `raw` JSON in place of the field's value."""
    fields = {each: json.dumps(value) for each, value in VALID[name].items()} | {field: raw}
    return "{" + ", ".join(f'"{each}": {value}' for each, value in fields.items()) + "}"


def assert_dead(name: str, data: str, code: str, field: str = "") -> None:
    """Dead in both modes, for the same reason; and by the schema, where it has a word for it."""
    binary, struct = both(name, data)
    assert isinstance(binary, Bad), binary
    assert binary.code == code
    assert field in binary.detail
    assert isinstance(struct, Bad), struct
    assert struct.code == code
    if code != "json":  # where the detail says at which character
        assert struct.detail == binary.detail
        assert unsayable(data) or not contract.is_taken(name, data)


def unsayable(data: str) -> bool:
    """Whether JSON Schema has no word for what is wrong: in an id, or a lone surrogate, which is no text."""
    fields = json.loads(data)
    ids = [fields[name] for name in ("user_id", "goods_id") if isinstance(fields.get(name), str)]
    surrogates = ["\ud800" <= c <= "\udfff" for c in json.dumps(fields, ensure_ascii=False)]
    return any(surrogates) or any(map(contract.is_unsayable, ids))


def assert_valid(name: str, data: str) -> Request:
    """The same command in both modes, and by the schema for other languages."""
    binary, struct = both(name, data)
    assert isinstance(binary, Request), binary
    assert contract.is_taken(name, data)
    assert struct == binary
    return binary


# What is valid


@pytest.mark.parametrize("name", VALID)
def test_each_command_is_read(name):
    """Every command is read in both modes, with its identity, its fields and its fingerprint."""
    found = assert_valid(name, json.dumps(VALID[name]))
    assert type(found.command) is structs.STRUCTS[name]
    assert msgspec.structs.asdict(found.command) == VALID[name]
    assert found.key == MessageKey(source="shop", id="1")
    assert found.fingerprint == fingerprint(found.key, found.command)


def test_all_commands_have_a_row_here():
    """A new command can't be forgotten in the tables below."""
    assert set(VALID) == set(COMMANDS)
    assert all(set(VALID[name]) == set(model.model_fields) for name, model in COMMANDS.items())


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        'application/json; charset="utf-8"',
        "application/json ; foo=bar; charset=UTF-8",
    ],
)
def test_content_types_of_binary_mode(content_type):
    """JSON in UTF-8, however it is written."""
    assert decode(headers(content_type=content_type), RECEIVE.encode()) == decode(headers(), RECEIVE.encode())


@pytest.mark.parametrize(
    "content_type",
    [
        "application/cloudevents+json",
        "Application/CloudEvents+JSON",
        "application/cloudevents+json; charset=UTF-8",
        'application/cloudevents+json;charset="utf-8"',
    ],
)
def test_content_types_of_structured_mode(content_type):
    """The receiver's rule of the Kafka binding: the prefix decides, whatever its case."""
    assert structured(content_type=content_type) == decode(headers(), RECEIVE.encode())


def test_a_missing_content_type_is_json():
    """Many producers leave it out."""
    found = decode(headers(), RECEIVE.encode())
    assert found == request(MessageKey("shop", "1"), RECEIVED)


@pytest.mark.parametrize(
    "more",
    [
        [("ce_time", b"2010-12-01T08:26:00Z"), ("ce_subject", b"tea")],
        [("ce_time", b"yesterday")],
        [("ce_time", None), ("ce_subject", b"\xff")],
        [("traceparent", b"00-1-1-01"), ("traceparent", b"00-2-2-01"), ("", b""), ("x", None)],
        [("Content-Type", b"text/plain"), ("CE_ID", b"2"), ("ce-id", b"2"), ("id", b"2")],
    ],
)
def test_other_headers_do_not_count(more):
    """Time, subject, extensions and foreign headers change neither validity nor fingerprint."""
    plain = decode(headers(), RECEIVE.encode())
    assert decode(more + headers(), RECEIVE.encode()) == decode(headers() + more, RECEIVE.encode()) == plain


@pytest.mark.parametrize(
    "more",
    [
        {"time": "2010-12-01T08:26:00Z", "subject": "tea"},
        {"datacontenttype": "application/json"},
        {"datacontenttype": "application/json; charset=utf-8"},
        {"datacontenttype": None, "time": None},
        {"correlationid": "1", "sampledrate": 3, "flag": True, "nested": {"a": [None]}},
    ],
)
def test_other_attributes_do_not_count(more):
    """Time, subject and extensions of a structured event change neither validity nor fingerprint."""
    assert structured(**more) == structured()


def test_a_structured_event_may_repeat_its_attributes_as_headers():
    """The binding allows it; the value alone decides."""
    found = decode(headers(content_type=STRUCTURED, id="2", type="nonsense"), event())
    assert found == decode(headers(), RECEIVE.encode())


@pytest.mark.parametrize(("name", "field"), OPTIONAL)
def test_null_is_the_same_as_leaving_it_out(name, field):
    """`null` for an optional field gives the same command and the same fingerprint."""
    left_out = {each: value for each, value in VALID[name].items() if each != field}
    assert assert_valid(name, changed(name, field, "null")) == assert_valid(name, json.dumps(left_out))


# Whole records that are dead


@pytest.mark.parametrize(
    ("sent", "value", "code"),
    [
        pytest.param(headers(), None, "tombstone", id="tombstone"),
        pytest.param([], None, "tombstone", id="tombstone-bare"),
        pytest.param(None, None, "tombstone", id="tombstone-no-headers"),
        pytest.param([("content-type", STRUCTURED.encode())], None, "tombstone", id="tombstone-structured"),
        pytest.param(headers(), b"", "json", id="empty"),
        pytest.param([("content-type", STRUCTURED.encode())], b"", "json", id="empty-structured"),
        pytest.param(None, RECEIVE.encode(), "attribute", id="no-headers"),
        pytest.param([], RECEIVE.encode(), "attribute", id="empty-headers"),
        pytest.param([], event(), "attribute", id="structured-without-content-type"),
        pytest.param([("content-type", b"application/json")], event(), "attribute", id="structured-as-json"),
        pytest.param(headers(), event(), "field", id="structured-value-in-binary-mode"),
        pytest.param(
            [("content-type", STRUCTURED.encode())], RECEIVE.encode(), "attribute", id="binary-as-event"
        ),
        pytest.param(
            headers(), b"\x00\x00\x00\x00\x01" + RECEIVE.encode(), "json", id="schema-registry-frame"
        ),
    ],
)
def test_whole_records_that_are_dead(sent, value, code):
    """A record without value, headers or the right shape is dead, and says which."""
    found = decode(sent, value)
    assert isinstance(found, Bad)
    assert found.code == code


@pytest.mark.parametrize("name", ["ce_specversion", "ce_id", "ce_source", "ce_type"])
def test_required_headers(name):
    """A required header that is missing, null, empty or no UTF-8 is dead, and is named."""
    attribute = name.removeprefix("ce_")
    for sent in (without(name), headers(**{attribute: None}), headers(**{attribute: b"\xff\xfe"})):
        found = decode(sent, RECEIVE.encode())
        assert isinstance(found, Bad)
        assert found.code == "attribute"
        assert name in found.detail
    assert isinstance(decode(headers(**{attribute: ""}), RECEIVE.encode()), Bad)


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type"])
@pytest.mark.parametrize("value", [..., None, 1, 1.0, True, ["1"], {"a": "1"}, ""])
def test_required_attributes(name, value):
    """A required attribute of a structured event that is missing, null, empty or no text is dead."""
    found = structured(**{name: value})
    assert isinstance(found, Bad)
    if value == "" and name == "type":
        assert found.code == "unknown_type"
    else:
        # a float makes the whole value no valid JSON here
        assert found.code == ("json" if isinstance(value, float) else "attribute")


@pytest.mark.parametrize(
    "name", ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "ce_x"]
)
@pytest.mark.parametrize("again", [b"1", b"2", None])
def test_a_repeated_attribute_is_dead(name, again):
    """Which of two would count? Neither: even where both say the same, and in structured mode too."""
    rest = [header for header in headers() if header[0] != name]
    for sent in (
        [(name, b"1"), *rest, (name, again)],
        [("content-type", STRUCTURED.encode()), (name, b"1"), (name, again)],
    ):
        found = decode(sent, event())
        assert isinstance(found, Bad)
        assert found.code == "repeated_attribute"
        assert name in found.detail


def test_a_repeated_content_type_is_dead():
    """Two content types may disagree about the mode."""
    sent = headers(content_type="application/json")
    found = decode([*sent, ("content-type", b"application/json")], RECEIVE.encode())
    assert isinstance(found, Bad)
    assert found.code == "repeated_attribute"


@pytest.mark.parametrize("version", ["0.3", "1", "1.0.2", "1.1", "2.0", " 1.0", "1.0 ", "１.0", "1.0\0"])
def test_other_specversions_are_dead(version):
    """Only CloudEvents 1.0 is spoken."""
    for found in (decode(headers(specversion=version), RECEIVE.encode()), structured(specversion=version)):
        assert isinstance(found, Bad)
        assert found.code == "attribute"
        assert "specversion" in found.detail


@pytest.mark.parametrize(
    ("content_type", "code"),
    [
        ("", "content_type"),
        ("text/plain", "content_type"),
        ("text/json", "content_type"),
        ("application/octet-stream", "content_type"),
        ("application/xml", "content_type"),
        ("application/avro", "content_type"),
        ("application/jsonl", "content_type"),
        ("application/json, application/json", "content_type"),
        ("application/vnd.shop+json", "content_type"),
        ("application/cloudevents", "content_type"),
        ("application/cloudevents+avro", "content_type"),
        ("application/cloudevents+xml; charset=UTF-8", "content_type"),
        ("application/cloudevents-batch+json", "content_type"),
        ("application/cloudevents-batch+json; charset=UTF-8", "content_type"),
        ("application/json; charset=utf-16", "encoding"),
        ("application/json; charset=latin-1", "encoding"),
        ("application/json; charset=", "encoding"),
        ("application/json; x=y; CHARSET=iso-8859-1", "encoding"),
        ("application/cloudevents+json; charset=utf-16", "encoding"),
        (b"\xff", "attribute"),
        (None, "attribute"),
    ],
)
def test_other_content_types_are_dead(content_type, code):
    """Whatever isn't one JSON object in UTF-8 is dead, batches included, whatever the value holds."""
    for value in (RECEIVE.encode(), event(), b"[" + event() + b"]"):
        found = decode(headers(content_type=content_type), value)
        assert isinstance(found, Bad)
        assert found.code == code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"data_base64": "eyJnb29kc19pZCI6InRlYSJ9"}, "data_base64"),
        ({"data_base64": None}, "data_base64"),
        ({"datacontenttype": "text/plain"}, "content_type"),
        ({"datacontenttype": "application/json; charset=utf-16"}, "encoding"),
        ({"datacontenttype": 1}, "attribute"),
        ({"weight": 1.5}, "json"),
        ({"specversion": "0.3"}, "attribute"),
    ],
)
def test_structured_events_that_are_dead(changes, code):
    """Binary data, data of another type and floats anywhere make a structured event dead."""
    found = structured(**changes)
    assert isinstance(found, Bad)
    assert found.code == code


def test_data_base64_is_dead_without_data_too():
    """The usual form of it: `data_base64` instead of `data`."""
    value = json.dumps(ATTRIBUTES | {"data_base64": "e30="}).encode()
    found = decode([("content-type", STRUCTURED.encode())], value)
    assert isinstance(found, Bad)
    assert found.code == "data_base64"


def test_data_is_required():
    """A structured event without data is no command."""
    found = decode([("content-type", STRUCTURED.encode())], json.dumps(ATTRIBUTES).encode())
    assert isinstance(found, Bad)
    assert found.code == "json"


@pytest.mark.parametrize(
    "type_",
    [
        "",
        "stockledger.ReceiveStock",
        "stockledger.ReceiveStock.v2",
        "stockledger.ReceiveStock.v1 ",
        "stockledger.receivestock.v1",
        "stockledger.StockReceived.v1",
        "ReceiveStock",
        "ReceiveStock.v1",
        "com.example.Order",
        "stockledger.ReceiveStock.v1\0",
        "x" * 10_000,
    ],
)
def test_unknown_types_and_versions_are_dead(type_):
    """`unknown_type` tells an operator what to redrive after an upgrade."""
    for found in (decode(headers(type=type_), RECEIVE.encode()), structured(type=type_)):
        assert isinstance(found, Bad)
        assert found.code == "unknown_type"
        assert len(found.detail) <= 500


def test_an_unknown_type_is_not_judged_by_its_fields():
    """A record from a later version says so, even where its fields would be wrong today."""
    found = decode(headers(type="stockledger.ReceiveStock.v2"), b'{"goods":"tea"}')
    assert isinstance(found, Bad)
    assert found.code == "unknown_type"


# Bytes and JSON


@pytest.mark.parametrize(
    ("value", "code"),
    [
        pytest.param(b"\xef\xbb\xbf" + RECEIVE.encode(), "json", id="bom"),
        pytest.param(RECEIVE.encode("utf-16"), "encoding", id="utf-16-with-bom"),
        pytest.param(RECEIVE.encode("utf-16-le"), "json", id="utf-16-le"),
        pytest.param(RECEIVE.encode("utf-16-be"), "json", id="utf-16-be"),
        pytest.param(RECEIVE.encode("utf-32"), "encoding", id="utf-32"),
        pytest.param('{"goods_id":"té","quantity":5}'.encode("latin-1"), "encoding", id="latin-1"),
        pytest.param(b'{"goods_id":"\xed\xa0\x80","quantity":5}', "encoding", id="surrogate-in-utf-8"),
        pytest.param(b'{"goods_id":"\xc0\x80","quantity":5}', "encoding", id="overlong-nul"),
        pytest.param(b'{"goods_id":"\xf4\x90\x80\x80","quantity":5}', "encoding", id="beyond-unicode"),
        pytest.param(b'{"goods_id":"te\xc3', "encoding", id="cut-in-a-character"),
    ],
)
def test_other_encodings_are_dead(value, code):
    """UTF-8 without a BOM, and nothing that other decoders would guess at."""
    found = decode(headers(), value)
    assert isinstance(found, Bad)
    assert found.code == code
    wrapped = decode([("content-type", STRUCTURED.encode())], event("@").replace(b"@", value))
    assert isinstance(wrapped, Bad)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("null", id="null"),
        pytest.param("true", id="true"),
        pytest.param("5", id="number"),
        pytest.param('"{}"', id="string"),
        pytest.param("[]", id="list"),
        pytest.param(f"[{RECEIVE}]", id="batch"),
        pytest.param(RECEIVE + "x", id="trailing-garbage"),
        pytest.param(RECEIVE + "}", id="trailing-brace"),
        pytest.param(RECEIVE + RECEIVE, id="two-objects"),
        pytest.param(RECEIVE + "\0", id="trailing-nul"),
        pytest.param("\ufeff" + RECEIVE, id="bom-character"),
        pytest.param("\u00a0" + RECEIVE, id="no-json-space"),
        pytest.param(RECEIVE[:-1], id="cut"),
        pytest.param(RECEIVE[:-1] + ",}", id="trailing-comma"),
        pytest.param("{'goods_id': 'tea', 'quantity': 5}", id="python"),
        pytest.param('{goods_id: "tea", quantity: 5}', id="unquoted"),
        pytest.param('{"goods_id":"tea","quantity":5 /* five */}', id="comment"),
        pytest.param('{"goods_id":"t\nea","quantity":5}', id="raw-control-character"),
        pytest.param('{"goods_id":"t\\qea","quantity":5}', id="bad-escape"),
        pytest.param('{"goods_id":"tea","quantity":5,"quantity":5}', id="same-key-same-value"),
        pytest.param('{"goods_id":"tea","quantity":5,"quantity":6}', id="same-key"),
        pytest.param('{"goods_id":"tea","quantity":5,"quantit\\u0079":6}', id="same-key-escaped"),
        pytest.param('{"goods_id":"tea","quantity":{"a":1,"a":2}}', id="same-key-nested"),
        pytest.param('{"goods_id":"tea","quantity":[[{"a":1,"a":1}]]}', id="same-key-in-list"),
        pytest.param("[" * 200_000, id="deep-list"),
        pytest.param('{"a":' * 200_000, id="deep-object"),
        pytest.param("[" * 200_000 + "]" * 200_000, id="deep-and-closed"),
        pytest.param('{"goods_id":' + "[" * 100_000 + "]" * 100_000 + ',"quantity":5}', id="deep-in-a-field"),
    ],
)
def test_what_is_no_json_object_is_dead(data):
    """One JSON object, once, with each key once; in both modes."""
    binary, struct = both("ReceiveStock", data)
    assert isinstance(binary, Bad)
    assert isinstance(struct, Bad)
    assert binary.code == struct.code == "json"


@pytest.mark.parametrize(
    "value",
    [
        event().replace(b'"id": "1"', b'"id": "1", "id": "1"'),
        event().replace(b'"data":', b'"data": {}, "data":'),
        event()[:-1] + b', "ext": {"a": 1, "a": 1}}',
    ],
)
def test_repeated_keys_of_a_structured_event_are_dead(value):
    """A repeated attribute, a repeated data, and one nested in an extension."""
    found = decode([("content-type", STRUCTURED.encode())], value)
    assert isinstance(found, Bad)
    assert found.code == "json"
    assert "repeated" in found.detail


def test_white_space_and_escapes_do_not_count():
    """JSON's own freedoms give the same command."""
    plain = assert_valid("ReceiveStock", RECEIVE)
    assert (
        assert_valid("ReceiveStock", ' \t\r\n{ "quantity" : 5 ,\n"goods_id":"\\u0074\\u0065a" }\n') == plain
    )


# Fields


@pytest.mark.parametrize(("name", "field"), REQUIRED)
def test_required_fields(name, field):
    """A required field that is left out or null is dead, and is named."""
    left_out = {each: value for each, value in VALID[name].items() if each != field}
    assert_dead(name, json.dumps(left_out), "field", field)
    assert_dead(name, changed(name, field, "null"), "field", field)


@pytest.mark.parametrize("name", VALID)
@pytest.mark.parametrize(
    "extra", ["colour", "id", "source", "type", "Quantity", "", "\0", "\x1b[31m", "é", "\ud800"]
)
def test_unknown_fields_are_dead(name, extra):
    """A misspelt field isn't dropped in silence; whatever its name is, the detail can be stored."""
    assert_dead(name, json.dumps(VALID[name] | {extra: 1}), "field")
    assert_dead(name, json.dumps(VALID[name] | {extra: None}), "field")


@pytest.mark.parametrize(("name", "field"), NUMBERS)
@pytest.mark.parametrize("raw", ["true", "false", '"3"', '""', "[]", "[3]", "{}", '"1_000"', '"٣"'])
def test_only_integers_are_numbers(name, field, raw):
    """Booleans, text and containers aren't taken for numbers."""
    assert_dead(name, changed(name, field, raw), "field", field)


@pytest.mark.parametrize(("name", "field"), FIELDS)
@pytest.mark.parametrize(
    "raw",
    [
        *("3.0", "1.5", "1e3", "1E3", "-1e0", "1e400", "0.0", "-0.0"),
        *("NaN", "Infinity", "-Infinity"),
        *("01", "+1", "0x10", "1_000", "3."),
        pytest.param("9" * 5000, id="5000 digits"),
    ],
)
def test_other_numbers_are_dead(name, field, raw):
    """Floats in any notation, constants and numbers that JSON doesn't know are dead in every field."""
    assert_dead(name, changed(name, field, raw), "json")


@pytest.mark.parametrize(("name", "field"), NUMBERS)
@pytest.mark.parametrize("raw", ["9223372036854775808", str(2**70), str(-(2**63) - 1), "9" * 4000])
def test_numbers_beyond_bigint_are_dead(name, field, raw):
    """What Postgres couldn't hold never gets there."""
    assert_dead(name, changed(name, field, raw), "field", field)


@pytest.mark.parametrize(
    ("name", "field", "least", "most"),
    [
        ("ReceiveStock", "quantity", 1, 10**9),
        ("PurchaseGoods", "quantity", 1, 10**9),
        ("PurchaseGoods", "unit_price_minor", 0, 10**12),
        ("AdjustStock", "delta", -(10**9), 10**9),
    ],
)
def test_bounds_of_numbers(name, field, least, most):
    """Each bound is allowed and the number next to it isn't."""
    for number in (least, most):
        found = assert_valid(name, changed(name, field, str(number)))
        assert getattr(found.command, field) == number
    for number in (least - 1, most + 1):
        assert_dead(name, changed(name, field, str(number)), "field", field)


@pytest.mark.parametrize(("name", "field"), [pair for pair in NUMBERS if pair[1] != "unit_price_minor"])
@pytest.mark.parametrize("raw", ["0", "-0"])
def test_zero_is_no_quantity_and_no_correction(name, field, raw):
    """0 is dead for quantities and deltas, with either sign."""
    assert_dead(name, changed(name, field, raw), "field", field)


def test_minus_zero_is_zero():
    """A price of -0 is the price 0, with its fingerprint."""
    zero = assert_valid("PurchaseGoods", changed("PurchaseGoods", "unit_price_minor", "0"))
    assert assert_valid("PurchaseGoods", changed("PurchaseGoods", "unit_price_minor", "-0")) == zero


@pytest.mark.parametrize(("name", "field"), TEXTS)
@pytest.mark.parametrize("raw", ["1", "true", "[]", '["tea"]', "{}"])
def test_only_text_is_text(name, field, raw):
    """Numbers, booleans and containers aren't taken for text."""
    assert_dead(name, changed(name, field, raw), "field", field)


@pytest.mark.parametrize(("name", "field"), TEXTS)
@pytest.mark.parametrize(
    "raw", ['"\\u0000"', '"te\\u0000a"', '"\\ud800"', '"te\\udc00a"', '"\\ude00\\ud83d"']
)
def test_what_postgres_cannot_hold_is_dead(name, field, raw):
    """NUL and lone surrogates are dead in every text field."""
    assert_dead(name, changed(name, field, raw), "field", field)


GOOD_IDS = [
    "a",
    "85123a",
    "85123A",
    "BANK CHARGES",
    "a  b",
    "x" * 64,
    "é",
    "日" * 64,
    "😀",
    "Å",
    "'\"\\;--",
    "%s{}",
    "-",
]
BAD_IDS = {
    "empty": "",
    "65 characters": "x" * 65,
    "65 wide characters": "日" * 65,
    "space": " ",
    "leading space": " tea",
    "trailing space": "tea ",
    "tab": "t\tea",
    "line feed": "tea\n",
    "escape": "\x1b[31mtea",
    "delete": "tea\x7f",
    "C1 control": "tea\x85",
    "no-break space": "te\u00a0a",
    "em space": "te\u2003a",
    "ideographic space": "te\u3000a",
    "line separator": "te\u2028a",
    "zero-width space": "te\u200ba",
    "zero-width joiner": "te\u200da",
    "word joiner": "te\u2060a",
    "BOM": "\ufefftea",
    "soft hyphen": "te\u00ada",
    "bidi override": "te\u202ea",
    "bidi isolate": "te\u2066a",
    "bidi mark": "tea\u200f",
    "tag character": "tea\U000e0041",
    "private use": "te\ue000a",
    "noncharacter": "te\uffffa",
    "unassigned": "te\u0378a",
    "NFD": "te\u0301a",
    "NFD of Hangul": "\u1112\u1161\u11ab",
    "angstrom sign": "\u212b",
    "marks out of order": "a\u0301\u0316",
}


@pytest.mark.parametrize(("name", "field"), BUSINESS_IDS)
@pytest.mark.parametrize("id_", GOOD_IDS)
def test_ids_of_users_and_goods(name, field, id_):
    """1 to 64 printable characters in NFC, inner spaces included, are kept as they are."""
    found = assert_valid(name, changed(name, field, json.dumps(id_)))
    assert getattr(found.command, field) == id_


@pytest.mark.parametrize(("name", "field"), BUSINESS_IDS)
@pytest.mark.parametrize("id_", BAD_IDS.values(), ids=BAD_IDS.keys())
def test_ids_that_are_dead(name, field, id_):
    """Ids that look alike, can't be seen or have another spelling are dead, and aren't repaired."""
    assert_dead(name, changed(name, field, json.dumps(id_)), "field", field)


GOOD_KEY_PARTS = [
    "1",
    "x" * 128,
    "018f4e2a-7c1b-7def-8a5b-0123456789ab",
    "536365-1",
    "!~",
    "urn:a/b?c#d%20",
    "'\"\\;--",
]
BAD_KEY_PARTS = {
    "empty": "",
    "129 characters": "x" * 129,
    "12 kB": "x" * 12_000,
    "space": " ",
    "inner space": "a b",
    "leading space": " a",
    "trailing space": "r1 ",
    "tab": "a\t",
    "line feed": "a\n",
    "NUL": "a\0",
    "escape": "\x1b",
    "delete": "a\x7f",
    "C1 control": "a\x85",
    "no-break space": "a\u00a0",
    "non-ASCII": "é",
    "NFD": "e\u0301",
    "wide digit": "１",
    "zero-width space": "a\u200b",
}


@pytest.mark.parametrize("attribute", ["id", "source"])
@pytest.mark.parametrize("text", GOOD_KEY_PARTS)
def test_ids_and_sources_of_commands(attribute, text):
    """1 to 128 visible ASCII characters, kept as they are, in both modes."""
    found = decode(headers(**{attribute: text}), RECEIVE.encode())
    assert isinstance(found, Request)
    assert getattr(found.key, attribute) == text
    assert structured(**{attribute: text}) == found


@pytest.mark.parametrize("attribute", ["id", "source"])
@pytest.mark.parametrize("text", [*BAD_KEY_PARTS.values(), "\ud800"], ids=[*BAD_KEY_PARTS, "surrogate"])
def test_ids_and_sources_that_are_dead(attribute, text):
    """Everything else is dead, and the attribute is named; nothing is trimmed."""
    found = structured(**{attribute: text})
    assert isinstance(found, Bad)
    assert found.code == "attribute"
    assert attribute in found.detail
    binary = decode(headers(**{attribute: text.encode("utf-8", "surrogatepass")}), RECEIVE.encode())
    assert isinstance(binary, Bad)
    assert binary.code == "attribute"


@pytest.mark.parametrize(("name", "field"), KEY_PARTS)
@pytest.mark.parametrize("text", GOOD_KEY_PARTS)
def test_references_to_a_purchase(name, field, text):
    """What refers to a command has the bounds of a command's own id and source."""
    found = assert_valid(name, changed(name, field, json.dumps(text)))
    assert getattr(found.command, field) == text


@pytest.mark.parametrize(("name", "field"), KEY_PARTS)
@pytest.mark.parametrize("text", BAD_KEY_PARTS.values(), ids=BAD_KEY_PARTS.keys())
def test_references_that_are_dead(name, field, text):
    """A reference that no command could have is dead."""
    assert_dead(name, changed(name, field, json.dumps(text)), "field", field)


@pytest.mark.parametrize(("name", "field"), NOTES)
@pytest.mark.parametrize(
    "text", ["", " ", "x" * 200, "日" * 200, "😀" * 200, "two\nlines\t\x1b\x7f\u202e", "e\u0301"]
)
def test_names_and_notes(name, field, text):
    """Up to 200 characters of any text but NUL, kept as it is."""
    found = assert_valid(name, changed(name, field, json.dumps(text)))
    assert getattr(found.command, field) == text


@pytest.mark.parametrize(("name", "field"), NOTES)
def test_long_names_and_notes_are_dead(name, field):
    """201 characters are one too many, however few bytes an escape takes."""
    for text in ("x" * 201, "é" * 201):
        assert_dead(name, changed(name, field, json.dumps(text)), "field", field)
        assert_dead(name, changed(name, field, json.dumps(text, ensure_ascii=False)), "field", field)


def test_details_never_quote_values():
    """A value may be private: the detail of a dead record names the field only (failure modes, section 5)."""
    secret = "hunter2-hunter2"
    for name, field in FIELDS:
        for raw in (json.dumps(secret * 20), json.dumps([secret]), json.dumps({secret: secret})):
            for found in both(name, changed(name, field, raw)):
                assert isinstance(found, Bad)
                assert secret not in found.detail


@pytest.mark.parametrize("nasty", ["\0", "\ud800", "a\udc00\0b", "\ud83d" * 999, "é" * 999, "\0" * 999])
def test_details_can_be_stored(nasty):
    """Names that a detail quotes are escaped and cut, or the dead letter itself couldn't be kept."""
    for found in (
        structured(type=f"x{nasty}"),
        structured(datacontenttype=f"text/{nasty}"),
        structured(data=json.dumps({"goods_id": "tea", "quantity": 5, f"x{nasty}": 1})),
        decode(headers(type=f"x{nasty}".encode("utf-8", "replace")), RECEIVE.encode()),
        decode(headers(content_type=f"text/{nasty}".encode("utf-8", "replace")), RECEIVE.encode()),
        decode([*headers(), (f"ce_{nasty}", b""), (f"ce_{nasty}", b"")], RECEIVE.encode()),
    ):
        assert isinstance(found, Bad)
        assert "\0" not in found.detail
        assert found.detail.isascii()
        assert len(found.detail) <= 500


# Both ways


@QUICK
@given(keys, commands, st.sampled_from(["", "2010-12-01T08:26:00Z"]), st.booleans())
def test_round_trip(key, command, time, with_subject):
    """What `encode` writes, `decode` reads: the same identity, command and fingerprint."""
    sent, value = encode(key, command, time=time, subject=record_key(command) if with_subject else "")
    assert decode(sent, value) == request(key, command)
    assert dict(sent).keys() >= {"ce_specversion", "ce_id", "ce_source", "ce_type", "content-type"}
    assert ("ce_time" in dict(sent), "ce_subject" in dict(sent)) == (bool(time), with_subject)


def test_what_encode_writes():
    """The wire format, byte for byte."""
    sent, value = encode(
        MessageKey("shop-uk", "536365-1"),
        ListGoods(goods_id="té"),
        time="2010-12-01T08:26:00Z",
        subject="té",
    )
    assert dict(sent) == {
        "ce_specversion": b"1.0",
        "ce_id": b"536365-1",
        "ce_source": b"shop-uk",
        "ce_type": b"stockledger.ListGoods.v1",
        "ce_time": b"2010-12-01T08:26:00Z",
        "ce_subject": "té".encode(),
        "content-type": b"application/json",
    }
    assert len(sent) == len(dict(sent))
    assert value == '{"goods_id":"té"}'.encode()


@QUICK
@given(keys, commands, st.randoms(use_true_random=False), st.booleans(), st.sampled_from([None, 2]))
def test_the_same_command_however_it_is_written(key, command, chance: random.Random, ascii_only, indent):
    """Mode, time, subject, other headers, key order, white space, escapes and nulls change nothing."""
    expected = request(key, command)
    items = list(command.model_dump().items())  # unset optionals are null here
    chance.shuffle(items)
    text = json.dumps(dict(items), ensure_ascii=ascii_only, indent=indent)
    sent, _ = encode(key, command, time="2010-12-01T08:26:00Z", subject="x")
    sent.append(("traceparent", b"00"))
    chance.shuffle(sent)
    assert decode(sent, text.encode()) == expected

    attributes = [
        ("specversion", "1.0"),
        ("id", key.id),
        ("source", key.source),
        ("type", f"stockledger.{command.NAME}.v1"),
        ("time", "2011-01-01T00:00:00Z"),
        ("subject", "y"),
        ("data", dict(items)),
    ]
    chance.shuffle(attributes)
    whole = json.dumps(dict(attributes), ensure_ascii=ascii_only, indent=indent)
    assert (
        decode([("content-type", b"application/cloudevents+json; charset=UTF-8")], whole.encode()) == expected
    )


@QUICK
@given(keys, commands)
def test_canonical_is_json(key, command):
    """The canonical payload is compact UTF-8 JSON of the fields that are set, without NUL."""
    text = canonical(command).decode()
    assert json.loads(text) == command.model_dump(exclude_none=True)
    assert text == json.dumps(
        command.model_dump(exclude_none=True), separators=(",", ":"), ensure_ascii=False
    )
    assert "\\u0000" not in text
