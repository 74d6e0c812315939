"""Properties of the code itself: floors, sizes, links, the catalogue of errors, what may not be written."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ["ledger", "consumer", "producer", "gateway", "stockledger"]
STORY = [
    "ledger/__init__.py",
    "ledger/domain/goods.py",
    "ledger/batch.py",
    "consumer/processor.py",
    "ledger/store/tables/lane.py",
    "ledger/store/tables/journal.py",
]
STORY_LINES_MAX = 250
IMPURE = {
    "asyncio",
    "logging",
    "os",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "threading",
    "time",
    "uuid",
}
ERROR_CODE = re.compile(r"\bSL-(?:[A-Z]+-\d{3}|\d{3}|[A-Z]+)\b")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
PLACE = re.compile(r"\b(?:position|offset|entry|version|line|partition|to) $")
SQL = re.compile(r"\s*(?:SELECT|INSERT|UPDATE|DELETE|COPY|WITH)\b")


def modules(*folders: str) -> Iterator[Path]:
    """The Python files under these folders of the project."""
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# Floors


def test_import_contracts_hold():
    """Imports go down the floors only: Kafka stays at the edges, SQL in the storage, the core is pure."""
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", [*modules("ledger/domain"), ROOT / "ledger/errors.py"], ids=named)
def test_the_core_is_pure(path):
    """No clock, randomness, environment or I/O in the core: the same history gives the same outcomes."""
    imported = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.split(".")[0])
    assert not imported & IMPURE


@pytest.mark.parametrize("path", STORY)
def test_the_story_fits_on_its_pages(path):
    """The exactly-once argument is readable in six files, each under 250 lines."""
    lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    assert lines < STORY_LINES_MAX


# SQL


def built_sql(tree: ast.AST) -> list[int]:
    """The lines where a statement is put together from text."""

    def opens_sql(node: ast.AST) -> bool:
        if isinstance(node, ast.JoinedStr):
            node = node.values[0] if node.values else node
        return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(SQL.match(node.value))

    found = []
    text: ast.expr | None
    for node in ast.walk(tree):
        match node:
            case ast.JoinedStr():
                # without a placeholder it is a plain string
                text = node if any(isinstance(part, ast.FormattedValue) for part in node.values) else None
            case ast.BinOp(left=text, op=ast.Mod()):
                pass
            case ast.Call(func=ast.Attribute(value=text, attr="format" | "format_map")):
                pass
            case _:
                continue
        if text and opens_sql(text):
            found.append(node.lineno)
    return found


def test_no_sql_is_built_from_text():
    """Statements are constants and values are parameters: no record can smuggle SQL in."""
    assert [f"{named(path)}:{line}" for path in modules("ledger") for line in built_sql(parsed(path))] == []


@pytest.mark.parametrize(
    ("code", "bad"),
    [
        ("f'SELECT {x}'", True),
        ("f'''\n  INSERT INTO t VALUES ({x})'''", True),
        ("'COPY ' f'{x} FROM STDIN'", True),
        ("'UPDATE t SET a = %s' % x", True),
        ("'DELETE FROM {}'.format(x)", True),
        ("f'WITH a AS ({x})'", True),
        ("'SELECT %s'", False),
        ("SQL('SELECT {}').format(Identifier(x))", False),
        ("f'SELECTED {x}'", False),
        ("f'{x} SELECT'", False),
        ("'%s rows' % x", False),
    ],
)
def test_the_check_for_built_sql(code, bad):
    """The check above sees what it should, and lets psycopg's own composition pass."""
    assert bool(built_sql(ast.parse(code))) == bad


def misprinted(tree: ast.AST) -> list[int]:
    """The lines where an amount isn't written by `ledger.figures`, or a place is."""
    found = []
    for text in (node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)):
        for before, part in zip([None, *text.values], text.values, strict=False):
            match part:
                case ast.FormattedValue(format_spec=ast.JoinedStr(values=[ast.Constant(value=spec)])):
                    wrong = bool(set(",_") & set(str(spec)))
                case ast.FormattedValue(value=ast.Call(func=ast.Name(id="count"))):
                    wrong = isinstance(before, ast.Constant) and bool(PLACE.search(str(before.value)))
                case _:
                    continue
            if wrong:
                found.append(part.lineno)
    return found


def test_amounts_and_places_are_written_in_one_way():
    """1 204 lines, everywhere; and a position or an offset as it can be pasted."""
    ours = [path for path in modules(*PACKAGES, "examples") if named(path) != "ledger/figures.py"]
    assert [f"{named(path)}:{line}" for path in ours for line in misprinted(parsed(path))] == []


