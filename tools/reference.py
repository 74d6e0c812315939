"""What pages say about the program, made from the program: `python -m tools.reference` writes it anew.

A part of a page that is made stands between two marks, `<!-- NAME: begin, made by make reference -->` and
`<!-- NAME: end -->`; the drawing of the floors stands in a docstring too. `tests/test_docs.py` holds that
what stands there is what would be made.
"""

import json
import re
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import typer

from ledger.domain.commands import COMMANDS, BusinessId, Delta, KeyPart, Text, UserCommand
from ledger.domain.events import EVENTS

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "ledger/store/schema/schema.txt"
BEGIN, END = "<!-- {}: begin, made by make reference -->", "<!-- {}: end -->"
COMMON = "Common"
WIDTH = 100

Row = Sequence[object]


def main() -> None:
    """Write every part anew."""
    for file, text in made().items():
        file.write_text(text, encoding="utf-8")


def made() -> dict[Path, str]:
    """Each file that holds made parts, as it would be written."""
    texts = {file: file.read_text(encoding="utf-8") for file, _, _ in PARTS}
    for file, name, make in PARTS:
        texts[file] = replaced(texts[file], name, make())
    texts[DOCS / "openapi.json"] = openapi()
    texts |= {DOCS / name: text for name, text in contract().items()}
    ledger = ROOT / "ledger/__init__.py"
    texts[ledger] = with_floors(ledger.read_text(encoding="utf-8"))
    return texts


def replaced(text: str, name: str, part: str) -> str:
    """The text with that part anew. Raises ValueError where the marks aren't there."""
    begin, end = BEGIN.format(name), END.format(name)
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the marks of {name} are missing")
    return f"{before}{begin}\n{part.strip()}\n{end}{after}"


