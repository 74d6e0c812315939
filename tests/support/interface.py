"""The public interface as griffe reads it from the source: names, signatures, fields, values.

    python -m tests.support.interface      writes tests/unit/interface.txt anew (`make interface`)

Two things are held by it. `described` is compared with the committed text, so that no signature changes
unseen. `broken_since` compares with the last release, so that no breaking change goes without a line in
CHANGELOG.md.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from griffe import Alias, Attribute, Class, Expr, Function, GriffeLoader, Kind, Object, find_breaking_changes

ROOT = Path(__file__).parents[2]
SNAPSHOT = ROOT / "tests/unit/interface.txt"
PACKAGES = ("ledger", "consumer", "producer", "gateway", "stockledger")
RELEASE = re.compile(r"v\d+\.\d+\.\d+")
INTERNAL = {"Publisher.post"}
"""Members of public classes that are for our own verbs."""
OPAQUE = {"Connection"}
"""Public as what they are derived from, and no more."""
HEAD = """\
# The public interface, written by `make interface`: what `stockledger` exports, then the types that come
# with it. A line that changes or goes is a breaking change, or may be one: docs/PUBLIC.md.
"""


class Interface:
    """The public names of one state of the code, and the types that their signatures mention."""

    def __init__(self, root: Path) -> None:
        loader = GriffeLoader(search_paths=[root], allow_inspection=False)
        for package in PACKAGES:
            loader.load(package, submodules=package != "stockledger", try_relative_path=False)
        loader.resolve_aliases()
        self._modules = loader.modules_collection
        exported = self._modules["stockledger"].members
        self.names = {name: each.final_target for name, each in exported.items() if isinstance(each, Alias)}
        self.reached = self._reached()

    def _reached(self) -> dict[str, Object]:
        """Our types in the signatures of the public names, and in theirs; by name."""
        known = {each.path for each in self.names.values()}
        found: dict[str, Object] = {}
        waiting = list(self.names.values())
        while waiting:
            for path in mentioned(waiting.pop()):
                if path.split(".")[0] not in PACKAGES or path in known:
                    continue
                known.add(path)
                target = self._modules[path]
                target = target.final_target if isinstance(target, Alias) else target
                if target.name.startswith("_") or (target.path in known and target.path != path):
                    continue
                known.add(target.path)
                found[target.name] = target
                waiting.append(target)
        return found

    def described(self) -> str:
        """The snapshot's text."""
        blocks = [described(name, each) for name, each in sorted(self.names.items())]
        reached = [described(name, each) for name, each in sorted(self.reached.items())]
        return HEAD + "\n" + "\n".join(blocks) + "\n\n# reached from them\n\n" + "\n".join(reached) + "\n"


def mentioned(each: Object) -> Iterator[str]:
    """The paths of all names in an object's signature, and in those of its public members."""
    match each:
        case Function():
            parts = [each.returns, *(parameter.annotation for parameter in each.parameters)]
        case Class():
            parts = list(each.bases)
            for member in public_members(each):
                yield from mentioned(member)
        case Attribute():
            parts = [each.annotation]
            if not isinstance(each.parent, Class):
                parts.append(each.value)  # an alias of a type
        case _:
            parts = []
    for part in parts:
        if isinstance(part, Expr):
            yield from (name.canonical_path for name in part.iterate(flat=True) if isinstance(name, Expr))


def public_members(each: Class) -> list[Object]:
    """What a class defines under a name without an underscore, and how it is made."""
    if each.name in OPAQUE:
        return []
    hidden = {name.split(".")[1] for name in INTERNAL if name.split(".")[0] == each.name}
    made = set() if "dataclass" in kind(each) else {"__init__"}  # what fields say, isn't said twice
    ours = [one for one in each.members.values() if isinstance(one, Object) and one.name not in hidden]
    return [one for one in ours if one.name in made or not one.name.startswith("_")]