@pytest.mark.parametrize(
    ("code", "bad"),
    [
        ("f'{seen:,} rows'", True),
        ("f'{seen:>9_} rows'", True),
        ("f'at position {count(at)}'", True),
        ("f'from offset {count(at)} on'", True),
        ("f'{count(seen)} rows at position {at}'", False),
        ("f'{took:.1f} s'", False),
    ],
)
def test_the_check_for_amounts_and_places(code, bad):
    """The check above sees what it should."""
    assert bool(misprinted(ast.parse(code))) == bad


SQL_TEXT = re.compile(
    r"\s*(?:SELECT\s|INSERT\s+INTO\s|UPDATE\s+\w+|DELETE\s+FROM\s|COPY\s|WITH\s+\w+\s+(?:AS|\()|BEGIN\b|COMMIT\b"
    r"|ROLLBACK\b|SAVEPOINT\s|SET\s+(?:LOCAL|TRANSACTION|SESSION)\s|PREPARE\s|LOCK\s+TABLE|VACUUM|ANALYZE\s"
    r"|(?:CREATE|ALTER|DROP)\s+(?:TABLE|VIEW|INDEX|FUNCTION|SCHEMA|DATABASE|ROLE)\s)"
)
"""How a statement begins."""
SQL_ROOMS = ("ledger/store/", "ledger/projections/")
SQL_ELSEWHERE = {
    "stockledger/embedded/postgres.py": "makes the embedded server's database, before there is a ledger",
}


def sql_in(tree: ast.Module) -> list[int]:
    """The lines where a statement is written down, or one is executed."""
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in texts and SQL_TEXT.match(text):
                found.append(node.lineno)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="conn" | "cursor"), attr="execute" | "copy")):
                found.append(node.lineno)
    return found


def test_sql_stays_in_the_store():
    """No statement is written or executed outside `ledger/store` and `ledger/projections`."""
    ours = [
        path
        for path in modules(*PACKAGES)
        if not named(path).startswith(SQL_ROOMS) and named(path) not in SQL_ELSEWHERE
    ]
    assert [f"{named(path)}:{line}" for path in ours for line in sql_in(parsed(path))] == []


@pytest.mark.parametrize(
    ("code", "bad"),
    [
        ("x = 'SELECT 1'", True),
        ("X = '''\nWITH a AS (SELECT 1) SELECT'''", True),
        ("conn.execute(READ)", True),
        ("x = 'UPDATE ledger.lane SET'", True),
        ("'''SELECT the rows that matter.'''", False),
        ("x = 'select a file'", False),
        ("store.execute(conn)", False),
    ],
)
def test_the_check_for_sql_elsewhere(code, bad):
    """The check above sees what it should."""
    assert bool(sql_in(ast.parse(code))) == bad


STATEMENT = re.compile(r"\bStatement\[")


def test_a_store_function_executes_or_makes_a_statement():
    """A function of a table takes the connection first and executes; one whose name ends in `_statement`
    returns a statement for the caller to send, and has no connection to execute it on."""
    wrong = []
    for path in modules("ledger/store/tables", "ledger/store/reads", "ledger/store/rules"):
        for node in parsed(path).body:
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                continue
            makes = bool(node.returns and STATEMENT.search(ast.unparse(node.returns)))
            takes_conn = [argument.arg for argument in node.args.args[:1]] == ["conn"]
            if makes != node.name.endswith("_statement") or (makes and takes_conn):
                wrong.append(f"{named(path)}: {node.name}")
    assert wrong == []


# Names


def aliases(tree: ast.Module) -> Iterator[str]:
    """What is imported under another name; `X as X` is how a name is published."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (each.name for each in node.names if each.asname not in (None, each.name))


def test_nothing_is_imported_under_another_name():
    """A name is the same everywhere: whoever searches for it finds every use."""
    found = [f"{named(path)}: {name}" for path in modules(*PACKAGES) for name in aliases(parsed(path))]
    assert found == []


def public_types(tree: ast.Module) -> Iterator[str]:
    """The public classes of a module, and its aliases of types."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name[0].isupper() and not name.isupper():
                yield name


def test_no_two_public_types_share_a_name():
    """A type's name is one thing in all packages."""
    homes: dict[str, list[str]] = {}
    for path in modules(*PACKAGES):
        for name in public_types(parsed(path)):
            if not name.startswith("_") and name != "T":
                homes.setdefault(name, []).append(named(path))
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


# Documents


def documents() -> list[Path]:
    hidden_or_built = re.compile(r"(^|/)(\.|build/|dist/|node_modules/|venv/)")
    return [path for path in sorted(ROOT.rglob("*.md")) if not hidden_or_built.search(named(path))]


