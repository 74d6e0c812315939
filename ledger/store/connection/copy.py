"""Rows to COPY: the only place that knows how rows become bytes.

Rows travel in COPY's text format, and a batch's digest covers the very lines that were sent: Postgres
prints a stored row back as the same line (`COPY ... TO STDOUT`), so `verify` compares without a
second encoding. Source of the format: PostgreSQL 18, COPY, "Text Format"; arrays: 8.15.6.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString

from ledger.store.connection.database import Connection, faults

NULL = "\\N"
Value = str | int | bytes | None | list[bytes | None]
Key = str | tuple[str, str]
BLOCK_CHARS = 1_000_000
BLOCK_LINES = 128
"""A block is some 20 kB: the server begins soon, and isn't asked too often."""


def line(*values: Value) -> str:
    """One row as COPY's text format has it, line feed included."""
    return "\t".join([_ENCODERS[type(value)](value) for value in values]) + "\n"


class Rows:
    """The rows of one table: sent in the order of their primary keys, digested in their own.

    `line` makes a row's line of its parts, when its turn to be sent comes: while the server takes in those
    before it.
    """

    def __init__(
        self, keys: Sequence[Key], rows: Sequence[tuple[Any, ...]], line: Callable[..., str]
    ) -> None:
        self._keys = keys
        self._rows = rows
        self._line = line
        self._sent: dict[int, str] = {}

    def blocks(self) -> Iterator[str]:
        """The lines to send, some at a time."""
        rows, line = self._rows, self._line
        order = sorted(range(len(rows)), key=self._keys.__getitem__)
        for first in range(0, len(order), BLOCK_LINES):
            numbers = order[first : first + BLOCK_LINES]
            lines = [line(*rows[number]) for number in numbers]
            self._sent.update(zip(numbers, lines, strict=True))
            yield "".join(lines)

    def lines(self) -> list[str]:
        """All lines that were sent, by the number of their row."""
        return list(map(self._sent.__getitem__, range(len(self._rows))))


def send(conn: Connection, statement: LiteralString, lines: Sequence[str]) -> None:
    """Copy the lines into the table that the statement names; nothing is sent for none.

    Raises the ledger's faults, which tell a batch which constraint it lost a race on.
    """
    with sending(conn, statement, _blocks(lines)):
        pass


def _blocks(lines: Sequence[str]) -> Iterator[str]:
    """The lines, some at a time: a dead record may be large."""
    block: list[str] = []
    size = 0
    for text in lines:
        block.append(text)
        size += len(text)
        if size > BLOCK_CHARS:
            yield "".join(block)
            block, size = [], 0
    if block:
        yield "".join(block)


@contextmanager
def sending(conn: Connection, statement: LiteralString, blocks: Iterable[str]) -> Iterator[None]:
    """Send blocks of lines as `send` does; the body runs while the server takes in the last of them."""
    blocks = iter(blocks)
    first = next(blocks, None)
    if first is None:
        yield
        return
    with faults(), conn.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(first)
        for block in blocks:
            copy.write(block)
        yield


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
