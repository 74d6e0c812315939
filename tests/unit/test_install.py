"""`requirements/install`, which `make` calls: shows that it is at work, and names the cause of what fails."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ["cat", "cp", "dirname", "grep", "head", "mkdir", "mktemp", "rm", "sed", "sh", "tail"]
PYTHON = """#!/bin/sh
# An interpreter of the version $VERSION whose pip says what is in $PIP_SAYS; `-m venv` makes a copy of it.
case "$*" in
  *'import pip'*) exit 0 ;;
  *'version_info < (3, 11)'*) [ "${VERSION#3.1[1-9]}" != "$VERSION" ] ;;
  --version) echo "Python $VERSION" ;;
  '-m venv .venv') [ -z "${VENV_SAYS:-}" ] || { echo "$VENV_SAYS"; exit 1; }
    mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  *'pip install'*) [ -z "${PIP_SAYS:-}" ] || { echo "$PIP_SAYS"; exit 1; } ;;
esac
"""
REFUSED = """WARNING: Retrying after connection broken by 'NewConnectionError("HTTPSConnection(host='index',
port=443): Failed to establish a new connection: [Errno 111] Connection refused")': /simple/a/
ERROR: Could not find a version that satisfies the requirement annotated-types==0.7.0 (from versions: none)
ERROR: No matching distribution found for annotated-types==0.7.0"""
NO_NAME = """WARNING: Retrying after connection broken by 'NameResolutionError("HTTPSConnection(host='index',
port=443): Failed to resolve 'index' ([Errno -3] Temporary failure in name resolution)")': /simple/a/
ERROR: No matching distribution found for annotated-types==0.7.0"""
UNREACHABLE = "the package index can't be reached"
FULL = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
ENSUREPIP = """The virtual environment was not created successfully because ensurepip is not
available.  On Debian/Ubuntu systems, you need to install the python3-venv"""
HASHES = "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE."


@pytest.fixture
def checkout(tmp_path):
    """What the installer needs of a checkout, and an interpreter that it may find."""
    shutil.copytree(ROOT / "requirements", tmp_path / "checkout/requirements")
    python = tmp_path / "bin/python3"
    python.parent.mkdir()
    python.write_text(PYTHON)
    python.chmod(0o755)
    for tool in TOOLS:
        (python.parent / tool).symlink_to(shutil.which(tool))
    (python.parent / "sleep").symlink_to(shutil.which("true"))  # nobody waits for a second to pass
    return tmp_path / "checkout"


def install(checkout, *, version="3.12.1", user=None, **environment):
    """Run it, and return its exit code and what it said."""
    done = subprocess.run(
        ["sh", str(checkout / "requirements/install"), "demo"],
        env={"PATH": str(checkout.parent / "bin"), "VERSION": version, "HOME": "/nowhere", **environment},
        user=user,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not done.stdout
    return done.returncode, done.stderr.splitlines()


def test_it_says_what_it_does(checkout):
    """Three steps, each with a sign of life; nothing of what pip says where all is well."""
    code, said = install(checkout)
    assert code == 0, said
    assert [line.rstrip(" .") for line in said] == [
        "making .venv with python3",
        "installing 44 packages, once",
        "installing stockledger",
    ]


def test_an_environment_that_is_there_is_used_again(checkout):
    """A second run makes none."""
    install(checkout)
    code, said = install(checkout)
    assert (code, len(said)) == (0, 2)


@pytest.mark.parametrize(
    ("environment", "cause", "step"),
    [
        ({"PIP_SAYS": REFUSED}, f"{UNREACHABLE}: [Errno 111] Connection refused", "PIP_INDEX_URL"),
        ({"PIP_SAYS": NO_NAME}, f"{UNREACHABLE}: [Errno -3] Temporary failure in name", "PIP_INDEX_URL"),
        ({"PIP_SAYS": FULL}, "no room is left on the disk of ", "df -h ."),
        ({"PIP_SAYS": HASHES}, "pip install failed: ERROR: THESE PACKAGES DO NOT MATCH", "make demo"),
        ({"VENV_SAYS": ENSUREPIP}, "python3 can't make a virtual environment", "install python3-venv"),
        ({"version": "3.10.13"}, "no Python 3.11 or later on the PATH; python3 is Python 3.10", "make demo"),
        ({"PYTHON": "/no/python"}, "/no/python isn't Python 3.11 or later", "PYTHON=/path/to/python make"),
    ],
    ids=["refused", "no name", "full", "hashes", "ensurepip", "old", "wrong"],
)  # fmt: skip
def test_a_fault_is_one_line_with_its_cause(checkout, environment, cause, step):
    """Not pip's last words, which say "no matching distribution" for a missing network."""
    code, said = install(checkout, **environment)
    assert code == 1
    assert said[-2].startswith(f"error: {cause}")
    assert said[-1].startswith("  next: ")
    assert step in said[-1]


def test_an_environment_of_an_older_python_is_named(checkout):
    """It isn't removed unasked: the line says what it is, and how to be rid of it."""
    install(checkout)
    code, said = install(checkout, version="3.10.13")
    assert (code, said[0]) == (1, "error: .venv is of Python 3.10.13, stockledger needs 3.11 or later")
    assert said[1] == "  next: rm -rf .venv && make demo"
    assert (checkout / ".venv/bin/python").exists()


def test_a_folder_that_cant_be_written_is_named(checkout):
    """Before anything is made, with the folder and what to do about it."""
    user = None
    if os.geteuid() == 0:  # whom nothing is forbidden
        user = pwd.getpwnam("nobody").pw_uid
        for path in checkout.parents:
            if Path(tempfile.gettempdir()) in path.parents:
                path.chmod(0o755)
    checkout.chmod(0o555)
    code, said = install(checkout, user=user)
    checkout.chmod(0o755)
    assert (code, said[0]) == (1, f"error: this folder can't be written: {checkout}")
    assert said[1].startswith(f"  next: cp -R '{checkout}' ~/stockledger && cd ~/stockledger && make demo")


@pytest.mark.parametrize("file", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda file: file.stem)
def test_each_package_is_locked_with_its_hash(file):
    """And pip is told to refuse what has another one."""
    for line in file.read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            assert line.endswith(" \\"), line  # its hashes follow
    assert "--require-hashes" in (ROOT / "requirements" / "install").read_text()