def table(header: Sequence[str], rows: Sequence[Row]) -> str:
    """A table of Markdown."""
    lines = [header, ["-"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


# HTTP


def openapi() -> str:
    """The OpenAPI document, as `/openapi.json` has it."""
    from gateway.app import application
    from gateway.door import Door
    from stockledger import version

    made = application(Door(None, None, 1, None), version()).openapi()  # type: ignore[arg-type]
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


# The topics


def contract() -> dict[str, str]:
    """The AsyncAPI document and the schemas, as `stockledger asyncapi --into docs` writes them by default."""
    from stockledger import version
    from stockledger.contract.document import document, files
    from stockledger.settings import Settings

    topic, group = (Settings.model_fields[name].default for name in ("topic", "group"))
    return files(document(topic, topic, group, version()))


# The command line


def verbs() -> Iterator[tuple[str, Any]]:
    """Every verb that the help shows, `dlq list` as such, with what typer made of it."""
    from stockledger.cli import app

    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        if getattr(command, "commands", None):
            yield from ((f"{name} {sub}", each) for sub, each in command.commands.items() if not each.hidden)
        elif not command.hidden:
            yield name, command


def command_line() -> str:
    """All verbs with what they take."""
    found, parts = dict(verbs()), []
    panels: dict[str, list[str]] = defaultdict(list)
    for name, command in found.items():
        panels[_panel(name, command)].append(f"[`{name}`](#{_anchor(name)})")
    parts.append(
        table(("to", "verbs"), [(panel.lower(), ", ".join(names)) for panel, names in panels.items()])
    )
    common = {
        p.opts[-1]: p for command in found.values() for p in _options(command) if p.rich_help_panel == COMMON
    }
    parts.append(
        "## What every verb takes\nThose that need no broker and no database take the last two only."
    )
    parts.append(table(("option", "meaning"), [_option_row(p)[:2] for p in common.values()]))
    parts += [_verb(name, command) for name, command in found.items()]
    return "\n\n".join(parts)


def _panel(name: str, command: Any) -> str:
    from stockledger.cli import app

    top = typer.main.get_command(app).commands[name.split(" ")[0]]  # type: ignore[attr-defined]
    return str(top.rich_help_panel)


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


def _options(command: Any) -> list[Any]:
    return [p for p in command.params if p.opts[0].startswith("-") and not p.hidden]


def _verb(name: str, command: Any) -> str:
    arguments = [p for p in command.params if not p.opts[0].startswith("-")]
    options = [p for p in _options(command) if p.rich_help_panel != COMMON]
    usage = " ".join(["stockledger", name, *(["[OPTIONS]"] if options else []), *map(_shown, arguments)])
    parts = [f"## {name}", _prose(command.help), f"```\n{usage}\n```"]
    if arguments:
        rows = [(f"`{_shown(p)}`", p.help) for p in arguments]
        parts.append(table(("argument", "meaning"), rows))
    if options:
        parts.append(table(("option", "meaning", "default"), [_option_row(p) for p in options]))
    return "\n\n".join(parts)


def _prose(text: str) -> str:
    """The help's paragraphs, each a line; options as code."""
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    return "\n\n".join(re.sub(r"(?<![\w`-])(--[a-z-]+)", r"`\1`", part) for part in paragraphs)


def _shown(argument: Any) -> str:
    name = argument.metavar or argument.name.rstrip("_").upper()
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _option_row(option: Any) -> tuple[str, str, str]:
    kind = option.type_descriptor.annotation
    values = (
        "|".join(each.value for each in kind) if isinstance(kind, type) and issubclass(kind, Enum) else ""
    )
    kind_of_text = "FILE" if kind is Path else "TEXT"
    takes = "" if option.is_flag else f" {option.metavar or values or kind_of_text}"
    help_ = _prose(option.help or "")
    if option.min is not None or option.max is not None:
        help_ += f" {option.min:,} to {option.max:,}."
    default = option.default
    default = default.value if isinstance(default, Enum) else default
    shown = "" if default in (None, False, ()) else f"`{default}`"
    return f"`{', '.join(option.opts)}{takes}`", help_, shown


# Settings


def settings() -> str:
    """Every setting: its variable, its option, its default."""
    from stockledger.settings import KAFKA_PREFIX, PREFIX, Settings

    options = {p.name for _, command in verbs() for p in _options(command)}
    rows = []
    for name, field in Settings.model_fields.items():
        variable = f"{KAFKA_PREFIX}NAME" if name == "kafka" else PREFIX + name.upper()
        dashed = "--" + name.replace("_", "-")
        option = "-X name=value" if name == "kafka" else dashed if name in options else ""
        default = "" if name in ("dsn", "kafka") else (field.default or "")
        rows.append(
            (f"`{name}`", f"`{variable}`", f"`{option}`", default and f"`{default}`", field.description)
        )
    return table(("setting", "variable", "option", "default", "meaning"), rows)


def kafka() -> str:
    """The properties of librdkafka that the program sets, and those that nobody may set otherwise."""
    from consumer import clients
    from producer import client

    required = [(name, value, "consumer") for name, value in clients.REQUIRED.items()]
    required += [(name, value, "producer") for name, value in client.PROMISE.items()]
    defaults = [(name, value, "consumer") for name, value in clients.DEFAULTS.items()]
    defaults += [(name, value, "producer") for name, value in client.DEFAULTS.items()]
    fixed = [(f"`{n}`", f"`{v}`", of, "fixed: the promise rests on it") for n, v, of in sorted(required)]
    ours = [(f"`{n}`", f"`{v}`", of, "a default of ours") for n, v, of in sorted(defaults)]
    none = [(f"`{n}`", "", "producer", f"refused: {why}") for n, why in sorted(client.FORBIDDEN.items())]
    return table(("property", "value", "client", ""), [*fixed, *none, *ours])


# The format


def commands() -> str:
    """Every command's fields, with their types and limits, as the models have them."""
    rows = []
    for name, model in COMMANDS.items():
        schema, hints = model.model_json_schema(), get_type_hints(model, include_extras=True)
        key = "user_id" if issubclass(model, UserCommand) else "goods_id"
        for number, (field, about) in enumerate(schema["properties"].items()):
            needed = "required" if field in schema.get("required", ()) else "optional"
            shape = next((each for each in about.get("anyOf", ()) if each["type"] != "null"), about)
            kind = "the record key" if field == key else ""
            of = f"`stockledger.{name}.v1`" if number == 0 else ""
            rows.append((of, f"`{field}`", shape["type"], needed, _limits(shape, hints[field]), kind))
    return table(("`ce_type`", "field", "JSON type", "", "limits", ""), rows)


SPECIAL = {
    BusinessId: "a user's or goods' id, see below",
    KeyPart: "visible ASCII, 1 to 128 characters",
    Text: "no NUL",
    Delta: "not 0",
}


def _limits(shape: dict[str, Any], hint: object) -> str:
    inner = next(each for each in _parts(hint) if each is not type(None))
    said = []
    if "maxLength" in shape:
        said.append(f"{shape.get('minLength', 0)} to {shape['maxLength']} characters")
    if "maximum" in shape:
        said.append(f"{shape['minimum']:,} to {shape['maximum']:,}")
    said += [words for alias, words in SPECIAL.items() if alias == inner]
    return ", ".join(said)


def _parts(hint: object) -> tuple[object, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def events() -> str:
    """Every event's type and the members of its `data`."""
    rows = []
    for name, model in EVENTS.items():
        optional = set(model.__struct_fields__[-len(model.__struct_defaults__) :])
        if not model.__struct_defaults__:
            optional = set()
        fields = [f"`{field}`{'?' if field in optional else ''}" for field in model.__struct_fields__]
        rows.append((f"`{name}`", ", ".join(fields)))
    return table(("type", "members of `data` (`?`: not always there)"), rows)


EXITS = {
    "OK": "the verb did what it was asked to",
    "SOME_FAILED": "it went through all its items, and some failed",
    "USAGE": "the command line or a setting is wrong; nothing was done",
    "UNREACHABLE": "a service can't be reached or isn't ready; the same may succeed later",
    "DATA": "something is wrong with the data, or the ledger refuses to go on",
    "INTERRUPTED": "ended by Ctrl-C",
}


def exits() -> str:
    """Every exit code."""
    from stockledger.verb import exits

    codes = {name: code for name, code in vars(exits).items() if name.isupper() and type(code) is int}
    return table(("exit code", "meaning"), [(f"`{code}`", EXITS[name]) for name, code in codes.items()])


def views() -> dict[str, list[tuple[str, str]]]:
    """The columns of each view with their types, as the reviewed schema has them."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for line in SCHEMA.read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            kind, _, rest = line.partition(" ")
            name = rest if kind == "view" else ""
            if name:
                found[name] = []
        elif name and (column := re.fullmatch(r"   column (\w+): (.*?)(?: collate \w+)?", line)):
            found[name].append((column[1], column[2].replace("timestamp with time zone", "timestamptz")))
    return found


# Metrics


def metrics() -> str:
    """Every metric, by the verb that has it."""
    from ledger.telemetry import names

    parts = [f"All have `{names.BUILD.name}`, with the labels `version` and `python`."]
    for verb, families in names.VERBS.items():
        rows = [
            (
                f"`{family.name}`",
                _kind(family),
                ", ".join(f"`{label}`" for label in family.labels),
                family.help,
            )
            for family in families
        ]
        parts.append(f"## {verb}\n{table(('metric', 'kind', 'labels', 'meaning'), rows)}")
    return "\n\n".join(parts)


def _kind(family: Any) -> str:
    return "histogram" if family.buckets else "counter" if family.name.endswith("_total") else "gauge"


# Python


def names() -> str:
    """What `stockledger` exports, by its home; mkdocstrings shows each with its docstrings."""
    import stockledger

    homes: dict[str, list[str]] = defaultdict(list)
    for name in stockledger.__all__:
        homes[stockledger._HOME_OF[name]].append(name)
    return "\n\n".join(f"::: stockledger.{name}" for names in homes.values() for name in names)


# Floors

FLOORS = (
    ("4 command", "stockledger", "the command line, wiring, the demo"),
    ("3 edges", "gateway", "the only floor with Kafka; the two below are siblings"),
    ("2 services", "ledger.", "a batch, rebuilding, the past, the proof, questions"),
    ("1 storage", "ledger.projections", "read models, and the only SQL"),
    ("0 core", "ledger.domain", "pure: no clock, randomness, environment, I/O"),
)
"""Each floor by its first layer, from above."""


def layers() -> list[str]:
    """The layers of the import contracts, from above; siblings have ` | ` between them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    return next(each["layers"] for each in contracts["contracts"] if each["type"] == "layers")


def floors() -> str:
    """The drawing: every layer of the import contracts from above, and the modules that are aside."""
    known = {module for layer in layers() for module in layer.split(" | ")}
    lines, waiting = [], list(FLOORS)
    for layer in layers():
        label = ""
        if waiting and layer.startswith(waiting[0][1]):
            label, _, note = waiting.pop(0)
            lines.append(f"{label:12}-- {note}")
        lines += [f"{'':12}{line}" for line in _folded(layer)]
    tops = {path.name.removesuffix(".py") for path in (ROOT / "ledger").iterdir() if _is_module(path)}
    aside = sorted(
        f"ledger.{top}" for top in tops if not any(_within(each, f"ledger.{top}") for each in known)
    )
    lines.append(f"{'aside':12}-- small, without a floor: whoever needs them")
    return "\n".join([*lines, *(f"{'':12}{line}" for line in _folded(" | ".join(aside)))])


def _is_module(path: Path) -> bool:
    return (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").exists()


def _within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def _folded(layer: str) -> Iterator[str]:
    """`ledger.history.a | ledger.history.b` as `ledger.history.{a, b}`, in lines that aren't too long."""
    groups: dict[str, list[str]] = defaultdict(list)
    for module in layer.split(" | "):
        parent, _, name = module.rpartition(".")
        groups[parent].append(name)
    line = ""
    for parent, names in groups.items():
        within = f"{parent}." if parent else ""
        grouped = len(names) > 1 and (len(names) > 2 or "." in parent)
        words = [f"{within}{{{', '.join(names)}}}"] if grouped else [within + name for name in names]
        for word in words:
            if line and len(line) + len(word) + 15 > WIDTH:
                yield line + " |"
                line = ""
            line = f"{line} | {word}" if line else word
    yield line


def with_floors(module: str) -> str:
    """The text of `ledger/__init__.py` with the drawing in its docstring."""
    drawing = "\n".join(f"    {line}".rstrip() for line in floors().splitlines())
    head = "Floors, imports go down only:\n"
    before, found, rest = module.partition(head)
    if not found:
        raise ValueError("ledger/__init__.py has no place for the floors")
    _, _, after = rest.partition("\n\n")
    return f"{before}{head}{drawing}\n\n{after}"


def drawn() -> str:
    """The drawing as a block of a page."""
    return f"```\n{floors()}\n```"


DOCS = ROOT / "docs"
PARTS: list[tuple[Path, str, Callable[[], str]]] = [
    (DOCS / "CLI.md", "verbs", command_line),
    (DOCS / "SETTINGS.md", "settings", settings),
    (DOCS / "SETTINGS.md", "kafka", kafka),
    (DOCS / "FORMAT.md", "commands", commands),
    (DOCS / "FORMAT.md", "events", events),
    (DOCS / "FORMAT.md", "exits", exits),
    (DOCS / "METRICS.md", "metrics", metrics),
    (DOCS / "PYTHON.md", "names", names),
    (DOCS / "ARCHITECTURE.md", "floors", drawn),
]

if __name__ == "__main__":
    main()
