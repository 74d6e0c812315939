"""Pages that are followed as a reader follows them: files are written, commands typed, answers compared.

A block of the language `console` is what stands on a terminal: lines after `$ ` are typed (those after `> `
with them), all others must be the answer. A block with a title is a file, or another terminal:

    ```json title="orders.jsonl"         the file is written
    ```console title="second terminal"   the command goes on beside the others, until the reader's end

Of an answer, times and durations are any; `...` is any lines, `…` anything in a line.

A how-to shows command lines without their answers, in blocks and in its sentences: `HowTo` types them all.
"""

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from itertools import dropwhile
from pathlib import Path
from typing import NamedTuple

import pytest

from stockledger import cli
from tests.support.environment import inherited
from tests.support.workers import wait_for

TIMEOUT_S = 240
ANYTHING = ["..."]
BLOCK = re.compile(r'^#+ ([^\n]+)$|^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
MASKED = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"), "TIME"),
    (re.compile(r"\b[\d.]+ (?:ms|s)\b"), "DURATION"),
    (re.compile(r" {2,}"), "  "),
)
SHELL = re.compile(
    r"^ *```(\w*)[^\n]*\n(.*?)^ *```$|`(stockledger [^`\n]+)`|^#+ ([^\n]+)$", re.MULTILINE | re.DOTALL
)
NONE = re.compile(r"stockledger VERB|\.\.\.|…|^stockledger [^a-z-]")
ENDS_BY_CTRL_C = re.compile(
    r"stockledger (run|project|relay|serve)\b(?!.*--(until-caught-up|drop))|stockledger replay .*--follow"
)


class Block(NamedTuple):
    """A fenced block: the heading that it stands under, its language, its title, and its text."""

    heading: str
    language: str
    title: str
    text: str


class Command(NamedTuple):
    """What is typed, and what the terminal answers."""

    typed: str
    answer: list[str]


def blocks(page: str) -> list[Block]:
    """All of the page, in order."""
    found, heading = [], ""
    for match in BLOCK.finditer(page):
        if match[1]:
            heading = match[1]
        else:
            found.append(Block(heading, match[2], match[3] or "", match[4]))
    return found


def indented(page: str) -> list[str]:
    """The texts of all fenced blocks, those within lists as well."""
    return re.findall(r"^ *```[^\n]*\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL)


class Line(NamedTuple):
    """What a page has one type, and the heading that it stands under."""

    heading: str
    language: str
    text: str


def typed(page: str) -> list[Line]:
    """The lines of all blocks, and the command lines in the sentences, in the page's order."""
    found, heading = [], ""
    for match in SHELL.finditer(page):
        language, block, inline, title = match.groups()
        heading = title or heading
        if block:
            found += [Line(heading, language, line.strip()) for line in block.splitlines()]
        elif inline and not NONE.search(inline):
            found.append(Line(heading, "sh", inline))
    return found


def commands(text: str) -> list[Command]:
    """Those of a `console` block."""
    found: list[Command] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:], []))
        elif line.startswith("> ") and not found[-1].answer:
            found[-1] = Command(f"{found[-1].typed}\n{line[2:]}", [])
        else:
            found[-1].answer.append(line)
    return found


def pattern(answer: list[str]) -> re.Pattern[str]:
    """What the terminal may say where the page says this."""
    lines = [
        r"(?:.*\n)*?"
        if line.strip() == "..."
        else r".*?".join(map(re.escape, masked(line).split("…"))) + r"\n"
        for line in answer
    ]
    return re.compile("".join(lines))


def masked(text: str) -> str:
    """The text without what differs from run to run."""
    for what, name in MASKED:
        text = what.sub(name, text)
    return "\n".join(line.rstrip() for line in text.split("\n"))


def made(folder: Path, commands: Mapping[str, str]) -> Path:
    """A folder within `folder`, for the PATH: with commands by these names that do this."""
    (folder / "bin").mkdir()
    for name, does in commands.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{does}\n")
        (folder / "bin" / name).chmod(0o755)
    return folder / "bin"


