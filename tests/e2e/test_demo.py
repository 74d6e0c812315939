"""The demo: the first thing that a newcomer runs, and the last one that may leave a mess."""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import zipfile
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM
from urllib.request import Request, urlopen

import pytest

from ledger.errors import Unavailable
from ledger.signals import Asked
from stockledger.demo import story, voice
from tests.support.planted import PROGRAM, Planted

ROOT = Path(__file__).parents[2]
IN_UNDER_S = 60
MARK = "STOCKLEDGER_TEST_DEMO"


@pytest.fixture
def folder():
    """Where temporary files go; open to others, because as root the demo's Postgres runs as another user."""
    with tempfile.TemporaryDirectory(prefix="stockledger-test-demo-") as path:
        Path(path).chmod(0o755)
        yield Path(path)


@contextmanager
def demo(folder, *words, program=PROGRAM, cwd=None):
    """The demo at work in a session of its own; the program isn't on the PATH."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STOCKLEDGER_")}
    process = subprocess.Popen(
        [program, "demo", *words],
        env=environment
        | {"PATH": os.defpath, "TMPDIR": str(folder), MARK: str(folder), "PYTHONFAULTHANDLER": "1"},
        cwd=cwd or folder,
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
def test_the_demo_shows_what_happened_and_cleans_up(folder, tmp_path):
    """In under a minute, with nothing installed but the program: a day's purchases, some twice, a worker
    killed: nothing lost, nothing doubled, all checks green; no process and no file is left. No code of the
    folder that it is called in has run, in none of its processes."""
    planted = Planted(tmp_path)
    with demo(folder, "--json", cwd=tmp_path) as process:
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
    assert planted.ran() == []
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


def opened(process):
    """The address of the shop, once it is open."""
    while not (
        found := re.search(r"the shop is open: (http://[^/]+)/ui/", line := process.stderr.readline())
    ):
        assert line, "it ended by itself"
    return found[1]


@pytest.mark.slow
def test_a_demo_that_is_kept_stays_open_until_it_is_told_to_end(folder):
    """Its pages are there, one can buy, and then nothing is left: no process, no file; that is no error."""
    with demo(folder, "--keep") as process:
        address = opened(process)
        for path in ("/ui/", "/readyz"):
            with urlopen(address + path, timeout=IN_UNDER_S) as page:
                assert page.status == 200
        wanted = {"user_id": "17850", "goods_id": "85123A", "quantity": 1}
        headers = {"Idempotency-Key": "kept-1", "Content-Type": "application/json", "Prefer": "wait=30"}
        buys = Request(f"{address}/v1/purchases", json.dumps(wanted).encode(), headers)
        with urlopen(buys, timeout=IN_UNDER_S) as answer:
            assert json.load(answer)["outcome"] == "applied"
        process.send_signal(SIGTERM)
        said, log = process.communicate(timeout=IN_UNDER_S)
    assert process.returncode == 0, log
    assert "all green" in said
    assert left_behind(folder) == []
    assert list(folder.iterdir()) == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that a release would be, built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-P", "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=IN_UNDER_S)
    [built] = folder.glob("*.whl")
    return built


def test_the_wheel_has_all_that_the_program_needs(wheel):
    """Every file of the five packages, data included, and no other: neither tests nor benchmarks."""
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    packages = ("ledger", "consumer", "producer", "gateway", "stockledger")
    files = [path for name in packages for path in (ROOT / name).rglob("*") if path.is_file()]
    assert packed == {str(path.relative_to(ROOT)) for path in files if path.suffix != ".pyc"}


@pytest.mark.slow
def test_the_demo_runs_from_a_wheel(wheel, folder, tmp_path):
    """Installed into an empty environment, away from any checkout. The steps that it names work as printed,
    although the environment isn't active: to keep the shop open, and to look at one's own services."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=IN_UNDER_S)
    [packages] = venv.glob("lib/python*/site-packages")
    # what it depends on, without this checkout: a .pth file in a folder that is named by one isn't read
    (packages / "dependencies.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin/python", "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--quiet", wheel], check=True, timeout=IN_UNDER_S)
    with demo(folder, program=venv / "bin/stockledger") as process:
        said, log = process.communicate(timeout=2 * IN_UNDER_S)
    assert process.returncode == 0, said + log
    assert "all green" in said
    program, verb, keep = shlex.split(next_step(log))
    assert verb == "demo"
    with demo(folder, keep, program=program) as process:
        opened(process)
        os.killpg(process.pid, SIGINT)  # as a terminal does: to all of them
        said, log = process.communicate(timeout=IN_UNDER_S)
    assert process.returncode == 0, said + log
    assert left_behind(folder) == []
    bare = {"PATH": os.defpath, "HOME": str(tmp_path)}
    done = subprocess.run(
        ["sh", "-c", next_step(log)], env=bare, capture_output=True, text=True, timeout=60, check=False
    )
    assert "of the checks failed" in done.stderr, log + done.stderr  # there are no services of his yet


def next_step(log):
    """The command that the demo names at its end."""
    [step] = [line.removeprefix("next: ") for line in log.splitlines() if line.startswith("next: ")]
    return step


def test_the_demo_is_never_silent_for_long(monkeypatch):
    """Whatever takes its time, it says what it is at, again and again; after its end it says no more."""
    said, heard, stop = [], threading.Event(), Asked()

    def tell(text):
        said.append(text)
        if text.count("...") and len(said) > 3:
            heard.set()

    monkeypatch.setattr(voice, "SILENCE_S", 0.01)
    with voice.Voice(tell, stop) as speaker:
        speaker.note("begun", "the proof")
        assert heard.wait(60)
        stop.set()
        with pytest.raises(KeyboardInterrupt):
            speaker.at("more of it")
    assert said[0] == "begun"
    assert set(said[1:]) == {"  ... the proof"}
    assert not speaker._pulse.is_alive()


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OSError(28, "No space left on device", "/full/file"), "can't use /full/file: No space left"),
        (FileNotFoundError(2, "No usable temporary directory"), "can't use /t: No usable temporary"),
    ],
    ids=["full", "none"],
)  # fmt: skip
def test_a_folder_that_the_demo_cant_use_is_named(monkeypatch, error, cause):
    """No room and no right are the machine's affair: one line with the place, exit 3, and no bug."""

    def fails(voice, opened):
        raise error

    monkeypatch.setattr(story, "_run", fails)
    monkeypatch.setenv("TMPDIR", "/t")
    with pytest.raises(Unavailable, match=re.escape(cause)) as raised:
        story.run(lambda text: None)
    assert raised.value.remedy.startswith("df -h /")
