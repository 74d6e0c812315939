"""What a stranger's client sent is said in its own terms, at a cost that doesn't depend on what it sent."""

import base64
import gzip
import json
import pickle
import re
import tracemalloc
from pathlib import Path

import pytest

from ledger.domain import envelope, structs
from ledger.domain.commands import COMMANDS
from ledger.domain.delivery import Bad, Headers
from ledger.domain.envelope import decode
from tests.support import codecs

FIELDS = {"goods_id": "tea", "quantity": 5}
VALUE = json.dumps(FIELDS).encode()
EVENT = {
    "specversion": "1.0",
    "id": "1",
    "source": "shop",
    "type": "stockledger.ReceiveStock.v1",
    "data": FIELDS,
}
HEADERS: Headers = [(f"ce_{name}", text.encode()) for name, text in EVENT.items() if isinstance(text, str)]
STRUCTURED: Headers = [("content-type", b"application/cloudevents+json")]
LINE = {"type": "ReceiveStock", "id": "1", "source": "shop"} | FIELDS


def named(pattern):
    return [(pattern % name.removeprefix("ce_"), text) for name, text in HEADERS]


def dumped(value):
    return json.dumps(value).encode()


STRANGERS = [
    # CloudEvents' headers are missing, for nine reasons
    (
        [],
        dumped(EVENT),
        "attribute",
        "is a whole event: send it with .* application/cloudevents.json",
    ),
    ([("content-type", b"application/json")], dumped(EVENT), "attribute", "is a whole event"),
    (named("ce-%s"), VALUE, "attribute", "are named ce-specversion, ce-id, .* must be ce_specversion, ce_id"),
    ([(n.upper(), v) for n, v in HEADERS], VALUE, "attribute", "are named CE_SPECVERSION, CE_ID"),
    (named("cloudEvents:%s"), VALUE, "attribute", "are named cloudEvents:specversion"),
    ([("Ce_Id", b"1")], VALUE, "attribute", "are named Ce_Id"),
    (
        [],
        dumped(LINE),
        "attribute",
        "is a line for `stockledger publish`.*stockledger.ReceiveStock.v1",
    ),
    ([("id", b"1"), ("eventType", b"x")], VALUE, "attribute", "headers id, eventType look like an outbox's"),
    ([("__TypeId__", b"com.shop.Buy")], VALUE, "attribute", "is Spring's"),
    ([], b"\0\0\0\0\7\2\6tea", "attribute", r"schema registry's frame \(byte 0, schema id 7\)"),
    ([], dumped({"schema": {}, "payload": FIELDS}), "attribute", "schemas.enable=false"),
    ([], dumped({"before": None, "after": FIELDS, "op": "c"}), "attribute", "a change event of a database"),
    ([], VALUE, "attribute", "the record has no headers"),
    (None, VALUE, "attribute", "the record has no headers"),
    # the headers are right, the value isn't
    (HEADERS, b"", "json", "the value is empty"),
    (HEADERS, b"\0\0\0\1\0" + VALUE, "json", r"schema registry's frame \(byte 0, schema id 256\)"),
    (HEADERS, b"\0\0\0\1\0\xff\xfe", "encoding", "schema registry's frame"),
    (
        HEADERS,
        b"\xef\xbb\xbf" + VALUE,
        "json",
        "begins with a byte order mark: encode it as UTF-8",
    ),
    (HEADERS, VALUE.decode().encode("utf-16"), "encoding", "is UTF-16"),
    (HEADERS, VALUE.decode().encode("utf-16-le"), "json", "is UTF-16"),
    (HEADERS, VALUE.decode().encode("utf-16-be"), "json", "is UTF-16"),
    (HEADERS, gzip.compress(VALUE, mtime=0), "encoding", "is compressed with gzip"),
    (HEADERS, pickle.dumps(FIELDS), "encoding", "looks like a Python pickle: use a plain JSON serializer"),
    (HEADERS, b"\xac\xed\0\5t\0\3tea", "encoding", "a serialized Java object"),
    (HEADERS, base64.b64encode(VALUE), "json", "is base64 of JSON"),
    (HEADERS, b'"' + base64.b64encode(VALUE) + b'"', "json", "is base64 of JSON"),
    (HEADERS, dumped(VALUE.decode()), "json", "is a JSON text that holds JSON: it was serialized twice"),
    (HEADERS, b"[" + VALUE + b"]", "json", "is a JSON array: send one command a record"),
    (HEADERS, str(FIELDS).encode(), "json", "single quotes, as Python prints a dict"),
    (HEADERS, b"<stock/>", "json", "looks like XML"),
    (HEADERS, b"tea", "json", r"is no valid JSON: Expecting value: line 1 column 1 \(char 0\)"),
    (HEADERS, b"7", "json", "isn't a JSON object"),
    (HEADERS, dumped(EVENT), "field", "the value is a whole event"),
    (HEADERS, dumped(LINE), "field", "is a line for `stockledger publish`"),
    # a field is to blame
    (
        HEADERS,
        dumped(FIELDS | {"quantity": 1.0}),
        "json",
        "^quantity: has the number 1.0, which",
    ),
    (HEADERS, VALUE.replace(b"}", b', "goods_id": "tea"}'), "json", "^goods_id: has a repeated key"),
    (HEADERS, VALUE.replace(b"5", b"9" * 5000), "json", "has a number beyond the limit of 4,300 digits"),
    (
        STRUCTURED,
        dumped(EVENT | {"data": FIELDS | {"quantity": 1.5}}),
        "json",
        "^data.quantity: has the",
    ),
    (STRUCTURED, dumped(EVENT | {"id": 17}), "attribute", "the attribute id must be text, not a number"),
    (
        STRUCTURED,
        dumped(EVENT | {"source": None}),
        "attribute",
        "source must be text, not null",
    ),
    (STRUCTURED, dumped({"id": "1"}), "attribute", "the attribute specversion is missing"),
    (STRUCTURED, dumped(LINE), "attribute", "specversion is missing: the value is a line for"),
    (STRUCTURED, dumped(EVENT | {"data_base64": "e30="}), "data_base64", "pass the SDK an object, not bytes"),
    (
        STRUCTURED,
        dumped(EVENT | {"data": VALUE.decode()}),
        "json",
        "data must be an object, not text",
    ),
    (STRUCTURED, dumped([EVENT]), "json", "is a JSON array: send one command a record"),
]


