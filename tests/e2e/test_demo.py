"""The demo: the first thing that a newcomer runs, and the last one that may leave a mess."""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM

import pytest

IN_UNDER_S = 60
MARK = "STOCKLEDGER_TEST_DEMO"


@pytest.fixture
def folder():
    """Where temporary files go; open to others, because as root the demo's Postgres runs as another user."""
    with tempfile.TemporaryDirectory(prefix="stockledger-test-demo-") as path:
        Path(path).chmod(0o755)
        yield Path(path)


@contextmanager
def demo(folder, *words):
    """The demo at work in a session of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STOCKLEDGER_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "stockledger", "demo", *words],
        env=environment | {"TMPDIR": str(folder), MARK: str(folder), "PYTHONFAULTHANDLER": "1"},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:  # the test has failed: it can't clean up any more
                os.killpg(process.pid, SIGKILL)


def left_behind(folder):
    """The demo's processes: marked in their environment (Postgres hides it), or at home in its folder."""
    mark = f"{MARK}={folder}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            marked = mark in (process / "environ").read_bytes().split(b"\0")
            if marked or str((process / "cwd").readlink()).startswith(str(folder)):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:  # gone meanwhile, or another user's
            continue
    return found


@pytest.mark.slow
def test_the_demo_shows_what_happened_and_cleans_up(folder):
    """In under a minute, with nothing installed but the program: a day's purchases, some twice, a worker
    killed: nothing lost, nothing doubled, all checks green; no process and no file is left."""
    with demo(folder, "--json") as process:
        said, log = process.communicate(timeout=2 * IN_UNDER_S)
    assert process.returncode == 0, said + log
    report = json.loads(said)["report"]
    print(report)
    assert report["seconds"] < IN_UNDER_S
    assert report["published"] == report["delivered"] > 3_000
    assert report["duplicates"] > 0
    assert report["killed_pid"] > 0
    assert (report["lost"], report["doubled"], report["wrong"], report["red"]) == (0, 0, 0, [])
    decided = report["applied"] + sum(report["rejected"].values())
    assert decided + report["duplicates"] == report["delivered"]
    assert left_behind(folder) == []
    assert list(folder.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["broker are up", "workers started", "killed in the middle"])
@pytest.mark.parametrize("number", [SIGINT, SIGTERM])
def test_a_demo_that_is_interrupted_cleans_up(folder, number, moment):
    """Ctrl-C, or a SIGTERM, whatever the demo is at: it ends soon, and leaves nothing either."""
    with demo(folder) as process:
        while moment not in (line := process.stderr.readline()):
            assert line, "it ended by itself"
        if number == SIGINT:  # as a terminal does: to all of them
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        _, log = process.communicate(timeout=IN_UNDER_S)
    assert process.returncode == 130, log
    assert left_behind(folder) == []
    assert list(folder.iterdir()) == []
