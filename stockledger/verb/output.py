"""What a verb says and where: results on stdout, everything else on stderr, under `--json` one object.

Whatever is printed may quote what strangers published, so control characters never reach the terminal.
Amounts are written with spaces (`count`), places (positions, offsets, versions) as they can be pasted.
Colours and widths are rich's business, which honours NO_COLOR, FORCE_COLOR, TTY_COMPATIBLE and COLUMNS.
"""

import json
import re
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from ledger.errors import LedgerError
from ledger.figures import count
from stockledger.verb.streams import Stderr, Stdout

PROGRESS_INTERVAL_S = 2.0
GUTTER = "  "
INDENT = "   "
NUMBER = re.compile(r"[\d .]+|-")
STYLES = {
    "ok": "green",
    "applied": "green",
    "warn": "yellow",
    "rejected": "yellow",
    "parked": "yellow",
    "fail": "bold red",
    "conflict": "red",
}
"""Words that have a colour wherever they are a cell of their own."""

Advance = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""


class Output:
    """The two streams of one verb."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self._out = Stdout(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._err = Stderr(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)

    @property
    def _width(self) -> int | None:
        """What a line may take; None in a pipe, where a line stays a line."""
        return self._out.width if self._out.is_terminal else None

    def say(self, *cells: object) -> None:
        """A line of the result, for people; on a narrow terminal it goes on below, cell by cell."""
        if self.json:
            return
        texts = [plain(cell) for cell in cells]
        for number, part in enumerate(_parts([cell_len(text) for text in texts], self._width)):
            self._out.print(_line([INDENT] * bool(number) + texts[part]))

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Aligned columns, numbers to the right. In a pipe a row is a line; on a narrow terminal its last
        columns go below the first ones, and only a text that is wider than that is broken, between words."""
        if self.json:
            return
        table = [[plain(cell) for cell in row] for row in (header, *(list(row) for row in rows))]
        numeric = [all(NUMBER.fullmatch(row[i]) for row in table[1:]) for i in range(len(header))]
        widths = [max(cell_len(row[i]) for row in table) for i in range(len(header))]
        parts = _parts(widths, self._width)
        for number, row in enumerate(table):
            cells = [_padded(*column) for column in zip(row, widths, numeric, strict=True)]
            for below, part in enumerate(parts):
                for line in self._broken(cells[part], INDENT if below else ""):
                    self._out.print(line, style="bold" if number == 0 else "")

    def _broken(self, cells: list[str], indent: str) -> Iterator[Text]:
        line = _line([indent] * bool(indent) + cells)
        line.rstrip()
        if self._width is None or line.cell_len <= self._width:
            yield line
            return
        yield from (
            Text(text)
            for text in textwrap.wrap(
                line.plain, self._width, subsequent_indent=indent or INDENT, break_on_hyphens=False
            )
        )

    def result(self, data: dict[str, Any]) -> None:
        """The one object of `--json`."""
        if self.json:
            self._out.out(json.dumps(data, default=_jsonable), highlight=False)

    def end(self) -> None:
        """All that was said is out. Raises OutputFailed if it isn't."""
        with self._out.guarded(self._out.file):
            self._out.file.flush()

    def raw(self, text: str) -> None:
        """A result for machines, as it is (SQL)."""
        if not self.json:
            self._out.out(text, highlight=False, end="")

    def note(self, text: str, style: str = "") -> None:
        """A line beside the result, on stderr."""
        self._err.print(Text(plain(text), style))

    def error(self, error: LedgerError) -> None:
        """What went wrong, with its code, and the one next step."""
        self._err.print(Text.assemble(("error", "bold red"), f" {error.code}: {plain(error.message)}"))
        if error.remedy:
            self._err.print(Text.assemble(("  next:", "dim"), f" {plain(as_typed(error.remedy))}"))

    def traceback(self) -> None:
        """The exception being handled, for `--debug`."""
        import traceback

        self._err.out(traceback.format_exc(), highlight=False, end="")

    @contextmanager
    def progress(self) -> Iterator[Advance]:
        """A bar where stderr is a terminal, else a plain line every two seconds. Say nothing meanwhile."""
        if not self._err.is_terminal:
            yield _Lines(self)
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(
            *columns, console=self._err, transient=True, redirect_stdout=False, redirect_stderr=False
        ) as bar:
            task = bar.add_task("", total=None)
            yield lambda what, done, of: bar.update(task, description=what, completed=done, total=of)

    @contextmanager
    def screen(self) -> Iterator[Callable[[], None]]:
        """A screen of its own for what is shown again and again; call it before each showing."""
        with self._out.screen(hide_cursor=True) if self._out.is_terminal else _nothing():
            yield self._out.clear if self._out.is_terminal else lambda: None


class _Lines:
    """Progress where there is no terminal."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._due = time.monotonic() + PROGRESS_INTERVAL_S

    def __call__(self, what: str, done: int, of: int) -> None:
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + PROGRESS_INTERVAL_S
            self._out.note(f"{what} {count(done)}/{count(of)} {done * 100 // of if of else 100} %")


def as_typed(command: str) -> str:
    """A next step as it works when pasted: the program by its place, where its bare name finds nothing."""
    called = Path(sys.argv[0])
    if command.split(" ")[0] != "stockledger" or called.name != "stockledger" or shutil.which("stockledger"):
        return command
    return shlex.quote(str(called)) + command.removeprefix("stockledger")


def plain(value: object) -> str:
    """The value as one line that is safe on any terminal; `-` where there is none."""
    if value is None or value == "":
        return "-"
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


def instant(time: datetime) -> str:
    """The time in full, in UTC: `--as-of` with it takes in what was recorded then."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _parts(widths: Sequence[int], width: int | None) -> list[slice]:
    """Which cells go side by side, so that none is broken that isn't wider than a line by itself."""
    if width is None:
        return [slice(None)]
    starts, used = [0], 0
    for number, each in enumerate(widths):
        if number and used + each > width:
            starts.append(number)
            used = len(INDENT) + len(GUTTER)
        used += each + len(GUTTER)
    return [slice(*bounds) for bounds in zip_longest(starts, starts[1:])]


def _line(cells: Sequence[str]) -> Text:
    line = Text()
    for number, cell in enumerate(cells):
        line.append(GUTTER if number else "")
        line.append(cell, STYLES.get(cell.strip()))
    return line


def _padded(cell: str, width: int, numeric: bool) -> str:
    space = " " * (width - cell_len(cell))
    return space + cell if numeric else cell + space


def _jsonable(value: object) -> object:
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


@contextmanager
def _nothing() -> Iterator[None]:
    yield
