"""JSON lines: as strict as a record on the topic, and clear about what is wrong where."""

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.commands import COMMANDS, PurchaseGoods, RegisterUser
from ledger.domain.delivery import Bad, Headers
from ledger.domain.envelope import decode
from producer.jsonl import BadLine, Item, parse, to_line
from producer.lines import LINE_MAX, BadInput, Line, copy_verbatim, kept_name, open_input, read_blocks
from tests.unit.strategies import commands, keys


def lines_of(file, end):
    """The lines that aren't blank among the first `end` bytes."""
    return (line for block in read_blocks(file, end) for line in block.lines())


def parsed(text, source="shop"):
    raw = text if isinstance(text, bytes) else text.encode()
    return parse("orders.jsonl", Line(17, raw, 0, len(raw)), source)


def lines(raw, end=None):
    return list(lines_of(io.BytesIO(raw), len(raw) if end is None else end))


# One line


@given(keys, commands)
def test_every_command_survives_the_round_trip(key, command):
    """Each valid command can be written as a line, and the line is read back as the same command."""
    line = to_line(key, command)
    assert line.count(b"\n") == 1
    assert parsed(line.removesuffix(b"\n")) == Item(key.source, key.id, command)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_type_is_the_short_or_the_full_name(name):
    """A line may name its type as the table of commands does or as the topic does."""
    fields: dict[str, Any] = {"user_id": "u"} if "User" in name else {"goods_id": "g"}
    fields |= {"quantity": 1} if "quantity" in COMMANDS[name].model_fields else {}
    fields |= {"delta": 1} if name == "AdjustStock" else {}
    fields |= {"user_id": "u"} if name == "PurchaseGoods" else {}
    fields |= {"purchase_id": "p"} if name == "CancelPurchase" else {}
    short, full = (
        parsed(json.dumps({"type": type_name} | fields)) for type_name in (name, f"stockledger.{name}.v1")
    )
    assert short == full == Item("shop", None, COMMANDS[name](**fields))


def test_a_source_of_its_own_goes_before_the_given_one():
    """`source` may be left to the settings, a line's own wins; null is the same as leaving it out."""
    assert parsed('{"type":"RegisterUser","user_id":"u"}') == Item("shop", None, RegisterUser(user_id="u"))
    assert parsed('{"type":"RegisterUser","user_id":"u","source":"crm","id":null}').source == "crm"
    assert parsed('{"type":"RegisterUser","user_id":"u","source":null}').source == "shop"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec="utf-8"), max_size=5)
    | st.sampled_from(["85123A", " x", "x\0", "\ud800", "e\u0301", "", 1, 10**9, 10**9 + 1, -1, 0]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)
names_of_fields = st.sampled_from(
    ["user_id", "goods_id", "quantity", "delta", "note", "name", "unit_price_minor", "x", ""]
)


@given(st.sampled_from([*COMMANDS, "Nothing"]), st.dictionaries(names_of_fields, json_values), st.booleans())
def test_a_line_is_as_strict_as_a_record(name, fields, spaced):
    """The same fields make a command on a line exactly if they make one in a record of the topic."""
    head = {"type": name, "id": "1", "source": "shop"}
    line = parsed(json.dumps(head | fields, separators=None if spaced else (",", ":")))
    attributes = {"ce_specversion": b"1.0", "ce_id": b"1", "ce_source": b"shop"}
    headers: Headers = [*attributes.items(), ("ce_type", f"stockledger.{name}.v1".encode())]
    record = decode(headers, json.dumps(fields).encode())
    if isinstance(record, Bad):
        assert isinstance(line, BadLine)
    else:
        assert line == ("shop", "1", record.command)


HEAD = '{"type":"PurchaseGoods","user_id":"u","goods_id":"g",'