def described(name: str, each: Object) -> str:
    """A line for the object, an indented one for each of its public members."""
    if not isinstance(each, Class):
        return line(name, each)
    bases = ", ".join(str(base) for base in each.bases)
    head = f"class {name}({bases})" if bases else f"class {name}"
    members = [f"    {line(member.name, member)}" for member in public_members(each)]
    ordered = members if {"dataclass", "NamedTuple"} & kind(each) else sorted(members)
    return "\n".join([head, *ordered])


def kind(each: Class) -> set[str]:
    """What makes the order of a class's fields a part of its interface."""
    words = [str(base) for base in each.bases] + [str(mark.value) for mark in each.decorators]
    return {re.split(r"[.(]", word)[0] for word in words}


def line(name: str, each: Object) -> str:
    """One signature, or one field with its type and value."""
    if isinstance(each, Function):
        marks = [mark for mark in ("staticmethod", "classmethod") if mark in each.labels]
        return " ".join([*marks, f"def {each.signature(name=name)}"])
    assert isinstance(each, Attribute), each.path
    if "property" in each.labels:
        return f"property {name}: {each.annotation}"
    typed = f"{name}: {each.annotation}" if each.annotation else name
    assigned = "instance-attribute" in each.labels and "class-attribute" not in each.labels
    return typed if each.value is None or assigned else f"{typed} = {' '.join(str(each.value).split())}"


def last_release(root: Path) -> str | None:
    """The newest tag that names a version and that HEAD comes after; None before the first release."""
    if not shutil.which("git"):
        return None
    listed = ["git", "-C", str(root), "tag", "--list", "v*", "--merged", "HEAD", "--sort=-v:refname"]
    done = subprocess.run(listed, capture_output=True, text=True, check=False)
    return next((tag for tag in done.stdout.split() if RELEASE.fullmatch(tag)), None)


def broken_since(tag: str, root: Path) -> dict[str, str]:
    """The breaking changes of the public interface since the tag: the name that broke, and how."""
    with tempfile.TemporaryDirectory() as folder:
        packed = ["git", "-C", str(root), "archive", tag, "--", *PACKAGES]
        archive = subprocess.run(packed, capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        old, new = Interface(Path(folder)), Interface(root)
        found = {name: f"{name} is gone" for name in old.names.keys() - new.names.keys()}
        for name in old.names.keys() & new.names.keys():
            found |= broken(name, old.names[name], new.names[name])
        for name in old.reached.keys() & new.reached.keys():
            found |= broken(name, old.reached[name], new.reached[name])
    return dict(sorted(found.items()))


def broken(name: str, old: Object, new: Object) -> dict[str, str]:
    """What griffe finds between two states of one object."""
    if old.kind is not new.kind:
        return {name: f"{name} was a {Kind(old.kind).value}, and is a {Kind(new.kind).value}"}
    found = {}
    for each in find_breaking_changes(old, new):
        place = name + each.obj.path.removeprefix(old.path).removeprefix(new.path).removesuffix(".__init__")
        if "._" not in place and place not in INTERNAL and name not in OPAQUE:
            found[place] = f"{place}: {each.kind.value}"
    return found


def unannounced(changelog: str, tag: str, found: dict[str, str]) -> list[str]:
    """Those whose name isn't in backquotes in the changelog before the heading of the last release."""
    since = changelog.split(f"\n## [{tag.removeprefix('v')}]")[0]
    return [how for name, how in found.items() if f"`{name}`" not in since]


def breaks(tag: str, version: str) -> bool:
    """Whether `version` may break what the release `tag` promised: SemVer, and before 1.0 the minor one."""
    before, after = ([int(part) for part in each.lstrip("v").split(".")] for each in (tag, version))
    return after[0] > before[0] or (after[0] == before[0] == 0 and after[1] > before[1])


if __name__ == "__main__":
    SNAPSHOT.write_text(Interface(ROOT).described(), encoding="utf-8")
