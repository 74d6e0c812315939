"""The quick way to accept a line: never another answer than the authority's, and taken by ordinary lines."""

import json
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator

from ledger.domain.commands import COMMANDS, KEY_PART_MAX
from producer.jsonl import Item, parse, read, to_line
from producer.lines import LINE_MAX, Block, Line
from producer.plain import quick, quick_lines
from tests.unit.strategies import commands, keys, stories


def agrees(text, source="shop"):
    """Whether the quick way took the line; if so, the authority says the same of it."""
    found = quick(text, source)
    if found is not None:
        item = parse("f", Line(1, text, 0, len(text)), source)
        assert isinstance(item, Item), (text, item)
        assert found == item.ready()
    return found is not None


@given(keys, commands)
def test_every_command_is_read_alike(key, command):
    """Whatever a valid line says, the quick way says the same as the authority, or nothing."""
    agrees(to_line(key, command).rstrip(b"\n"))


PIECES = [
    *(b" \t\r{}[]:,\"\\'-0.1e+\x00\x1f\x7f\x80\xff"[at : at + 1] for at in range(24)),
    *(b'""', b'" ', b' "', b"null", b"true", b"1.0", b"-0", b"1e3", b"NaN", b"\xef\xbb\xbf", b"\\u0041"),
    *(b'"id":"other",', b'"id":"a:b",', b'"id":null,', b'"source":"",', b'"type":"CloseUser",', b'"x":1,'),
    *(b'"user_id":"v",', b'"goods_id":"h",', b'"quantity":2,', b'"quantity":9999999999999999999999,'),
]
PLAIN = [
    b'{"type":"PurchaseGoods","id":"1","source":"shop","goods_id":"g","quantity":6,"user_id":"u"}',
    b'{"type": "PurchaseGoods", "user_id": "u", "unit_price_minor": 5, "goods_id": "g", "quantity": 6}',
    b'{"type":"CancelPurchase","id":"urn:1","goods_id":"g","purchase_id":"1","purchase_source":"shop"}',
    b'{"type":"AdjustStock","id":"2","delta":1,"goods_id":"g","note":"counted"}',
    b'{"type":"RegisterUser","id":"3","name":"Ann","user_id":"u"}',
]


@given(st.sampled_from(PLAIN), st.lists(st.tuples(st.integers(0, 110), st.sampled_from(PIECES)), max_size=3))
def test_every_damage_is_seen_alike(line, pieces):
    """A line with something put into it: what the quick way still takes, the authority takes as the same."""
    for at, piece in pieces:
        line = line[:at] + piece + line[at:]
    agrees(line)


damaged = st.builds(
    lambda line, at, piece: line[:at] + piece + line[at:],
    st.sampled_from(PLAIN),
    st.integers(0, 110),
    st.sampled_from([*PIECES, b"", b"", b"", b"\n", b"}\n", b"\n{", b"}\n{", b"\r\n", b"}{"]),
)


@given(st.lists(damaged, min_size=1, max_size=4), st.sampled_from([b"\n", b"\n", b"\r\n", b""]))
def test_lines_in_a_row_are_read_as_each_of_them(lines, end):
    """However many are judged at once: each line is the authority's, none is lost, split or joined."""
    text = end.join(lines) + end
    plain = quick_lines(text, "shop")
    if plain is not None:
        items = [parse("f", line, "shop") for line in Block(1, 0, text, 0).lines()]
        assert [*plain.ready("shop")] == [isinstance(item, Item) and item.ready() for item in items]
        assert plain.have_ids == all(isinstance(item, Item) and item.id for item in items)


@pytest.mark.parametrize("text", [b"%b%b\n\n", b"\n%b%b\n", b"%b\n\n%b", b"%b\n%b", b"%b", b"\n"])
@pytest.mark.parametrize("line", [PLAIN[3], PLAIN[3].replace(b",", b",\n", 1), PLAIN[3].replace(b"2", b"}")])
def test_only_one_object_on_each_line_is_plain(text, line):
    """Two objects on a line, one over two lines, a blank line or a line without its end aren't plain."""
    text = text.replace(b"%b", line)
    assert quick_lines(text, "shop") is None