def prose(path: Path) -> str:
    """The document without its code."""
    text = re.sub(r"^(```|~~~).*?^\1", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "``", text)


def anchors(path: Path) -> set[str]:
    """The names of the headings, as GitHub makes them."""
    text = re.sub(r"^(```|~~~).*?^\1", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in HEADING.findall(text)]
    names = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
    repeated = {f"{name}-{names[:at].count(name)}" for at, name in enumerate(names) if name in names[:at]}
    return repeated | set(names)


def broken_links(path: Path) -> Iterator[str]:
    text = prose(path)
    targets = re.findall(r"\]\(\s*<?([^)\s>]+)>?(?:\s+[\"'(][^)]*)?\)", text)
    targets += re.findall(r"^\s*\[[^\]]+\]:\s*<?(\S+?)>?(?:\s|$)", text, re.MULTILINE)
    for target in targets:
        if re.match(r"[a-z][a-z0-9+.-]*:", target, re.IGNORECASE):
            continue  # another site's business
        file, _, anchor = target.partition("#")
        aim = (path.parent / file).resolve() if file else path
        if not aim.exists() or (anchor and aim.suffix == ".md" and anchor not in anchors(aim)):
            yield f"{named(path)}: {target}"


def test_every_relative_link_resolves():
    """A link in a document leads to a file that exists, and to a heading that it has."""
    assert documents()
    assert [broken for path in documents() for broken in broken_links(path)] == []


def test_the_check_for_links(tmp_path, monkeypatch):
    """The check above sees broken files and headings, and leaves code and other sites alone."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.md").write_text("# One, `two`\n## Same\n## Same\n```\n# code\n```\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Top\n[a](docs/a.md) [b](docs/a.md#one-two) [c](docs/a.md#same-1) [d](#top) [e](https://x.org/none.md)\n"
        "![f](docs/) [g](docs/a.md 'title') [h]: docs\n`[i](none.md)`\n```\n[j](none.md)\n```\n"
        "[k](none.md) [l](docs/a.md#code) [m](docs/a.md#same-2) [n](#nowhere)\n[o]: none.md\n"
    )
    broken = ["none.md", "docs/a.md#code", "docs/a.md#same-2", "#nowhere", "none.md"]
    assert list(broken_links(page)) == [f"page.md: {target}" for target in broken]


def names_of_tests(path: Path) -> set[str]:
    """The names of the tests in a file, `Class::test` for those in a class."""
    found = set()
    for node in parsed(path).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("page", ["docs/GUARANTEES.md", "SECURITY.md"])
def test_every_guarantee_has_its_test(page):
    """Each test that GUARANTEES or SECURITY names as a proof exists."""
    text = (ROOT / page).read_text(encoding="utf-8")
    cited = re.findall(r"`(tests/[\w/]+\.py)::((?:\w+::)?test_\w+)(?:\[[^`]*\])?`", text)
    assert cited
    assert len(cited) == text.count("::test_"), "a citation is written in another way, so it isn't checked"
    gone = [
        f"{file}::{name}"
        for file, name in cited
        if not (ROOT / file).is_file() or name not in names_of_tests(ROOT / file)
    ]
    assert gone == []


def error_codes() -> dict[str, str]:
    """Every error code that occurs in the code's texts, and a file where it does."""
    found: dict[str, str] = {}
    for path in modules(*PACKAGES):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= {code: named(path) for code in ERROR_CODE.findall(node.value)}
    return found


def test_the_catalogue_of_errors_is_complete():
    """Each error code in the code has a section in docs/ERRORS.md, and each section's code is in the code."""
    text = (ROOT / "docs/ERRORS.md").read_text(encoding="utf-8")
    catalogued = {code for title in HEADING.findall(text) for code in ERROR_CODE.findall(title)}
    codes = error_codes()
    assert {code: file for code, file in codes.items() if code not in catalogued} == {}
    assert catalogued - codes.keys() == set()


# Tests


def test_every_test_says_what_it_proves():
    """A test's docstring is the guarantee that it proves."""
    silent = [
        f"{named(path)}::{node.name}"
        for path in modules("tests")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert silent == []


@pytest.mark.parametrize(
    "shown", ["README.md", *sorted(path.name for path in (ROOT / "examples").glob("*.py"))]
)
def test_programs_import_from_one_place(shown):
    """What we show to others begins with public names of `stockledger`, and they exist."""
    path = ROOT / shown if shown.endswith(".md") else ROOT / "examples" / shown
    ours = "|".join(PACKAGES)
    lines = re.findall(rf"^(?:from|import) (?:{ours})\b.*$", path.read_text(), re.MULTILINE)
    assert lines
    for line in lines:
        assert line.startswith("from stockledger")
        exec(line, {})
