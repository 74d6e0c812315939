"""Before the command line: what is refused in one line, and whose code runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stockledger import __main__ as door
from tests.support.planted import PROGRAM, Planted, bare_environment, every_name

ROOT = Path(__file__).parents[2]
MODULE = [sys.executable, "-m", "stockledger"]


def run(command, *words, folder, **environment):
    return subprocess.run(
        [*command, *words],
        cwd=folder,
        env=bare_environment(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("words", [["config"], ["publish", "none.jsonl", "--dry-run"]], ids=str)
def test_no_code_of_the_current_folder_runs(tmp_path, words):
    """A verb imports nothing from where it is called, whatever lies there under the name of a module."""
    planted = Planted(tmp_path)
    done = run([str(PROGRAM)], *words, folder=tmp_path)
    assert "Traceback" not in done.stderr
    assert planted.ran() == []


def test_nor_does_it_under_python_m(tmp_path):
    """`python -m stockledger` leaves the current folder out before it imports anything that Python itself
    didn't need to find it: the other packages, installed ones and ours, and most of the library."""
    own = every_name() - sys.stdlib_module_names - {"stockledger"}
    planted = Planted(tmp_path, own | {"json", "colorsys", "multiprocessing", "subprocess", "socket"})
    done = run(MODULE, "config", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert planted.ran() == []


def test_a_checkout_runs_in_its_own_folder():
    """There the current folder is where the packages are, so it stays."""
    assert run(MODULE, "--version", folder=ROOT).returncode == 0


@pytest.mark.parametrize(
    ("command", "made"),
    [
        ([str(PROGRAM)], "producer.py"),
        ([str(PROGRAM)], "ledger/__init__.py"),
        (MODULE, "consumer/__init__.py"),
    ],
)
def test_a_file_that_hides_a_package_is_named(tmp_path, command, made):
    """A shop's own module on PYTHONPATH in the place of one of ours: which file it is, and a command that
    works all the same."""
    hiding = tmp_path / made
    hiding.parent.mkdir(exist_ok=True)
    hiding.write_text("")
    done = run(command, "config", "--json", folder="/", PYTHONPATH=str(tmp_path))
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "SL-CLI-007"
    assert error["message"].startswith(f"{hiding} hides ")
    assert f"  next: {error['remedy']}" in done.stderr
    again = run(["sh", "-c", error["remedy"]], folder="/", PYTHONPATH=str(tmp_path))
    assert again.returncode == 0, again.stderr


def test_a_folder_without_an_init_hides_nothing(tmp_path):
    """A shop's folder `ledger` with its data in it is no package: it does no harm."""
    (tmp_path / "ledger").mkdir()
    assert run([str(PROGRAM)], "config", folder=tmp_path, PYTHONPATH=str(tmp_path)).returncode == 0


def test_a_program_is_told_too(tmp_path):
    """A shop's `producer.py` that imports stockledger is told in one line that it is in the way."""
    script = tmp_path / "producer.py"
    script.write_text("from stockledger import Publisher\n")
    done = run([sys.executable, str(script)], folder="/")
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: {script} hides stockledger's own package producer: rename that")


@pytest.mark.parametrize("words", [["--help"], ["status", "--json"], ["demo"]], ids=str)
def test_another_system_is_told_in_one_line(monkeypatch, capsys, words):
    """On Windows every verb says which systems there are, before anything that Windows lacks is imported."""
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(sys, "argv", ["stockledger", *words])
    with pytest.raises(SystemExit) as end:
        door.main()
    said = capsys.readouterr()
    assert end.value.code == 2
    assert said.err == (
        "error SL-CLI-006: stockledger runs on Linux and macOS, this is win32\n  next: wsl --install\n"
    )
    assert bool(said.out) == ("--json" in words)


def test_what_the_door_imports_is_everywhere():
    """It can say so only where it can be imported itself: by nothing that a system or an old Python lacks."""
    lacking = ["pwd", "fcntl", "termios", "grp", "resource", "typer"]
    script = f"import sys; sys.modules.update(dict.fromkeys({lacking})); import stockledger.__main__"
    assert run([sys.executable, "-c", script], folder="/").returncode == 0


def test_signals_are_heard_before_anything_is_imported():
    """The first process of a container is deaf until it has a handler, so nothing of ours comes before."""
    script = (
        "import signal, sys; from stockledger import __main__ as door;"
        "signal.signal = lambda number, _: sys.exit(' '.join(sys.modules)); door.main()"
    )
    done = run([sys.executable, "-c", script], folder="/")
    loaded = done.stderr.split()
    assert "stockledger.__main__" in loaded
    assert {"ledger", "typer", "stockledger.cli"}.isdisjoint(loaded)


def test_an_old_python_is_told_in_one_line(monkeypatch, capsys):
    """An environment that an older Python made says so, instead of failing at the first import."""
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    with pytest.raises(SystemExit):
        door.main()
    assert "stockledger needs Python 3.11 or later, this is 3.10" in capsys.readouterr().err