@given(st.lists(damaged | st.sampled_from(PLAIN), max_size=40), st.sampled_from([b"\n", b"\r\n", b"\n\n"]))
def test_a_block_is_read_as_each_of_its_lines(lines, end):
    """Good and bad lines in any mixture: each is what the authority says of it, none is left out."""
    block = Block(1, 0, end.join(lines) + end, 0)
    items = [(line, parse("f", line, "shop")) for line in block.lines()]
    expected = [(line, item.ready() if isinstance(item, Item) else item) for line, item in items]
    assert [*read("f", block, quick_lines(block.text, "shop"), "shop")] == expected


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_ordinary_lines_are_taken_together(end):
    """A block of ordinary lines is judged at once, whatever their types and forms."""
    lines = [*PLAIN, *(json.dumps(json.loads(line)).encode() for line in PLAIN)]
    plain = quick_lines(end.join(lines) + end, "shop")
    assert plain
    assert [*plain.ready("shop")] == [quick(line, "shop") for line in lines]


@given(st.sampled_from(PLAIN), st.data())
def test_every_change_of_a_value_is_seen_alike(line, data):
    """The same with any value in place of one: bounds, types, spaces and zeros are the authority's."""
    fields = json.loads(line)
    name = data.draw(st.sampled_from(list(fields)))
    edges = [
        0,
        1,
        -1,
        10**9,
        10**9 + 1,
        10**12,
        10**12 + 1,
        2**63,
        2**64,
        1.0,
        True,
        None,
        "",
        " ",
        "a b",
        " a",
    ]
    sizes = [64, 65, KEY_PART_MAX, KEY_PART_MAX + 1, 200, 201]
    value = st.sampled_from(edges + ["x" * size for size in sizes]) | st.text(max_size=5) | st.integers()
    fields[name] = data.draw(value)
    agrees(json.dumps(fields, ensure_ascii=data.draw(st.booleans())).encode("utf-8", "surrogatepass"))


@given(stories)
def test_stories_are_read_alike(story):
    """So are lines as programs write them, with null for what is left out."""
    for line in story:
        agrees(json.dumps(line).encode())


@pytest.mark.parametrize("line", PLAIN)
def test_ordinary_lines_are_taken(line):
    """Ordinary lines go the quick way, in whichever order their fields stand, compact or spaced."""
    fields = json.loads(line)
    backwards = dict(reversed(fields.items()))
    for written in (line, json.dumps(fields).encode(), json.dumps(backwards).encode()):
        assert agrees(written)
        assert agrees(written + b" ")


@pytest.mark.parametrize(
    ("text", "source"),
    [
        (b'{"type":"RegisterUser","id":"1","user_id":"u","user_id":"v"}', "shop"),
        (b'{"type":"RegisterUser","id":"1","user_id":"\\u0075"}', "shop"),
        (b'{"type":"RegisterUser","id":"1","user_id":"\x7f"}', "shop"),
        (b'{"type":"RegisterUser","id":"1","user_id":" u"}', "shop"),
        ('{"type":"RegisterUser","id":"1","user_id":"é"}'.encode(), "shop"),
        (b'{"type":"RegisterUser","id":"1","user_id":"u"}', ""),
        (b'{"type":"RegisterUser","id":"1","user_id":"u"}' + b" " * LINE_MAX, "shop"),
        (b'{"type":"AdjustStock","id":"1","goods_id":"g","delta":0}', "shop"),
    ],
)
def test_what_is_not_plain_is_left_to_the_authority(text, source):
    """Each of the conditions that make a line plain is asked for."""
    assert quick(text, source) is None


def test_every_demand_beyond_bounds_is_known():
    """A new rule in the models that no JSON schema tells is thought of here: do plain lines keep it?"""
    hints = [get_type_hints(model, include_extras=True) for model in COMMANDS.values()]
    kinds = [kind for fields in hints for name, kind in fields.items() if name in _fields(fields)]
    found = {rule for kind in kinds for rule in _rules(kind)}
    assert found == {"_business_id", "_key_part", "_no_nul", "_not_zero"}
    assert not any(model.__pydantic_decorators__.field_validators for model in COMMANDS.values())
    assert not any(model.__pydantic_decorators__.model_validators for model in COMMANDS.values())


def _fields(hints):
    return {name for model in COMMANDS.values() for name in model.model_fields} & set(hints)


def _rules(kind):
    parts = [kind, *getattr(kind, "__args__", ())]
    for part in parts:
        for rule in getattr(part, "__metadata__", ()):
            if isinstance(rule, AfterValidator):
                yield rule.func.__name__