@pytest.mark.parametrize(("headers", "value", "code", "said"), STRANGERS)
def test_a_dead_letter_says_what_is_there(headers, value, code, said):
    """One sentence from a look at the record names what it is and what to send in its place."""
    found = codecs.decode(headers, value)
    assert isinstance(found, Bad)
    assert found.code == code
    assert re.search(said, found.detail), found.detail
    assert len(found.detail) <= envelope.DETAIL_MAX


MEMBERS = b",".join(b'"unknown key that nobody has asked for %06d":%d' % (n, n) for n in range(100_000))
FLOODS: dict[str, tuple[Headers, bytes]] = {
    "unknown keys": (HEADERS, b"{%s}" % MEMBERS),
    "unknown keys beside the right ones": (HEADERS, VALUE.replace(b"}", b",%s}" % MEMBERS)),
    "unknown keys in a structured event": (STRUCTURED, dumped(EVENT).replace(b"5}", b"5,%s}" % MEMBERS)),
    "no headers": ([], b"{%s}" % MEMBERS),
    "a number that is none at the end": (HEADERS, b'{%s,"quantity":1.0}' % MEMBERS),
    "a repeated key at the end": (HEADERS, b"{%s,%s}" % (MEMBERS, MEMBERS)),
    "deep nesting": (HEADERS, b'{"goods_id":' * 400_000),
    "deep arrays": (HEADERS, b'{"goods_id":' + b"[" * 5_000_000),
    "a huge text": (HEADERS, b'{"goods_id":"%s","quantity":1}' % (b"x" * 5_000_000)),
    "a huge key": (HEADERS, b'{"%s":1}' % (b"x" * 5_000_000)),
    "a huge number": (HEADERS, b'{"goods_id":"tea","quantity":%s}' % (b"9" * 5_000_000)),
    "a huge fraction": (HEADERS, b'{"goods_id":"tea","quantity":0.%s}' % (b"9" * 5_000_000)),
    "base64 without end": (HEADERS, b"A" * 5_000_000),
    "many headers": ([*HEADERS[1:], *((f"x{n}", b"") for n in range(100_000))], VALUE),
    "many repeated headers": ([*HEADERS, *[("ce_id", b"2")] * 100_000], VALUE),
    "a huge type": ([*HEADERS[:3], ("ce_type", b"x" * 5_000_000)], VALUE),
    "a huge content type": ([*HEADERS, ("content-type", b"application/json" + b";" * 5_000_000)], b"{}"),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_is_refused_in_little_memory(flood, monkeypatch):
    """A record of megabytes is dead without the model's looking at it, in a few times its own memory."""
    headers, value = FLOODS[flood]
    size = len(value) + sum(len(name) + len(text or b"") for name, text in headers)
    decode(HEADERS, VALUE)  # what is made once
    tracemalloc.start()
    found = decode(headers, value)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(found, Bad)
    assert peak < 12 * size + 1_000_000
    assert len(found.detail) <= envelope.DETAIL_MAX


@pytest.mark.parametrize("codec", codecs.every(), ids=lambda each: each.name)
@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_takes_little_memory_of_the_process(flood, codec):
    """What isn't Python's memory counts, too: each codec keeps to a few times the record's own."""
    status, forget = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not forget.exists():
        pytest.skip("the system doesn't say a process's peak")
    headers, value = FLOODS[flood]
    size = len(value) + sum(len(name) + len(text or b"") for name, text in headers)
    codec.delivery(0, None, VALUE, HEADERS, 0, 0)  # what is made once
    forget.write_text("5")  # the peak is what there is now
    [before_kb] = re.findall(r"VmHWM:\s+(\d+)", status.read_text())
    assert isinstance(codec.delivery(0, None, value, headers, 0, 0).content, Bad)
    [peak_kb] = re.findall(r"VmHWM:\s+(\d+)", status.read_text())
    assert (int(peak_kb) - int(before_kb)) * 1024 < 12 * size + 4_000_000


def test_unknown_keys_never_reach_the_model(monkeypatch):
    """The model would make an error for each of them: 100 times the record's own size."""

    class Untouched:
        def validate_python(self, fields):
            raise AssertionError

    assert structs.STRUCTS  # loaded
    model = COMMANDS["ReceiveStock"]
    monkeypatch.setattr(model, "__pydantic_validator__", Untouched())
    found = decode(*FLOODS["unknown keys beside the right ones"])
    assert isinstance(found, Bad)
    assert "unknown key that nobody has asked for 000000: Extra inputs are not permitted" in found.detail
