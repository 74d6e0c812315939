"""The units for systemd: it reads them, the program takes their command lines, and they may do little."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import is_setting, understood
from tools.reference import ROOT

FOLDER = ROOT / "deploy/systemd"
UNITS = sorted(FOLDER.glob("*.service"))
PROGRAM = "/opt/stockledger/bin/stockledger"
EXPOSURE_MAX = 15
"""In tenths, as `systemd-analyze security` takes it; without the common file it is over 90."""
PAGE = ROOT / "docs/how-to/services.md"


def test_each_verb_that_goes_on_has_its_unit():
    """Those that compose starts, the relay, and the cache of a host."""
    verbs = {unit.name.removeprefix("stockledger-").removesuffix("@.service") for unit in UNITS}
    assert verbs == {"run", "project", "relay", "cache", "serve"}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_the_program_takes_what_a_unit_starts(unit):
    """Its verb and its options are the program's."""
    [command] = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
    program, *words = command.split()
    assert program == PROGRAM
    understood(words)


def test_what_isnt_taken_is_seen():
    """An option that the verb doesn't have, and a setting that there isn't."""
    with pytest.raises(Exception, match="--htp"):
        understood(["run", "--htp", "9464"])
    assert understood(["cache", "--into", "/run/x"])["into"] == Path("/run/x")
    assert [name for name in ("STOCKLEDGER_DSNN", "STOCKLEDGER_DSN", "PGHOST") if is_setting(name)] == [
        "STOCKLEDGER_DSN",
        "PGHOST",
    ]


def test_the_environment_of_the_page_is_the_programs():
    """Each variable in the file that the page shows is a setting."""
    [block] = re.findall(r'^ *```ini title="[^"]+"\n(.*?)^ *```', PAGE.read_text("utf-8"), re.M | re.DOTALL)
    names = re.findall(r"^ *(\w+)=", block, re.MULTILINE)
    assert names
    assert [name for name in names if not is_setting(name)] == []


@pytest.fixture
def analyze(tmp_path):
    """`systemd-analyze` on copies of the units that start a program which is there."""
    if not (program := shutil.which("systemd-analyze")):
        pytest.skip("no systemd-analyze: it comes with systemd")
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    for unit in tmp_path.glob("*.service"):
        unit.write_text(unit.read_text().replace(PROGRAM, sys.executable))

    def analyze(*words):
        done = subprocess.run(
            [program, *words], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
        )
        return done.returncode, done.stdout + done.stderr

    return analyze


def test_systemd_reads_every_unit(analyze):
    """Without a word: no setting is unknown, and none is in the wrong section."""
    assert analyze("verify", *(f"./{unit.name}" for unit in UNITS)) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_may_do_little(analyze, unit):
    """By systemd's own count; what is common to all stands in one file, which belongs to each of them."""
    threshold = f"--threshold={EXPOSURE_MAX}"
    status, told = analyze("security", "--offline=true", "--no-pager", threshold, f"./{unit.name}")
    assert status == 0, told
