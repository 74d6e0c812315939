"""A folder full of modules that must not run: somebody else's, under every name that our program imports."""

import os
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("stockledger")
PLANTED = """import sys
with open({marker!r}, "a") as marker:
    marker.write(__name__ + " ran in " + " ".join(sys.orig_argv) + "\\n")
"""


class Planted:
    """`folder` has a module for each of `names`; `ran` tells which of them were run, and by whom."""

    def __init__(self, folder: Path, names: Iterable[str] = ()) -> None:
        self.folder = folder
        self._marker = folder / "planted.log"
        for name in names or every_name():
            (folder / f"{name}.py").write_text(PLANTED.format(marker=str(self._marker)))

    def ran(self) -> list[str]:
        return self._marker.read_text().splitlines() if self._marker.exists() else []


def every_name() -> set[str]:
    """All modules of the standard library, of what is installed here, and our own."""
    return {
        name for name in {*sys.stdlib_module_names, *metadata.packages_distributions()} if name.isidentifier()
    }


def bare_environment(**settings: str) -> dict[str, str]:
    """The environment of somebody who has set nothing of ours, nor anything of Python's."""
    ours = ("STOCKLEDGER_", "PYTHON", "PG")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | settings
