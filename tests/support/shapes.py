"""What docs/FORMAT.md says about `--json`: whatever a verb says in a test is held to the page."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs/FORMAT.md"


@cache
def documented() -> dict[str, frozenset[str]]:
    """The members of each verb's answer, such as `lanes[].topic`; under "" those of every verb."""
    _, _, answers = PAGE.read_text(encoding="utf-8").partition("\n## JSON answers\n")
    common, *verbs = answers.split("\n## ")[0].split("\n### ")
    return {"": _members(common)} | {part.partition("\n")[0]: _members(part) for part in verbs}


def _members(text: str) -> frozenset[str]:
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return frozenset(re.findall(r"`([^`]+)`", " ".join(cells)))


def undocumented(words: Sequence[object], answer: dict[str, Any]) -> list[str]:
    """The members of a verb's answer that the page lacks; `words` is its command line."""
    said = [str(word) for word in words]
    tried = (" ".join(said[:2]), said[0], f"{said[0]} feed", "")  # a group's own verb may go unsaid
    verb = next(each for each in tried if each in documented())
    known = documented()[verb] | documented()[""]
    patterns = [re.compile(re.sub(r"[A-Z]+", r"[^\\[\\]]+", re.escape(path))) for path in known]
    begins = {path[:at] for path in known for at in range(len(path)) if path[at] in ".["}
    return [
        path
        for path in dict.fromkeys(_paths(answer))
        if path not in begins and not any(pattern.fullmatch(path) for pattern in patterns)
    ]


def _paths(value: object, path: str = "") -> Iterator[str]:
    """The places of all values that hold no others; of an empty list or object, its own."""
    if isinstance(value, dict) and value:
        for name, member in value.items():
            yield from _paths(member, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value:
        for member in value:
            yield from _paths(member, f"{path}[]")
    else:
        yield path
