"""The proof before a release: `python -m tools.release` builds what would be published and uses it.

Wheel and source distribution are built with the locked build tools. The wheel is then installed beside the
locked requirements in an empty environment, and the demo is run from there, away from this checkout. Whatever
fails ends the proof with exit 1, and one line says what it was. Only the package index is reached, by pip.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILT = ROOT / "build/release"
PACKAGES = ("consumer", "gateway", "ledger", "producer", "stockledger")
TIMEOUT_S = 600
HEADING = re.compile(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2}|unreleased)$", re.MULTILINE)
OPERATORS = "**Operators must**"
USER = '''"""A program that uses the public names, as its author's type checker sees it."""

from stockledger import Ledger, Publisher, PurchaseGoods, Receipt, RecordedOutcome, Shop


def buy(publisher: Publisher, ledger: Ledger) -> RecordedOutcome:
    """Send one purchase and wait for its outcome."""
    receipt: Receipt = publisher.send(PurchaseGoods(user_id="1", goods_id="2", quantity=3), id="4")
    return ledger.wait(receipt, timeout_s=1.0)


def buy_at(shop: Shop) -> RecordedOutcome:
    """The same in one call."""
    return shop.buy_goods("1", "2", 3, request_id="4")
'''


class Unfit(Exception):
    """Why this can't be released."""


class Say:
    """Prints each step with the seconds since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {text}", flush=True)


def version_of(project: str) -> str:
    """The version in pyproject.toml's text."""
    return str(tomllib.loads(project)["project"]["version"])


def dated(changelog: str, version: str) -> str:
    """The date of the version's part in the changelog, or "unreleased"; it must be the first part."""
    heading = HEADING.search(changelog)
    if heading is None or heading[1] != version:
        first = heading[1] if heading else "no version"
        raise Unfit(f"CHANGELOG.md begins with {first}, pyproject.toml has {version}")
    part = changelog[heading.end() :].split("\n## ")[0]
    if OPERATORS not in part:
        raise Unfit(f"CHANGELOG.md has no line {OPERATORS} under {version}")
    return heading[2]


def run(*words: str | Path, cwd: Path, environment: dict[str, str] | None = None) -> str:
    """What the command prints on stdout; Unfit with the last it said unless it ends well."""
    done = subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip()[-2000:]
        raise Unfit(f"{' '.join(map(str, words))} ended with {done.returncode}:\n{said}")
    return done.stdout


def build(source: Path, target: str, into: Path) -> Path:
    """The one distribution of this kind that hatchling builds of the source."""
    run(sys.executable, "-P", "-m", "hatchling", "build", "-t", target, "-d", into, cwd=source)
    [built] = into.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rebuilt(sdist: Path, folder: Path) -> Path:
    """The wheel that the source distribution builds, away from this checkout."""
    with tarfile.open(sdist) as packed:
        packed.extractall(folder, filter="data")
    [source] = folder.iterdir()
    return build(source, "wheel", folder / "again")


def require_whole(wheel: Path) -> int:
    """The number of files in the wheel: those of git in the five packages, and no other."""
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    kept = run("git", "ls-files", "--", *PACKAGES, cwd=ROOT).split()
    if packed != set(kept):
        raise Unfit(f"wheel and git differ in {', '.join(sorted(packed ^ set(kept)))}")
    return len(packed)


def install(wheel: Path, folder: Path) -> Path:
    """An empty environment with the locked requirements and the wheel; its folder of programs."""
    run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    pip: list[str | Path] = [
        folder / "bin/python",
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
    ]
    run(*pip, "--require-hashes", "-r", ROOT / "requirements/demo.txt", cwd=folder)
    run(*pip, "--no-deps", "--no-index", wheel, cwd=folder)
    run(folder / "bin/python", "-m", "pip", "check", cwd=folder)
    return folder / "bin"


def demonstrate(programs: Path, folder: Path, version: str) -> str:
    """Run the demo as somebody who has installed nothing else; what it reports."""
    bare = {"PATH": os.defpath, "HOME": str(folder), "TMPDIR": str(folder)}
    said = run(programs / "stockledger", "--version", cwd=folder, environment=bare)
    if version not in said:
        raise Unfit(f"stockledger --version says {said.strip()}, not {version}")
    said = run(programs / "stockledger", "demo", "--json", cwd=folder, environment=bare)
    report = json.loads(said)["report"]
    if report["lost"] or report["doubled"] or report["wrong"] or report["red"]:
        raise Unfit(f"the demo of the wheel went wrong: {report}")
    return f"{report['delivered']} delivered, {report['applied']} applied, {report['seconds']} s"


def require_typed(programs: Path, folder: Path) -> None:
    """A program that imports the installed package passes its author's strict type checker."""
    (folder / "program.py").write_text(USER, encoding="utf-8")
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(folder / "cache")]
    run(*mypy, "--python-executable", programs / "python", "program.py", cwd=folder)


def prove(say: Say) -> None:
    """All of it, in order. Raises Unfit at the first that fails."""
    version = version_of((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    say(f"version {version}, {dated((ROOT / 'CHANGELOG.md').read_text(encoding='utf-8'), version)}")
    if changed := run("git", "status", "--porcelain", cwd=ROOT).split("\n")[:-1]:
        say(f"not as committed: {len(changed)} files; a release is built of a clean checkout")
    for old in [*BUILT.glob("*.whl"), *BUILT.glob("*.tar.gz")]:
        old.unlink()
    wheel, sdist = (build(ROOT, target, BUILT) for target in ("wheel", "sdist"))
    say(f"{wheel.name}, {sdist.name}: {require_whole(wheel)} files of the five packages")
    with tempfile.TemporaryDirectory(prefix="stockledger-release-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # as root the demo's Postgres runs as another user
        (folder / "source").mkdir()
        if digest(rebuilt(sdist, folder / "source")) != digest(wheel):
            raise Unfit("the source distribution builds another wheel")
        say(f"the source distribution builds the same wheel: sha256 {digest(wheel)}")
        programs = install(wheel, folder / "venv")
        say("installed into an empty environment from the locked requirements")
        require_typed(programs, folder)
        say("a program that uses it passes mypy --strict")
        say(f"the demo of the wheel: {demonstrate(programs, folder, version)}")


def main() -> int:
    """Exit 0 if all of it holds."""
    try:
        prove(Say())
    except Unfit as why:
        print(f"error: {why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
