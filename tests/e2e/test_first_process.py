"""As the first process of a container, to which the kernel passes no signal that it has no handler for."""

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from ledger.store.connection import database
from tests.support.cli import Cli
from tests.support.projections import purchases, shop
from tests.support.workers import wait_for

FIRST = ["unshare", "--pid", "--fork", "--kill-child"]
PATIENCE_S = 60


@pytest.fixture(autouse=True)
def _may_unshare():
    if not shutil.which(FIRST[0]) or subprocess.run([*FIRST, "true"], check=False).returncode:
        pytest.skip("no process may be made the first one here (unshare --pid)")


@pytest.fixture
def conn(ledger_dsn, seed):
    """A ledger with more events than are rebuilt in a while at one a second."""
    with database.connect(ledger_dsn, purpose="test") as conn:
        shop(conn).apply(1, *purchases(seed, "p", 100))
        yield conn


@pytest.fixture
def stockledger(ledger_dsn):
    return Cli(ledger_dsn, "127.0.0.1:1", "none")


@contextmanager
def first_process(environment, *words):
    """The verb as a first process; `terminate` asks it to end. Killed in any case."""
    command = [*FIRST, sys.executable, "-m", "stockledger", *words]
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def program(process):
    """The program's pid as seen from here."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return wait_for("the program", lambda: [int(pid) for pid in children.read_text().split()])[0]


def hears(pid, number):
    """Whether it has a handler for the signal."""
    [caught] = re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return int(caught, 16) >> (number - 1) & 1


def terminate(process):
    """Ask it to end, once: its exit code."""
    os.kill(program(process), signal.SIGTERM)
    process.communicate(timeout=PATIENCE_S)
    return process.returncode


def test_it_ends_while_it_starts(stockledger):
    """Asked before any verb has begun, it ends at once, as a process that isn't the first one does."""
    with first_process(stockledger.environment, "run") as process:
        pid = program(process)
        wait_for("its first handler", lambda: hears(pid, signal.SIGTERM))
        assert terminate(process) == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("words", "begun", "code"),
    [
        (["run", "--log-format", "json"], '"waiting"', 0),
        (["project", "--log-format", "json"], '"ready"', 0),
        (["status", "--watch"], "SL-KAFKA-001", 0),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else None,
)
def test_a_verb_that_goes_on_for_ever_ends(conn, stockledger, words, begun, code):
    """SIGTERM ends it, whatever it waits for, and that is no failure: it was asked to."""
    with first_process(stockledger.environment, *words) as process:
        line = process.stderr.readline()
        while begun not in line:
            assert line, process.wait(PATIENCE_S)
            line = process.stderr.readline()
        assert terminate(process) == code


def test_a_replay_that_follows_ends(conn, stockledger):
    """SIGTERM ends it as Ctrl-C does."""
    with first_process(stockledger.environment, "replay", "--follow") as process:
        assert process.stdout.readline().startswith("{")
        assert terminate(process) == 130


def test_a_rebuild_ends_and_goes_on_later(conn, stockledger):
    """SIGTERM ends it between two chunks; the same again resumes, and the projection is whole."""
    words = ["rebuild", "purchases_by_user", "--yes"]
    stockledger("project", "--until-caught-up")
    building = "SELECT FROM ledger.projection WHERE name = 'purchases_by_user' AND status = 'building'"
    with first_process(stockledger.environment, *words, "--max-rate", "1") as process:
        wait_for("a generation that is being built", lambda: conn.execute(building).fetchall())
        assert terminate(process) == 130
    assert stockledger(*words[:2])["resumes"] is True
    assert stockledger(*words)["swapped"] is True
