"""Files that aren't JSON lines in UTF-8, told by their beginning: one sentence and the way out of it.

Refused as a whole, also where bad lines are set aside: some lines of another format may happen to be commands
(the last element of an array has no comma after it), and to publish those alone is never meant.
"""

import json
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ledger.domain.foreign import (
    BYTE_ORDER_MARK,
    COMPRESSIONS,
    ENCODINGS,
    FORMATS,
    LOOKED_AT,
    UTF_16,
    begins_as,
)
from producer.lines import STDIN, BadInput, name_of

EXPORT = 'write one JSON object a line, as {"type": "RegisterUser", "id": "1", "user_id": "anna"}'
EXPANDERS = {
    "gzip": "gzip -dc",
    "zstd": "zstd -dc",
    "lz4": "lz4 -dc",
    "bzip2": "bzip2 -dc",
    "xz": "xz -dc",
    "zip": "funzip",
}
_CELL = re.compile(rb'\s*("[^"{}]*"|[\w .()/-]+)\s*')
_SEPARATORS = re.compile(rb"[,;\t|]")


class Format(NamedTuple):
    """What a file is, and the filter that makes JSON lines of it; without one there is only `EXPORT`."""

    what: str
    filter: str = ""


def require_json_lines(path: Path, file: BinaryIO) -> None:
    """Raises BadInput where the beginning of the file says that it is something else."""
    found = recognized(os.pread(file.fileno(), LOOKED_AT, 0))
    if found is None:
        return
    raise BadInput(
        f"{name_of(path)} {found.what}; nothing was published",
        remedy=_remedy(path, found.filter) if found.filter else EXPORT,
    )


def recognized(head: bytes) -> Format | None:
    """What a file with this beginning is, unless it may be JSON lines."""
    for look in _LOOKS:
        if found := look(head):
            return found
    return None


def _remedy(path: Path, filter: str) -> str:
    if path == STDIN:
        return f"pipe it through `{filter}` first"
    stem = path.name.removesuffix(path.suffix) if path.suffix in _REPLACED else path.name
    new = shlex.quote(str(path.with_name(stem.removesuffix(".jsonl") + ".lines.jsonl")))
    return f"{filter} < {shlex.quote(str(path))} > {new} && stockledger publish {new}"


_REPLACED = {".gz", ".zst", ".lz4", ".bz2", ".xz", ".zip", ".json", ".jsonl"}


def _encoded(head: bytes) -> Format | None:
    encoding = begins_as(head, ENCODINGS)
    if encoding == BYTE_ORDER_MARK:
        return Format("begins with a byte order mark", "tail -c +4")
    if encoding == UTF_16:
        marked = head.startswith((b"\xff\xfe", b"\xfe\xff"))
        kind = UTF_16 if marked else f"{UTF_16}{'BE' if head.startswith(bytes(1)) else 'LE'}"
        return Format(f"is {UTF_16} text", f"iconv -f {kind} -t UTF-8")
    return Format(f"is {encoding} text", f"iconv -f {encoding} -t UTF-8") if encoding else None


def _compressed(head: bytes) -> Format | None:
    kind = begins_as(head, COMPRESSIONS)
    return Format(f"is compressed with {kind}", EXPANDERS[kind]) if kind else None


def _of_another_kind(head: bytes) -> Format | None:
    if kind := begins_as(head.lstrip(), FORMATS):
        return Format(f"looks like {kind}, not like JSON lines")
    return Format("is no text") if b"\0" in head[:1024] else None


def _separated(head: bytes) -> Format | None:
    if head.startswith(b"\x1e"):
        return Format("has a record separator before each value", r"tr -d '\036'")
    if b"\n" not in head and re.search(rb"}\s*\r\s*{", head):
        return Format("has carriage returns for line ends", r"tr '\r' '\n'")
    return None


def _json(head: bytes) -> Format | None:
    first, second = _first_lines(head)
    if not first.startswith((b"[", b"{")) or (_is_json(first) and second):
        return None
    if first.startswith(b"["):
        return Format("is a JSON array, not JSON lines", "jq -c '.[]'")
    if first.endswith((b"{", b"[")) or (first.endswith(b",") and not _is_json(first[:-1])):
        return Format("is JSON over several lines, not one object a line", "jq -c .")
    if first.endswith(b","):
        return Format("has a comma after its first line, as an array has", "sed 's/,[[:space:]]*$//'")
    return None


def _table(head: bytes) -> Format | None:
    first, second = _first_lines(head)
    cells = _SEPARATORS.split(first)
    is_table = len(cells) > 1 and all(_CELL.fullmatch(cell) for cell in cells)
    return Format("looks like CSV, not like JSON lines") if is_table and not second.startswith(b"{") else None


_LOOKS: tuple[Callable[[bytes], Format | None], ...] = (
    _encoded,
    _compressed,
    _of_another_kind,
    _separated,
    _json,
    _table,
)


def _first_lines(head: bytes) -> tuple[bytes, bytes]:
    """The first two lines that aren't blank; empty where there is none."""
    lines = [line for raw in head.split(b"\n", 20) if (line := raw.strip())]
    return (*lines, b"", b"")[0], (*lines, b"", b"")[1]


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