@pytest.mark.parametrize(
    ("text", "column", "field", "reason"),
    [
        (HEAD + '"quantity":0}', len(HEAD) + 1, "quantity", "greater than or equal to 1"),
        (HEAD + '  "quantity":1.5}', len(HEAD) + 3, "quantity", "no integer"),
        (HEAD + '"quantity":NaN}', len(HEAD) + 1, "quantity", "no integer"),
        (HEAD + '"quantity":true}', len(HEAD) + 1, "quantity", "valid integer"),
        (HEAD + '"quantity":1,"user_id":"v"}', len(HEAD) + 14, "user_id", "repeated"),
        (HEAD + '"quantity":1,"colour":{"a":1,"a":1}}', len(HEAD) + 14, "colour", "repeated"),
        (HEAD + '"quantity":1,"colour":"red"}', len(HEAD) + 14, "colour", "not permitted"),
        (HEAD + '"id":"a b","quantity":1}', len(HEAD) + 1, "id", "visible ASCII"),
        (HEAD + '"id":7,"quantity":1}', len(HEAD) + 1, "id", "visible ASCII"),
        (HEAD + '"source":"","quantity":1}', len(HEAD) + 1, "source", "visible ASCII"),
        (HEAD + '"quantity":1', len(HEAD) + 13, "", "valid JSON"),
        (HEAD + '"quantity":' + "9" * 5000 + "}", 1, "", "limit"),
        ('{"type":"RegisterUser","user_id":"x\\u0000"}', 24, "user_id", "printed"),
        ('{"type":"RegisterUser","user_id":"\\ud800"}', 24, "user_id", "unicode"),
        ('{"type":"RegisterUser","user_id":"u\x00"}', 36, "", "valid JSON"),
        ('{"type":"RegisterUser"}', 1, "user_id", "required"),
        ('{"type":"RegistrUser","user_id":"u"}', 2, "type", "no command"),
        ('{"type":{},"user_id":"u"}', 2, "type", "no command"),
        ('{"user_id":"u"}', 1, "type", "missing"),
        ("{}", 1, "type", "missing"),
        ("[" * 100_000, 1, "", "nested"),
        ("[1]", 1, "", "JSON object"),
        ('"x"', 1, "", "JSON object"),
        ('\ufeff{"type":"RegisterUser","user_id":"u"}', 1, "", "byte order mark"),
        ('{"name":"ü'.encode() + b'\xff"}', 11, "", "UTF-8"),
        ('{"type":"RegisterUser","user_id":"u"}'.encode("utf-16"), 1, "", "UTF-8"),
        (b" " * (LINE_MAX + 1), 1, "", "1 MiB"),
    ],
)
def test_a_bad_line_names_its_place_and_field(text, column, field, reason):
    """A bad line is a value that says file, line, column and field; `str` is what an editor jumps to."""
    bad = parsed(text)
    assert isinstance(bad, BadLine)
    assert (bad.line, bad.column, bad.field) == (17, column, field)
    assert reason in bad.reason
    assert str(bad).startswith(f"orders.jsonl:17:{column} {field}")


def test_a_line_needs_a_source():
    """Without a source, given or of its own, a line has no identity."""
    bad = parsed('{"type":"RegisterUser","user_id":"u"}', source="")
    assert (bad.field, bad.reason) == ("source", "is missing")
    assert "--source" in bad.remedy


def test_a_misspelt_name_is_answered_with_the_right_ones():
    """The remedy names the closest command, and the fields that a command has."""
    assert "PurchaseGoods" in parsed('{"type":"PurchaseGods"}').remedy
    misspelt = parsed('{"type":"RegisterUser","user":"u"}')
    assert misspelt.remedy == "the fields of RegisterUser are type, id, source, name, user_id"


@pytest.mark.parametrize(
    "broken", ['"quantity":0}', '"quantity":1.5}', '"quantity":1,"a":2}', '"quantity":1']
)
def test_an_error_never_quotes_another_field(broken):
    """What a line says elsewhere stays out of messages and logs."""
    line = '{"type":"PurchaseGoods","user_id":"secret","goods_id":"secret",' + broken
    assert "secret" not in repr(parsed(line))


