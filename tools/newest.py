"""The unit tests on the newest Python that this machine has: `python -m tools.newest`.

An interpreter on the PATH or of pyenv is taken, else an image `python:3.x-slim` that Docker has already.
Where neither is newer than the Python of .venv it says so and ends well: nothing is downloaded for it but
the locked requirements, by pip.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "requirements/dev.txt"
TESTS = ["tests/unit", "-q", "-p", "no:cacheprovider"]
OURS = sys.version_info.minor
NEWEST = 14
"""The newest minor version that pyproject.toml promises."""
PIP = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--root-user-action=ignore"]
INSIDE = """set -e
cp -r /checkout /tmp/checkout && cd /tmp/checkout
python {pip} --require-hashes -r requirements/dev.txt
python {pip} --no-deps --no-build-isolation -e .
exec python -m pytest "$@"
"""


def candidates(minor: int) -> Iterator[str]:
    """Where an interpreter of this version may be."""
    if found := shutil.which(f"python3.{minor}"):
        yield found
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    yield from map(str, sorted(versions.glob(f"3.{minor}.*/bin/python"), reverse=True))


def works(python: str, minor: int) -> bool:
    """Whether it is what its name says, and no shim that leads nowhere."""
    script = f"import sys, ensurepip; sys.exit(sys.version_info[:2] != (3, {minor}))"
    return not subprocess.run([python, "-c", script], capture_output=True, check=False).returncode


def interpreter(minor: int) -> str | None:
    return next((each for each in candidates(minor) if works(each, minor)), None)


def image(minor: int) -> str | None:
    """The image of this version, if Docker is there and has it."""
    name = f"python:3.{minor}-slim"
    if not shutil.which("docker"):
        return None
    found = subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False)
    return None if found.returncode else name


def run_here(python: str, minor: int, words: list[str]) -> int:
    """In an environment below build/, made anew whenever the locked requirements change."""
    folder = ROOT / f"build/python3.{minor}"
    stamp, wanted = folder / "stamp", hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([python, "-m", "venv", folder], check=True)
        pip = [str(folder / "bin/python"), *PIP]
        subprocess.run([*pip, "--require-hashes", "-r", REQUIREMENTS], cwd=ROOT, check=True)
        subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-e", "."], cwd=ROOT, check=True)
        stamp.write_text(wanted)
    return subprocess.run([folder / "bin/python", "-m", "pytest", *words], cwd=ROOT, check=False).returncode


def run_in(image: str, words: list[str]) -> int:
    """In a container of its own, on a copy of the checkout."""
    script = INSIDE.format(pip=" ".join(PIP))
    mount = ["--volume", f"{ROOT}:/checkout:ro"]
    docker = ["docker", "run", "--rm", *mount, image, "bash", "-c", script, "bash"]
    return subprocess.run([*docker, *words], check=False).returncode


def main() -> int:
    """pytest's exit code, or 0 where there is nothing newer."""
    words = [*TESTS, *sys.argv[1:]]
    for minor in range(NEWEST, OURS, -1):
        if python := interpreter(minor):
            print(f"Python 3.{minor}: {python}", flush=True)
            return run_here(python, minor, words)
        if name := image(minor):
            print(f"Python 3.{minor}: the image {name}", flush=True)
            return run_in(name, words)
        print(
            f"no Python 3.{minor}: not on the PATH, not of pyenv, no image python:3.{minor}-slim", flush=True
        )
    print(f"not proved: a newer Python than 3.{OURS}, which this machine lacks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
