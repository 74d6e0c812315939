"""The environment of what a test starts: as it is, without anybody's settings of ours and of libpq."""

import os

import pytest

SETTINGS = ("STOCKLEDGER_", "PG")


def inherited() -> dict[str, str]:
    """This process's environment, without anybody's settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}


def unset(patch: pytest.MonkeyPatch) -> None:
    """Take them out of this process's own environment."""
    for name in os.environ.keys() - inherited().keys():
        patch.delenv(name)