def test_names_are_shown_harmlessly():
    """Control characters and lone surrogates of a name don't reach the terminal, nor does a megabyte."""
    bad = parsed('{"type":"RegisterUser","user_id":"u","\\u001b[31m' + "x" * 5000 + '":1}')
    assert bad.field.startswith("\\x1b[31mxxx")
    assert len(str(bad)) < 1000
    assert parsed('{"\\ud800":1,"\\ud800":1}').field == "\\ud800"


# Many lines


def test_lines_are_numbered_and_blank_ones_skipped():
    """Numbers count every line, as an editor does; CRLF and a missing last line end change nothing."""
    raw = b"a\r\n\n \t \r\nb\nc"
    assert [(line.number, line.text) for line in lines(raw)] == [(1, b"a"), (4, b"b"), (5, b"c")]
    assert [raw[line.start : line.end] for line in lines(raw)] == [b"a\r\n", b"b\n", b"c"]
    assert lines(b"") == lines(b"\n\n") == []


def test_lines_end_at_the_size_seen_first():
    """What is appended while a file is being published isn't read by half."""
    assert [line.text for line in lines(b"a\nb\nc", end=4)] == [b"a", b"b"]


def test_a_file_that_is_cut_short_is_an_error():
    """A shrinking file doesn't look like a complete one."""
    with pytest.raises(BadInput, match="cut short"):
        lines(b"a\nb\n", end=100)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
@pytest.mark.parametrize("fill", [b"x", b" "])
def test_a_line_of_the_greatest_length_passes_and_a_longer_one_is_bad(end, fill):
    """1 MiB is the limit, whatever ends the line; a longer one is found, blank too; the next is intact."""
    longest, longer = b"x" * LINE_MAX, fill * (LINE_MAX + 1)
    assert [line.text for line in lines(longest + end)] == [longest]
    for size in (LINE_MAX + 1, 3 * LINE_MAX, 3 * LINE_MAX + 1):
        found = lines(b"a\n" + fill * size + end + (b"b" if end else b""))
        assert [line.number for line in found] == ([1, 2, 3] if end else [1, 2])
        assert found[1].text == longer
        assert found[1].end - found[1].start == size + len(end)


def test_a_line_is_copied_byte_for_byte(tmp_path):
    """A bad line is kept as it was, even one too long to hold in memory."""
    raw = b"a\n" + b"\xff" * (2 * LINE_MAX + 5) + b"\r\nb"
    (tmp_path / "in").write_bytes(raw)
    out = io.BytesIO()
    with (tmp_path / "in").open("rb") as file:
        for line in lines_of(file, len(raw)):
            copy_verbatim(file, line, out)
    assert out.getvalue() == raw


def test_standard_input_can_be_read_twice(monkeypatch):
    """A pipe is spooled, so that two passes see the same lines."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\n")))
    with open_input(Path("-")) as file:
        assert kept_name(Path("-"), file) is None
        assert [line.text for line in lines_of(file, 4)] == [b"a", b"b"]
        assert [line.text for line in lines_of(file, 4)] == [b"a", b"b"]


@pytest.mark.parametrize("name", ["nothing.jsonl", "."])
def test_an_unreadable_file_is_bad_input(tmp_path, name):
    """A missing file and a folder are named, with the system's reason."""
    with pytest.raises(BadInput, match="can't read"), open_input(tmp_path / name):
        pass


def test_reading_takes_little_memory(tmp_path):
    """Twenty thousand lines need no more memory than a few."""
    path = tmp_path / "orders.jsonl"
    line = HEAD.encode() + b'"quantity":1,"id":"536365-1"}\n'
    path.write_bytes(line * 20_000)
    tracemalloc.start()
    with path.open("rb") as file:
        items = (parse("f", each, "shop") for each in lines_of(file, path.stat().st_size))
        kinds = {type(item.command) for item in items if isinstance(item, Item)}
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kinds == {PurchaseGoods}
    assert peak < 1_000_000
