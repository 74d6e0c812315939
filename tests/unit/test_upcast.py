"""Whatever a released version stored, `load` makes today's event of it; their corpus only grows."""

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.events import EVENTS, GoodsPurchased, StockReceived, payload
from ledger.domain.upcast import Stored, UpcastStep, are_current, load

CORPUS = Path(__file__).parent / "corpus"
# Append only: file, number of its lines, SHA-256 of their types and payloads. See corpus/README.md.
PINNED = [("0.1.0.jsonl", 25, "9c15c001b94afb22536f34c41345b72d6f2683fc89ad27b4f166a5a1967c0cc1")]


def lines(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CORPUS / file).read_text(encoding="utf-8").splitlines()]


STORED = [(file, number, line) for file, _, _ in PINNED for number, line in enumerate(lines(file), 1)]


@pytest.mark.parametrize(("file", "number", "sha256"), PINNED)
def test_the_corpus_only_grows(file, number, sha256):
    """No stored payload of a released version was changed or removed, and each one is pinned."""
    found = lines(file)
    text = "".join(f"{line['type']}\n{line['payload']}\n" for line in found)
    assert (len(found), hashlib.sha256(text.encode()).hexdigest()) == (number, sha256)
    assert {path.name for path in CORPUS.glob("*.jsonl")} == {name for name, *_ in PINNED}


@pytest.mark.parametrize(("file", "number", "line"), STORED, ids=[f"{f}:{n}" for f, n, _ in STORED])
def test_every_stored_payload_loads(file, number, line):
    """Each payload of the corpus becomes exactly the expected event."""
    event = load(line["type"], line["payload"])
    assert {"type": event.TYPE, **msgspec.structs.asdict(event)} == line["event"]


def test_the_corpus_has_every_type():
    """Each event type is there, with its optional fields present and absent."""
    assert {line["type"] for _, _, line in STORED} == set(EVENTS)
    for name, model in EVENTS.items():
        payloads = [json.loads(line["payload"]) for _, _, line in STORED if line["type"] == name]
        for field in msgspec.structs.fields(model):
            assert {field.name in payload for payload in payloads} == (
                {True} if field.required else {True, False}
            )


@pytest.mark.parametrize(
    ("type_", "payload", "says"),
    [
        ("GoodsReserved", "{}", "the event type GoodsReserved isn't known to this version"),
        ("StockReceived", "[]", "isn't a JSON object"),
        ("StockReceived", '{"goods_id":"tea","quantity":1.0}', "no integer"),
        ("StockReceived", '{"goods_id":"tea","goods_id":"tea","quantity":1}', "repeated key"),
        ("StockReceived", '{"goods_id":"tea"}', "quantity: Field required"),
        ("StockReceived", '{"goods_id":"tea","quantity":0}', "quantity: "),
        ("StockReceived", '{"goods_id":"tea","quantity":"1"}', "quantity: "),
        ("StockReceived", '{"goods_id":"tea","quantity":1,"shelf":2}', "shelf: "),
        ("UserClosed", '{"user_id":" anna"}', "begins or ends with a space"),
        ("PurchaseCancelled", '{"goods_id":"tea","purchase_id":"p 1"}', "purchase_id: "),
    ],
)
def test_what_no_version_stored_is_refused(type_, payload, says):
    """Types from the future, other shapes and values out of bounds are refused with a sentence."""
    with pytest.raises(ValueError, match=says):
        load(type_, payload)
    plain = '{"goods_id":"tea","quantity":1}'
    for some in ([payload], [plain, payload], [payload, plain]):
        assert not are_current(type_, [each.encode() for each in some])


ODD = st.sampled_from([" ", "\\", '"', '"', "\n", "é", "e\u0301", ",", ":", "null", "1.0", "{", "}"])


@given(line=st.sampled_from([line for _, _, line in STORED]), at=st.integers(0, 200), odd=st.just("") | ODD)
def test_what_is_current_is_what_it_becomes(line, at, odd):
    """Whoever passes a payload on as it is, because it is current, says what `load` would make of it."""
    text = line["payload"][:at] + odd + line["payload"][at:]
    if are_current(line["type"], [text.encode()]):
        assert payload(load(line["type"], text)) == text.encode()


def test_what_is_written_today_is_current():
    """Of every type whose payload is that of a command, so that few are judged one by one."""
    current = {
        line["type"]
        for _, _, line in STORED
        if are_current(line["type"], 2 * [payload(load(line["type"], line["payload"]))])
    }
    assert current == set(EVENTS) - {"PurchaseCancelled"}


def renamed(fields):
    return Stored("GoodsSold", {name.replace("pieces", "quantity"): value for name, value in fields.items()})


def test_steps_follow_one_another():
    """A payload goes through the steps of all releases since it was stored; newer ones are left alone."""
    steps = (
        UpcastStep("GoodsSold", lambda f: "pieces" in f, renamed),
        UpcastStep("GoodsSold", lambda f: True, lambda f: Stored("GoodsPurchased", f)),
    )
    event = GoodsPurchased(user_id="anna", goods_id="tea", quantity=2)
    assert load("GoodsSold", '{"user_id":"anna","goods_id":"tea","pieces":2}', steps) == event
    assert load("GoodsSold", '{"user_id":"anna","goods_id":"tea","quantity":2}', steps) == event
    assert load("StockReceived", '{"goods_id":"tea","quantity":2}', steps) == StockReceived(
        goods_id="tea", quantity=2
    )


NEVER = UpcastStep("nothing", lambda _: False, lambda fields: Stored("nothing", fields))
PIECES = [
    '"',
    '"" ',
    ' "',
    " ",
    "\\",
    "\\u0041",
    ":",
    ",",
    "1.0",
    "-",
    "1e3",
    "null",
    "\x7f",
    "é",
    "e\u0301",
    "\ud800",
]


def outcome(type_, payload, steps):
    """The event, or that there is none."""
    try:
        return load(type_, payload, steps)
    except ValueError:
        return None


@given(
    st.sampled_from([line for *_, line in STORED]),
    st.integers(0, 120),
    st.sampled_from(PIECES),
    st.booleans(),
)
def test_what_is_plain_is_read_as_it_would_be_judged(line, at, piece, replaces):
    """The quick way and the careful one agree on every payload of the corpus, also on a damaged one."""
    stored = line["payload"]
    for text in (stored, stored[:at] + piece + stored[at + len(piece) * replaces :]):
        quick, careful = outcome(line["type"], text, ()), outcome(line["type"], text, (NEVER,))
        assert quick == careful
        assert type(quick) is type(careful)
