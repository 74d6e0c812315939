"""The codecs that this machine has, asked the same: what one of them says, all say. And what to ask them."""

import json
import random
from collections.abc import Iterable
from functools import cache
from typing import Any

from ledger import codec
from ledger.codec import Codec
from ledger.domain.commands import COMMANDS, MessageKey
from ledger.domain.decider import Place
from ledger.domain.delivery import Bad, Delivery, Headers, Request
from ledger.domain.events import EVENTS, AnyEvent
from ledger.store.connection.copy import Made
from ledger.store.tables.processed_message import Processed

TEXTS = ["tea", "85123A", "17850", "a b", " a", "a ", "", "é", "e\u0301", ":", "null", "'", "{}", '"', "\\"]
TEXTS += ["x" * 64, "x" * 65, "x" * 200, "x" * 201, "\\u0041", "\0", "\n", "\x7f", "\u2028", "\U0001f375"]
NUMBERS = [1, 2, 6, 0, -1, 10**9, 10**9 + 1, -(10**9), 10**12, 10**12 + 1, 2**53, 5_000, 2**63, 10**30]
ODD = ["null", "true", "1.0", "1e3", "-0", "0x1", "01", "NaN", "[1]", "{}", "1 ", '"a" "b"']
ODD += ['"\\ud800"', '"\\u0061"']
PIECES = [b'"', b"\\", b":", b",", b"{", b"}", b" ", b"\n", b"\0", b"\x1f", b"\x7f", b"\xff", b"\xef\xbb\xbf"]
PIECES += [b"null", b"1e3", b"-", b"0", b"\\u0031", b'"quantity":1,', b'"a":1', "é".encode(), b"\xed\xa0\x80"]
KEY_PARTS = [b"1", b"shop", b"536365-1", b"x" * 128, b"x" * 129, b"", b" ", b"a b", b"\xff", b"\\", b'"']
KEY_PARTS += ["é".encode()]
OTHERS = [("ce_time", b"2026-01-01T00:00:00Z"), ("ce_subject", b"tea"), ("traceparent", None), ("x", b"\xff")]
MEDIA = [
    b"application/json",
    b"application/json; charset=utf-8",
    b"text/plain",
    b"application/cloudevents+json",
]
TIMES = [-1, 0, 1_700_000_000_000, 2**31 - 1, 2**31, -(2**31) - 1, 2**62]


@cache
def every() -> list[Codec]:
    """The one in Python, and the native one where it is installed."""
    return [codec.PYTHON] if codec.named(None) is codec.PYTHON else [codec.PYTHON, codec.named("native")]


def decode(headers: Headers | None, value: bytes | None) -> Request | Bad:
    """What every codec makes of the record."""
    return delivered(7, b"key", value, headers, 3, TIMES[2]).content


def delivered(
    offset: int, key: bytes | None, value: bytes | None, headers: Headers | None, epoch: int, time_ms: int
) -> Delivery:
    """The delivery that every codec makes, the packed record included."""
    first, *others = (each.delivery(offset, key, value, headers, epoch, time_ms) for each in every())
    for other in others:  # 1 equals True, so what is printed is compared, too
        assert (first, repr(first)) == (other, repr(other)), (headers, value)
    return first


def made(found: Iterable[Made]) -> tuple[int, bytes, bytes]:
    """The number of rows, and the bytes of every codec's in both orders."""
    first, *others = ((len(rows), rows.text(), b"".join(rows.blocks())) for rows in found)
    for other in others:
        assert first == other
    return first


