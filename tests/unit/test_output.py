"""Where results go: pipes that are closed, disks that are full, narrow terminals, texts of strangers."""

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest

from stockledger.verb.call import Answer, conclude
from stockledger.verb.exits import Mismatch
from stockledger.verb.moment import time_of
from stockledger.verb.output import Output, instant, plain
from tests.support.environment import inherited

STOCKLEDGER = [sys.executable, "-m", "stockledger"]
TIMEOUT_S = 60
ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def ran(*words, **streams):
    """The exit code, and what stderr says, of the verb with these streams."""
    environment = inherited()
    done = subprocess.run(
        [*STOCKLEDGER, *words], env=environment, timeout=TIMEOUT_S, check=False, text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "words",
    [["config"], ["config", "--json"], ["migrate", "--print"], ["--help"], ["run", "--help"]],
    ids=" ".join,
)
def test_a_full_disk_is_one_line(words):
    """No traceback and no half success: what happened, that nothing is undone, and exit 4."""
    with open("/dev/full", "w") as full:
        code, said = ran(*words, stdout=full)
    assert code == 4
    assert re.fullmatch(r"error SL-CLI-008: .*No space left on device.*\n  next: .*\n", said)


@pytest.mark.parametrize("words", [["config"], ["config", "--json"], ["migrate", "--print"]], ids=" ".join)
def test_who_reads_no_more_ends_nothing(words):
    """`| head -1`: silence, and the exit code that it would have been."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        assert ran(*words, stdout=pipe) == (0, "")


def test_a_failure_stays_one_where_nobody_reads():
    """The verb's own exit code, whatever becomes of its output; and stderr may be full, too."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe, open("/dev/full", "w") as full:
        code, said = ran("config", "-X", "acks.typo=1", stdout=pipe)
        assert (code, "SL-CONF-001" in said) == (2, True)
        assert ran("config", "-X", "acks.typo=1", stdout=full, stderr=full)[0] in (2, 4)


def test_closed_streams():
    """`>&-` and `2>&-`."""
    for words, code in ((["config"], 0), (["config", "--nope"], 2)):
        line = " ".join([*STOCKLEDGER, *words, ">&- 2>&-"])
        assert subprocess.run(line, shell=True, timeout=TIMEOUT_S, check=False).returncode == code


def on_terminal(columns, show, monkeypatch):
    """What a terminal of that width gets, line by line."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    with open(theirs, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", terminal)
        show(Output())
    lines: list[str] = []
    with open(ours, errors="replace") as shown, suppress(OSError):  # as the other end is closed: all was read
        lines.extend(shown)
    return [ANSI.sub("", line.rstrip("\r\n")) for line in lines]


HEADER = ("RECORD", "STATUS", "CODE", "KEY", "SINCE", "DETAIL")
ROW = ("3@5512", "parked", "not_a_command", b"4711", datetime(2026, 11, 28, tzinfo=UTC),
       "quantity: must be greater than 0, which it isn't by far, and so it can't be applied")  # fmt: skip


@pytest.mark.parametrize("columns", [40, 80, 300])
def test_no_word_is_broken_on_a_narrow_terminal(monkeypatch, columns):
    """Every line fits, every cell is whole, and each word of a long text, too."""
    lines = on_terminal(columns, lambda out: out.table(HEADER, [ROW, ROW]), monkeypatch)
    assert max(map(len, lines)) <= columns
    words = " ".join(lines).split()
    for cell in (*HEADER, "3@5512", "not_a_command", "2026-11-28T00:00:00.000000Z", *ROW[-1].split()):
        assert cell in words
    if columns == 300:
        assert len(lines) == 3


def test_a_line_of_cells_goes_on_below(monkeypatch):
    """As tables do."""
    cells = ["applied", "goods-85123A version 17", "shop-uk/536365-1", "purchase-commands[3]@5512", "x" * 20]
    lines = on_terminal(80, lambda out: out.say(*cells), monkeypatch)
    assert max(map(len, lines)) <= 80
    assert all(any(cell in line for line in lines) for cell in cells)


def test_in_a_pipe_a_line_stays_a_line(capsys):
    """Programs read lines."""
    Output().table(HEADER, [ROW])
    Output().say(*["x" * 50] * 9)
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize(
    "stranger", ["\u202e", "\x85", "\u2028", "\u2029", "\u2066", "\x1b", "\x9b", "\r", "\u200f"]
)
def test_no_control_character_reaches_the_terminal(capsys, stranger):
    """In results, beside them, in errors and in what to do next: escaped, wherever it comes from."""
    out = Output()
    out.say(stranger)
    out.table((stranger,), [(stranger,)])
    out.note(stranger)
    conclude(out, False, lambda: Answer({}, next=stranger, error=Mismatch(stranger, remedy=stranger)))
    conclude(out, False, lambda: Answer({}, next=stranger))
    shown = "".join(capsys.readouterr())
    assert stranger not in shown
    assert shown.count(plain(stranger)) == 7


def test_times_have_their_zone_and_all_their_digits():
    """What is printed can be given to `--as-of`, and means that very moment."""
    for time in (
        datetime(2026, 11, 28, 18, 31, 6, 123456, tzinfo=UTC),
        datetime(2026, 11, 28, 18, 31, tzinfo=timezone(timedelta(hours=9))),
    ):
        assert re.fullmatch(r"\S+T\S+\.\d{6}Z", instant(time))
        assert time_of(instant(time)) == time == time_of(plain(time))
