"""What the pages tell people to type is something that the program understands.

Whole pages are executed by `tests/e2e/test_readme.py`, `test_tutorial.py`, `test_publish_page.py` and
`test_how_to.py`, and by `tests/postgres/test_restore_page.py`.
"""

import re
import shlex
from pathlib import Path

import pytest
import typer

from stockledger.cli import app
from tests.support import pages

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*.md"))]
STANDS_FOR = {
    r"\$\([^)]*\)": "1",
    r"\bPARTITION@OFFSET\b": "1@1",
    r"\b(?:N|PARTITION|POSITION)\b": "1",
    r"\b(\w+)\|\w+\b": r"\1",
}
"""What is no word of a command line but stands for one."""


def lines(page: Path) -> list[str]:
    """The command lines of the page, without what follows `stockledger` and its words in them."""
    found = [line.text.removeprefix("$ ") for line in pages.typed(page.read_text(encoding="utf-8"))]
    found = [line for line in found if line.startswith("stockledger ") and not pages.NONE.search(line)]
    return [re.split(r"\s+#\s|\s*[|&>;]\s|\s+\[", line)[0] for line in found]


def parse(line: str) -> None:
    """Raise typer.TyperException unless the program has this verb and these options."""
    for what, word in STANDS_FOR.items():
        line = re.sub(what, word, line)
    command, (_, *words) = typer.main.get_command(app), shlex.split(line)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
    if words[:1] != ["--help"] and (unsaid := getattr(command, "unsaid", "")):
        command = command.commands[unsaid]  # type: ignore[attr-defined]
    if words == ["--version"] or "--help" in words or (not words and hasattr(command, "commands")):
        return
    if getattr(command, "commands", {}):
        raise typer.BadParameter(f"no verb {words[0]}")
    try:
        command.make_context("stockledger", words)
    except typer.TyperException as error:
        if not str(error).startswith("Missing"):  # a sentence may name a verb alone
            raise


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_line_is_understood(page):
    """Verbs and options of `stockledger ...` in a page are the program's, and their values fit."""
    for line in lines(page):
        try:
            parse(line)
        except typer.TyperException as error:
            raise AssertionError(f"{line}: {error}") from None


@pytest.mark.parametrize(
    "line", ["stockledger fly", "stockledger run --wings 2", "stockledger run --workers many"]
)
def test_a_command_line_that_is_none_is_found(line):
    """The test above can fail: a verb, an option or a value that the program doesn't know is refused."""
    with pytest.raises(typer.TyperException):
        parse(line)


def test_every_how_to_has_something_to_type():
    """A how-to is for doing: each shows commands or files, and the site and the README lead to it."""
    navigation, readme = (ROOT / "zensical.toml").read_text(), (ROOT / "README.md").read_text()
    for page in sorted((ROOT / "docs/how-to").glob("*.md")):
        assert pages.indented(page.read_text(encoding="utf-8"))
        assert f'"how-to/{page.name}"' in navigation
        assert f"(docs/how-to/{page.name})" in readme


def test_every_how_to_is_executed():
    """Some test follows each how-to, line by line."""
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for page in (ROOT / "docs/how-to").glob("*.md"):
        assert f'"{page.name}"' in tests or f'docs/how-to/{page.name}"' in tests, page.name
