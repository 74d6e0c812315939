"""Rows to COPY: the only place that knows how rows become bytes.

Rows travel in COPY's text format, and a batch's digest covers the very lines that were sent: Postgres
prints a stored row back as the same line (`COPY ... TO STDOUT`), so `verify` compares without a
second encoding. Source of the format: PostgreSQL 18, COPY, "Text Format"; arrays: 8.15.6.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString, NamedTuple, Protocol

from ledger.store.connection.database import Connection, faults

NULL = "\\N"
Value = str | int | bytes | None | list[bytes | None]
Key = str | tuple[str, str]
BLOCK_CHARS = 30_000
"""The server begins soon, and the driver isn't called too often."""


def line(*values: Value) -> str:
    """One row as COPY's text format has it, line feed included."""
    return "\t".join([_ENCODERS[type(value)](value) for value in values]) + "\n"


class Made(Protocol):
    """The rows of one table, made and not yet sent. (A codec makes some in another way than `TableLines`.)"""

    def __len__(self) -> int: ...

    def text(self) -> bytes:
        """The lines in the order that a digest covers."""

    def blocks(self) -> Iterable[bytes]:
        """The lines in the order of the primary key, some at a time: a dead record may be large."""


class Rows(NamedTuple):
    """The rows of one table for a COPY: its statement, and the rows."""

    statement: LiteralString
    made: Made


@dataclass(frozen=True)
class TableLines:
    """Rows as lines, in the order that a digest covers; sent in that of the `keys`, if there are any."""

    lines: Sequence[str]
    keys: Sequence[Key] | None = None

    def __len__(self) -> int:
        return len(self.lines)

    def text(self) -> bytes:
        """See `Made`."""
        return "".join(self.lines).encode()

    def blocks(self) -> Iterator[bytes]:
        """See `Made`."""
        block: list[str] = []
        size = 0
        for text in self.lines if self.keys is None else in_order(self.keys, self.lines):
            block.append(text)
            size += len(text)
            if size > BLOCK_CHARS:
                yield "".join(block).encode()
                block, size = [], 0
        if block:
            yield "".join(block).encode()


def in_order(keys: Sequence[Key], lines: Sequence[str]) -> list[str]:
    """The lines in the order of their keys. Rows are sent in that of the primary key, digested in another."""
    return [lines[number] for number in sorted(range(len(lines)), key=keys.__getitem__)]


def receive(
    conn: Connection, statement: LiteralString, first_entry: int, last_entry: int
) -> dict[int, list[bytes]]:
    """The lines of a `COPY (...) TO STDOUT` over a range of entries, by their first column, the entry."""
    found: dict[int, list[bytes]] = {}
    with faults(), conn.cursor() as cursor, cursor.copy(statement, (first_entry, last_entry)) as copy:
        for row in copy:  # libpq hands out one row at a time (PQgetCopyData)
            stored = bytes(row)
            found.setdefault(int(stored[: stored.index(b"\t")]), []).append(stored)
    return found


def texts(values: Iterable[str]) -> str:
    """Ids or numbers as one parameter, for `string_to_array(%s, E'\\n')`: none is empty or holds a line feed.

    (A list's elements cost the driver 1.5 us each.)
    """
    return "\n".join(values)


def visible(text: str) -> str:
    """A part of a line in which only backslashes are to be escaped: it has tabs between columns at most.

    Ids and sources hold no control characters, and JSON escapes them.
    """
    return text.replace("\\", "\\\\") if "\\" in text else text


def _text(value: str) -> str:
    value = visible(value)
    if not value.isprintable():  # the only other characters to escape are control characters
        for raw, escaped in _ESCAPES:
            value = value.replace(raw, escaped)
    return value


# What Postgres prints for these control characters, so that the lines are equal both ways.
_ESCAPES = (("\b", "\\b"), ("\f", "\\f"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"), ("\v", "\\v"))


def _bytes(value: bytes) -> str:
    return "\\\\x" + value.hex()


def _array(values: list[bytes | None]) -> str:
    return "{" + ",".join("NULL" if v is None else '"\\\\\\\\x' + v.hex() + '"' for v in values) + "}"


_ENCODERS: dict[type, Callable[[Any], str]] = {
    str: _text,
    int: str,
    bytes: _bytes,
    list: _array,
    type(None): lambda _: NULL,
}