def any_record(choose: random.Random) -> tuple[bytes | None, Headers | None]:
    """Value and headers of a record: half of them plain, the others wrong, unusual or damaged."""
    name = choose.choice([*COMMANDS])
    is_odd = choose.random() < 0.5
    headers: Headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"%d-%d" % (choose.randrange(10**6), choose.randrange(9))),
        ("ce_source", choose.choice([b"shop", b"bench", b"1"])),
        ("ce_type", f"stockledger.{name}.v1".encode()),
    ]
    headers += [("content-type", MEDIA[0])] if choose.random() < 0.7 else []
    headers += choose.sample(OTHERS, choose.randrange(3))
    value = _value(choose, name, is_odd).encode("utf-8", "surrogatepass")
    if not is_odd:
        return value, headers
    for _ in range(choose.choice([0, 0, 1, 1, 3])):
        value = _damaged(choose, value)
    for _ in range(choose.choice([0, 0, 1, 2])):
        at = choose.randrange(len(headers))
        match choose.randrange(5):
            case 0:
                headers[at] = (headers[at][0], choose.choice([None, *KEY_PARTS, *MEDIA, b"1.0 ", b"1"]))
            case 1:
                headers.append(choose.choice([headers[at], ("content-type", choose.choice(MEDIA))]))
            case 2:
                del headers[at]
                headers += [("ce_x", b"")]
            case 3:
                headers[at] = (choose.choice(["CE_ID", "ce_é", "", "a\0", "\udcff"]), headers[at][1])
            case _:
                choose.shuffle(headers)
    return (None if choose.random() < 0.01 else value), (None if choose.random() < 0.01 else headers)


def _value(choose: random.Random, name: str, is_odd: bool) -> str:
    fields = COMMANDS[name].model_fields
    members = [
        (field, _member(choose, field, is_odd))
        for field, about in fields.items()
        if choose.random() < (0.5 if not about.is_required() else 0.95 if is_odd else 1)
    ]
    if is_odd and choose.random() < 0.2:
        members.append((choose.choice(["colour", *fields]), _member(choose, "name", is_odd)))
    choose.shuffle(members)
    comma, colon = choose.choice([(",", ":"), (", ", ": "), (",\n\t", " :\r\n")])
    return "{" + comma.join(f'"{field}"{colon}{text}' for field, text in members) + "}"


def _member(choose: random.Random, field: str, is_odd: bool) -> str:
    if is_odd and choose.random() < 0.1:
        return choose.choice(ODD)
    if field in ("quantity", "delta", "unit_price_minor"):
        return str(choose.choice(NUMBERS[: None if is_odd else 3]))
    text = choose.choice(TEXTS) if is_odd else f"{choose.choice(TEXTS[:3])}{choose.randrange(3000)}"
    return json.dumps(text, ensure_ascii=choose.random() < 0.5)


def _damaged(choose: random.Random, value: bytes) -> bytes:
    begin = choose.randrange(len(value) + 1)
    end = min(len(value), begin + choose.choice([0, 0, 1, 1, 2, 9]))
    return value[:begin] + choose.choice([b"", b"", *PIECES, bytes([choose.randrange(256)])]) + value[end:]


def any_key(choose: random.Random) -> MessageKey:
    """A message key; at times one that no record may have."""
    odd = ["\\", "a\\b", "é", "x" * 128, '"', "\x7f"]
    id = (
        choose.choice(odd)
        if choose.random() < 0.05
        else f"{choose.randrange(10**4):04}-{choose.randrange(3)}"
    )
    return MessageKey(choose.choice(["shop", "bench", "a", "\\"]), id)


def any_registered(choose: random.Random) -> tuple[MessageKey, Processed]:
    """A row of the register."""
    fingerprint = choose.randbytes(choose.choice([16, 16, 16, 0, 1]))
    reason = choose.choice([None, None, "user_not_found", "insufficient_stock"])
    version = None if reason else choose.choice([1, 17, 2**40])
    return any_key(choose), Processed(
        fingerprint, reason, version, choose.randrange(99), choose.randrange(2**40)
    )


def any_event(choose: random.Random, ordinal: int) -> tuple[int, Place, MessageKey, AnyEvent]:
    """A row of the events: of any type, with texts of all kinds."""
    kind = choose.choice([*EVENTS.values()])
    fields: dict[str, Any] = {}
    for field in kind.__struct_fields__:
        if field in ("quantity", "delta", "unit_price_minor"):
            fields[field] = choose.choice([n for n in NUMBERS if abs(n) < 2**63])
        else:
            fields[field] = choose.choice(TEXTS if choose.random() < 0.3 else TEXTS[:3])
        if field in kind.__struct_fields__[-len(kind.__struct_defaults__) :] and kind.__struct_defaults__:
            fields[field] = choose.choice([fields[field], None])
    place = Place(f"goods-{choose.choice(TEXTS)}", choose.randrange(1, 10**6))
    return ordinal, place, any_key(choose), kind(**fields)
