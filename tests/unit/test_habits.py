"""What the project is worked on with: hooks, editor, container, changelog; each in step with the rest."""

import json
import re
import tomllib

import pytest

from tests.support.interface import ROOT
from tools.release import OPERATORS, Unfit, dated, version_of

PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_changelog_is_fit_for_a_release():
    """Its first heading names the version, in Keep-a-Changelog's form, with the line for operators."""
    assert dated((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version_of(PROJECT))


@pytest.mark.parametrize(
    ("changelog", "why"),
    [
        ("# Changelog\n\n## [0.1.0] - 2026-12-01\n", "begins with 0.1.0"),
        (f"## 0.2.0 (unreleased)\n{OPERATORS} wait.\n", "begins with no version"),
        (f"## [0.2.0] - unreleased\n\n## [0.1.0] - 2026-12-01\n{OPERATORS} wait.\n", "has no line"),
    ],
    ids=["old", "form", "operators"],
)
def test_a_changelog_that_is_not_fit_is_named(changelog, why):
    """With what is missing."""
    with pytest.raises(Unfit, match=why):
        dated(changelog, "0.2.0")


def test_hooks_run_what_the_check_runs():
    """Each hook before a commit is local, and a command of `make check` but for what limits it to files."""
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"repo: (.*)", hooks)) == {"local"}
    entries = [each.replace(" --force-exclude", "") for each in re.findall(r"entry: \.venv/bin/(.*)", hooks)]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = {line.removesuffix(" .") for line in re.findall(r"^\t\$\(BIN\)/(.*)", makefile, re.MULTILINE)}
    assert len(entries) == 4
    assert set(entries) <= commands


def test_editors_know_the_line_length():
    """.editorconfig says the one that ruff holds."""
    length = tomllib.loads(PROJECT)["tool"]["ruff"]["line-length"]
    assert f"max_line_length = {length}\n" in (ROOT / ".editorconfig").read_text(encoding="utf-8")


def test_the_devcontainer_is_built_on_compose():
    """Its services are those of compose.yaml and its own, and it adds to that file."""
    folder = ROOT / ".devcontainer"
    told = json.loads((folder / "devcontainer.json").read_text(encoding="utf-8"))
    files = [folder / name for name in told["dockerComposeFile"]]
    assert files[0].resolve() == ROOT / "compose.yaml"
    services = re.findall(
        r"^  (\w+):$", "".join(each.read_text(encoding="utf-8") for each in files), re.MULTILINE
    )
    assert {told["service"], *told["runServices"]} <= set(services)


def test_every_place_that_a_recipe_names_is_there():
    """Files and folders in CONTRIBUTING.md exist, so who follows a recipe finds each of its places."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    recipes = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert {"A command", "An event", "A projection", "An error", "A verb", "A migration"} <= set(recipes)
    named = set(re.findall(r"[\w.-]+(?:/[\w.*-]*)+|\b[A-Z]+\.md\b", text)) - {"I/O.", "build/site"}
    assert len(named) > 50
    assert [place for place in sorted(named) if not list(ROOT.glob(place.rstrip("/")))] == []
