"""The public interface: listed on a page, kept signature by signature, and never broken in silence."""

import ast
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import stockledger
from tests.support.interface import (
    PACKAGES,
    ROOT,
    SNAPSHOT,
    Interface,
    breaks,
    broken_since,
    last_release,
    unannounced,
)

CHANGED = "the public interface changed: `make interface`, read the diff, and say in CHANGELOG.md what breaks"
BEFORE = '''
from collections.abc import Callable
class Item:
    """One."""
    name: str
    def _inner(self, a: int) -> int: ...
class Shop:
    """All."""
    def buy(self, item: str, number: int = 1) -> Item: ...
    def sell(self, item: str) -> None: ...
class Post: ...
'''
AFTER = '''
class Item:
    """One."""
    name: str
    def _inner(self) -> int: ...
class Shop:
    """All."""
    def buy(self, item: str, number: int, *, colour: str = "") -> Item: ...
'''


def test_the_page_lists_what_is_exported():
    """docs/PUBLIC.md has each name of `stockledger.__all__`, once, and no other."""
    page = (ROOT / "docs/PUBLIC.md").read_text(encoding="utf-8")
    table = page.split("## Names in Python")[1].split("\n\n")[0]
    rows = [row.split("|")[2] for row in table.splitlines() if row.startswith("| ")]
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == stockledger.__all__


def test_the_page_names_tests_that_there_are():
    """What it says to be held by a test has that test."""
    page = (ROOT / "docs/PUBLIC.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[^`]+)`", page)
    assert len(named) > 5
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_no_signature_changes_unseen():
    """Names, parameters, defaults, types and values are those of the committed list."""
    assert Interface(ROOT).described() == SNAPSHOT.read_text(encoding="utf-8"), CHANGED


def test_no_breaking_change_goes_without_its_line():
    """Since the last release: the changelog names each, and the version says that there are some."""
    tag = last_release(ROOT)
    if tag is None:
        return  # nothing is promised before the first one
    found = broken_since(tag, ROOT)
    assert unannounced((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), tag, found) == []
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert not found or breaks(tag, version), f"{version} can't follow {tag} with {', '.join(found)}"


@pytest.fixture
def repository(tmp_path):
    """One with our packages' names, a release, and a later state in its working tree."""

    if not shutil.which("git"):
        pytest.skip("git isn't there")

    def git(*words):
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, "-C", tmp_path, *words], check=True, capture_output=True)

    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    exports = "TYPE_CHECKING = False\nif TYPE_CHECKING:\n" + "".join(
        f"    from ledger.shop import {name} as {name}\n" for name in ("Shop", "Post")
    )
    (tmp_path / "stockledger/__init__.py").write_text(exports)
    (tmp_path / "ledger/shop.py").write_text(BEFORE)
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "one")
    for tag in ("v0.9.0", "v0.10.0", "vain", "v0.11.0rc1"):
        git("tag", tag)
    (tmp_path / "ledger/shop.py").write_text(AFTER)
    (tmp_path / "stockledger/__init__.py").write_text(exports.rsplit("    from", 1)[0])
    return tmp_path


def test_the_check_for_breaking_changes(repository):
    """It finds what broke since the newest release, in public names and members only; a line ends that."""
    assert last_release(repository) == "v0.10.0"
    found = broken_since("v0.10.0", repository)
    assert list(found) == ["Post", "Shop.buy", "Shop.sell"]
    changelog = (
        "#\n## [0.11.0] - unreleased\n* `Shop.buy` wants a number.\n## [0.10.0]\n* `Shop.sell` is new.\n"
    )
    assert unannounced(changelog, "v0.10.0", found) == [found["Post"], found["Shop.sell"]]


def test_before_the_first_release_nothing_is_promised(tmp_path):
    """No tag, no repository: nothing to compare with, and no fault."""
    assert last_release(tmp_path) is None


@pytest.mark.parametrize(
    ("tag", "version", "may"),
    [
        ("v0.1.0", "0.1.0", False),
        ("v0.1.0", "0.1.1", False),
        ("v0.1.0", "0.2.0", True),
        ("v0.9.1", "0.10.0", True),
        ("v0.2.0", "1.0.0", True),
        ("v1.2.0", "1.3.0", False),
        ("v1.2.0", "2.0.0", True),
    ],
)
def test_which_version_may_break(tag, version, may):
    """A new major one; before 1.0 a new minor one, too."""
    assert breaks(tag, version) == may


@pytest.mark.parametrize("package", ["ledger", "consumer", "producer", "gateway"])
def test_a_package_that_is_internal_says_so(package):
    """In its docstring, and by exporting nothing."""
    tree = ast.parse(Path(ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    assert "Internal: programs import from `stockledger` only (docs/PUBLIC.md)." in str(
        ast.get_docstring(tree)
    )
    assert tree.body[1:] == []
