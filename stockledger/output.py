"""What a verb says and where: results on stdout, everything else on stderr, under `--json` one object.

Whatever is printed may quote what strangers published, so control characters never reach the terminal.
Colours and widths are rich's business, which honours NO_COLOR, FORCE_COLOR, TTY_COMPATIBLE and COLUMNS.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from ledger.errors import LedgerError

PROGRESS_INTERVAL_S = 2.0
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
        self._out = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._err = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def say(self, *cells: object) -> None:
        """A line of the result, for people."""
        if not self.json:
            self._out.print(_line([plain(cell) for cell in cells]))

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Aligned columns, numbers to the right, never wrapped: a line stays a line in a pipe."""
        if self.json:
            return
        table = [[plain(cell) for cell in row] for row in (header, *(list(row) for row in rows))]
        numeric = [all(NUMBER.fullmatch(row[i]) for row in table[1:]) for i in range(len(header))]
        widths = [max(cell_len(row[i]) for row in table) for i in range(len(header))]
        for number, row in enumerate(table):
            line = _line([_padded(*column) for column in zip(row, widths, numeric, strict=True)])
            line.rstrip()
            self._out.print(line, style="bold" if number == 0 else "")

    def result(self, data: dict[str, Any]) -> None:
        """The one object of `--json`."""
        if self.json:
            self._out.out(json.dumps(data, default=_jsonable), highlight=False)

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
            self._err.print(Text.assemble(("  next:", "dim"), f" {plain(error.remedy)}"))

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


def plain(value: object) -> str:
    """The value as one line that is safe on any terminal; `-` where there is none."""
    if value is None or value == "":
        return "-"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


def count(number: int) -> str:
    """1 204 331, as people read it."""
    return f"{number:,}".replace(",", " ")


def counted(number: int, noun: str) -> str:
    """1 record, 1 204 records."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def _line(cells: Sequence[str]) -> Text:
    line = Text()
    for number, cell in enumerate(cells):
        line.append("  " if number else "")
        line.append(cell, STYLES.get(cell.strip()))
    return line


def _padded(cell: str, width: int, numeric: bool) -> str:
    space = " " * (width - cell_len(cell))
    return space + cell if numeric else cell + space


def _jsonable(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


@contextmanager
def _nothing() -> Iterator[None]:
    yield
