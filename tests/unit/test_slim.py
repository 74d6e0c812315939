"""The quick decoder against the authority: what it accepts, the model accepts, with the same fields."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain import structs
from ledger.domain.commands import COMMANDS
from ledger.domain.envelope import parse_fields, validate
from tests.unit.strategies import commands, quick
from tests.unit.test_decoder_fuzz import TOKENS

OFTEN = quick(400)

PLAIN: dict[str, dict[str, Any]] = {
    "RegisterUser": {"name": "Anna Bohm", "user_id": "anna"},
    "CloseUser": {"user_id": "\xe4nna"},
    "ListGoods": {"goods_id": "BANK CHARGES", "name": "1:2"},
    "ReceiveStock": {"goods_id": "a:b", "quantity": 5},
    "AdjustStock": {"delta": 5, "goods_id": "tea", "note": "counted"},
    "PurchaseGoods": {"goods_id": "tea", "quantity": 5, "unit_price_minor": 0, "user_id": "anna"},
    "CancelPurchase": {"goods_id": "tea", "purchase_id": "p1", "purchase_source": "crm"},
}
EDGES: list[Any] = [
    *(0, 1, -1, 10**9, 10**9 + 1, 10**12, 10**12 + 1, 2**63, 2**64, 1.0, True, None, [], {}, ""),
    *("a b", " ", " a", "a ", "\0", "\t", "\x7f", "\\", '"', '" '),
    *("\ud800", "e\u0301", "\xe9", "\u0301", "\u202e", "\xa0"),
    *("x" * size for size in (64, 65, 128, 129, 200, 201)),
]


def authority(name: str, value: bytes) -> structs.AnyStruct | None:
    """What the model makes of the bytes; None: they are no such command."""
    try:
        return structs.struct_of(validate(COMMANDS[name], parse_fields(value.decode())))
    except ValueError:
        return None


def agrees(name: str, value: bytes) -> bool:
    """Whether it is plain; then the authority must take it too, as the same command."""
    command = plain(name, value)
    if command is None:
        return False
    assert command == authority(name, value)
    assert type(command) is structs.STRUCTS[name]
    return True


def plain(name: str, value: bytes) -> structs.AnyStruct | None:
    """The command in the bytes, if they need no second look."""
    try:
        command = structs.DECODE[name](value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return command if structs.is_plain(value, structs.canonical(command)) else None


@OFTEN
@given(commands, st.data())
def test_any_bytes_are_judged_alike(command, data):
    """A valid payload with one to three things done to its bytes."""
    value = structs.canonical(command)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(value)))
        end = data.draw(st.integers(at, min(len(value), at + 9)))
        piece = st.sampled_from([*TOKENS, value[at:end] * 2, value]) | st.binary(max_size=3)
        value = value[:at] + data.draw(piece) + value[data.draw(st.sampled_from([at, end])) :]
    agrees(command.NAME, value)


@OFTEN
@given(st.sampled_from(list(COMMANDS)), st.data())
def test_any_fields_are_judged_alike(name, data):
    """Any member with a value on a bound or beside it, spelt in either way, in any order, perhaps unknown."""
    fields = {**PLAIN[name]}
    for field in data.draw(st.lists(st.sampled_from([*fields, "colour"]), max_size=2)):
        fields[field] = data.draw(st.sampled_from(EDGES) | st.text(max_size=5) | st.integers())
    shuffled = dict(data.draw(st.permutations(list(fields.items()))))
    text = json.dumps(shuffled, ensure_ascii=data.draw(st.booleans()))
    agrees(name, text.encode("utf-8", "surrogatepass"))


@OFTEN
@given(commands)
def test_the_canonical_form_is_the_models(command):
    """The canonical form of a model and of its slim twin is what pydantic writes without the nulls."""
    written = command.model_dump_json(exclude_none=True).encode()
    assert structs.canonical(command) == structs.canonical(structs.struct_of(command)) == written


@pytest.mark.parametrize("name", PLAIN)
def test_ordinary_payloads_are_taken(name):
    """Ordinary payloads go the quick way, in whichever order their fields stand, compact or spaced."""
    fields = PLAIN[name]
    backwards = dict(reversed(fields.items()))
    for written in (fields, backwards):
        assert agrees(name, json.dumps(written, ensure_ascii=False).encode())
        assert agrees(name, json.dumps(written, ensure_ascii=False, separators=(",", ":")).encode() + b" ")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CloseUser", '{"user_id":"u","user_id":"v"}'),
        ("CloseUser", r'{"user_id":"\u0075"}'),
        ("CloseUser", r'{"user\u005fid":"u"}'),
        ("CloseUser", '{"user_id":"\x7f"}'),
        ("CloseUser", '{"user_id":" u"}'),
        ("CloseUser", '{"user_id":"u "}'),
        ("CloseUser", '{"user_id":"e\u0301"}'),
        ("CloseUser", '{"user_id":"u","colour":1}'),
        ("ListGoods", '{"goods_id":"tea","name":null}'),
        ("CancelPurchase", '{"goods_id":"tea","purchase_id":"p 1"}'),
        ("CancelPurchase", '{"goods_id":"tea","purchase_id":"p1\xe4"}'),
        ("AdjustStock", '{"delta":0,"goods_id":"tea"}'),
        ("AdjustStock", '{"delta":-5,"goods_id":"tea"}'),
    ],
)
def test_what_is_not_plain_is_left_to_the_model(name, text):
    """Each of the conditions that make a payload plain is asked for."""
    assert plain(name, text.encode()) is None


@pytest.mark.parametrize("name", COMMANDS)
def test_twins_have_the_same_fields(name):
    """Each model has a slim twin with its fields in its order, the same ones required."""
    fields = msgspec.structs.fields(structs.STRUCTS[name])
    model = COMMANDS[name].model_fields
    assert [field.name for field in fields] == list(model)
    assert [field.required for field in fields] == [field.is_required() for field in model.values()]
    assert all(field.default is None for field in fields if not field.required)