class Reader:
    """Somebody with a folder, an environment and a page. What the page says for addresses that are another's
    here, `instead` says; `stands_in` are commands that take the place of those on the PATH."""

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        instead: dict[str, str],
        stands_in: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.instead = instead
        self._beside: list[tuple[subprocess.Popen[bytes], Path]] = []
        self.environment = {**inherited(), **environment}
        self.environment["PATH"] = f"{made(folder, stands_in or {})}{os.pathsep}{self.environment['PATH']}"

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        for process, _said in self._beside:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def follows(self, page: str) -> None:
        """Do all that the page says, in order."""
        for block in blocks(page):
            if block.language == "console":
                for command in commands(block.text):
                    if block.title:
                        self.goes_on(command.typed)
                    else:
                        self.types(command)
            elif block.title:
                (self.folder / block.title).write_text(self.here(block.text), encoding="utf-8")

    def types(self, command: Command) -> None:
        """Type it, wait for its end and compare the answer. What it sets in the environment stays set."""
        after = self.folder / "environment"
        script = f"{self.here(command.typed)}\ncode=$?; env -0 >{after}; exit $code"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        told = f"$ {command.typed}\n{done.stdout}(it ended with {done.returncode}; the page says:)\n"
        told += "\n".join(command.answer)
        assert done.returncode == 0, told
        answer = [self.here(line) for line in command.answer]
        assert pattern(answer).fullmatch(masked(done.stdout)), told
        self.environment = dict(
            pair.partition("=")[::2] for pair in after.read_text().split("\0") if "=" in pair
        )

    def goes_on(self, typed: str) -> None:
        """Type it in another terminal, where it goes on beside the others; returns at its first word."""
        said = self.folder / f"said-{len(self._beside)}"
        with said.open("wb") as terminal:
            process = subprocess.Popen(
                ["bash", "-c", self.here(typed)],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=terminal,
                stderr=terminal,
                start_new_session=True,
            )
        self._beside.append((process, said))
        wait_for(f"a word of {typed}", lambda: said.stat().st_size or process.poll() is not None)

    def interrupts(self) -> None:
        """Ctrl-C in the other terminals: what goes on ends as interrupted."""
        for process, said in self._beside:
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(TIMEOUT_S) == 130, said.read_text()
        self._beside.clear()

    def here(self, text: str) -> str:
        """The text with our addresses for the page's."""
        for theirs, ours in self.instead.items():
            text = text.replace(theirs, ours)
        return text


class HowTo:
    """A how-to at a reader's: each of its command lines is typed once, in order, and must end well. What only
    ends by Ctrl-C goes on beside the others. A page isn't done before `rest`. It may begin at a heading."""

    def __init__(self, reader: Reader, page: Path, begin: str = "") -> None:
        self._reader = reader
        lines = dropwhile(
            lambda line: begin not in ("", line.heading), typed(page.read_text(encoding="utf-8"))
        )
        self._left = [line for line in lines if line.language == "sh"]

    def up_to(self, where: str) -> None:
        """Type what comes before this heading, or before the next line that begins so."""
        while self._left[0].heading != where and not self._left[0].text.startswith(where):
            self._next()

    def rest(self) -> None:
        """Type what is left."""
        while self._left:
            self._next()

    def _next(self) -> None:
        line = self._left.pop(0).text
        if ENDS_BY_CTRL_C.search(line):
            self._reader.goes_on(line)
        elif "$(" in line or line.startswith("export "):
            self._reader.types(Command(line, ANYTHING))
        else:
            program, *words = shlex.split(self._reader.here(line), comments=True)
            assert (program, self._execute(words)) == ("stockledger", 0), line

    def _execute(self, words: list[str]) -> int:
        """In this process: to start the program anew for each line takes most of the time."""
        with pytest.MonkeyPatch.context() as patch:
            for name in os.environ.keys() - self._reader.environment.keys():
                patch.delenv(name)
            for name, value in self._reader.environment.items():
                patch.setenv(name, value)
            patch.chdir(self._reader.folder)
            if path := self._reader.environment.get("PYTHONPATH"):
                patch.syspath_prepend(path)
            return cli.execute(words)
