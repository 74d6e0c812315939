"""JSON lines to commands, one line at a time: any number of lines in the same small memory.

A line is as strict as a record on the topic, because the same two functions judge both
(`envelope.parse_fields`, `envelope.validate`); `quick` spares them plain lines. A line that is no command is
a value, `BadLine`, that says where it is wrong and never quotes what it says elsewhere.
"""

import json
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any, NamedTuple

from ledger.domain.commands import COMMANDS, AnyCommand, MessageKey, is_key_part
from ledger.domain.envelope import MODELS, is_strict, parse_fields, validate
from ledger.domain.foreign import members, refused_member
from producer.lines import LINE_MAX, Block, Line
from producer.plain import Plain, Ready, quick, quick_lines

QUOTE_MAX = 200
APART = 8
"""So few lines are judged one by one where they aren't all plain."""


class Item(NamedTuple):
    """What a line says. `id` is None where the line leaves it to the sidecar."""

    source: str
    id: str | None
    command: AnyCommand

    def ready(self) -> Ready:
        """The command as it goes into the topic."""
        return Ready.of(*self)


class BadLine(NamedTuple):
    """Where and why a line is no command; `str` gives `orders.jsonl:17:24 quantity: must be ...`.

    `column` counts characters from 1. `field` is empty where no single field is to blame, `remedy` where
    the reason already says what to do.
    """

    file: str
    line: int
    column: int
    field: str
    reason: str
    remedy: str = ""

    def __str__(self) -> str:
        what = f"{self.field}: {self.reason}" if self.field else self.reason
        return f"{self.file}:{self.line}:{self.column} {what}"


def read(file: str, block: Block, plain: Plain | None, source: str) -> Iterable[tuple[Line, Ready | BadLine]]:
    """Each line with what `parse` says of it, ready to be sent; without it where the lines are plain.

    `plain` is what `quick_lines` says of the block as a whole.
    """
    if plain:
        return zip(block.lines(), plain.ready(source), strict=True)
    return _read(file, [*block.lines()], source)


def _read(file: str, lines: list[Line], source: str) -> Iterator[tuple[Line, Ready | BadLine]]:
    """The same by halves, so that an odd line costs its neighbours little."""
    if len(lines) <= APART:
        for line in lines:
            yield line, _read_one(file, line, source)
    elif plain := quick_lines(b"\n".join([line.text for line in lines]) + b"\n", source):
        yield from zip(lines, plain.ready(source), strict=True)
    else:
        middle = len(lines) // 2
        yield from _read(file, lines[:middle], source)
        yield from _read(file, lines[middle:], source)


def _read_one(file: str, line: Line, source: str) -> Ready | BadLine:
    if ready := quick(line.text, source):
        return ready
    item = parse(file, line, source)
    return item if isinstance(item, BadLine) else item.ready()


def parse(file: str, line: Line, source: str) -> Item | BadLine:
    """The command of a line. `source` is for lines without one; empty: they are bad."""
    text = ""
    try:
        text = _decode(line.text)
        return _item(text, source)
    except _Bad as bad:
        column = bad.column or _column(text, bad.field)
        return BadLine(file, line.number, column, *map(_quotable, (bad.field, bad.reason, bad.remedy)))


def to_line(key: MessageKey, command: AnyCommand) -> bytes:
    """The line, with its end, from which `parse` reads the command back."""
    head = {"type": command.NAME, "id": key.id, "source": key.source}
    fields = head | command.model_dump(exclude_none=True)
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


class _Bad(Exception):
    """Why a line is no command. Column 0: look for the field."""

    def __init__(self, reason: str, *, field: str = "", column: int = 0, remedy: str = "") -> None:
        super().__init__(reason)
        self.reason, self.field, self.column, self.remedy = reason, field, column, remedy


def _decode(raw: bytes) -> str:
    if len(raw) > LINE_MAX:
        raise _Bad("is longer than 1 MiB", column=1)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise _Bad("isn't UTF-8", column=len(raw[: error.start].decode()) + 1) from None
    if text.startswith("\ufeff"):
        raise _Bad("begins with a byte order mark", column=1, remedy="save the file as UTF-8 without one")
    return text


def _item(text: str, default_source: str) -> Item:
    fields = _fields(text)
    model = _model(fields.pop("type", None))
    id, source = _key_part(fields, "id"), _key_part(fields, "source") or default_source
    if not source:
        raise _Bad("is missing", field="source", remedy="give it in each line, or once for all as --source")
    try:
        return Item(source, id, validate(model, fields))
    except ValueError as error:
        field, _, reason = str(error).partition(": ")
    known = ", ".join(("type", "id", "source", *model.model_fields))
    is_known = field in fields and field in model.model_fields
    remedy = "" if is_known else f"the fields of {model.NAME} are {known}"
    raise _Bad(reason, field=field, remedy=remedy)


def _fields(text: str) -> dict[str, Any]:
    try:
        return parse_fields(text)
    except json.JSONDecodeError as error:
        raise _Bad(f"isn't valid JSON: {error.msg}", column=error.colno) from None
    except ValueError as error:
        found = refused_member(text, is_strict)
        field, column = (found.name, found.column) if found else ("", 1)
        raise _Bad(str(error), field=field, column=column) from None


def _model(name: object) -> type[AnyCommand]:
    if name is None:
        raise _Bad("is missing", field="type", remedy=f"it is one of {', '.join(COMMANDS)}")
    model = (COMMANDS.get(name) or MODELS.get(name)) if isinstance(name, str) else None
    if model is None:
        closest = get_close_matches(name, COMMANDS, 1) if isinstance(name, str) else []
        remedy = f"did you mean {closest[0]}?" if closest else f"it is one of {', '.join(COMMANDS)}"
        raise _Bad("is no command of this version", field="type", remedy=remedy)
    return model


def _key_part(fields: dict[str, Any], name: str) -> str | None:
    value = fields.pop(name, None)
    if value is None or (isinstance(value, str) and is_key_part(value)):
        return value
    if not isinstance(value, str):
        must = "must be text, of 1 to 128 visible ASCII characters"
        raise _Bad(must, field=name, remedy=f"write the {name} in quotes")
    raise _Bad("must be 1 to 128 visible ASCII characters", field=name)


def _column(text: str, field: str) -> int:
    try:
        return next((member.column for member in members(text) if member.name == field), 1)
    except (ValueError, RecursionError):
        return 1


def _quotable(text: str) -> str:
    """Names out of the line, fit for a terminal: no control characters, no lone surrogates, not endless."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:QUOTE_MAX])
    return shown + "..." if len(text) > QUOTE_MAX else shown
