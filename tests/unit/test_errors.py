"""Errors as values: each has its next step, and none loses its facts on the way to another process."""

import ast
import inspect
import pickle
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from ledger import errors
from ledger.errors import LedgerError
from producer import publish  # noqa: F401 (both have kinds of their own)
from stockledger.verb import exits  # noqa: F401


def kinds(kind=LedgerError):
    """Every class of errors there is in the program."""
    return [kind] + [each for sub in kind.__subclasses__() for each in kinds(sub)]


def made(kind):
    """One of them, with whatever arguments it wants besides a message."""
    wanted = [
        name
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.default is parameter.empty and name != "message"
    ]
    return kind("it happened", **{name: 7 if name == "position" else f"the {name}" for name in wanted})


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_no_error_is_without_a_next_step(kind):
    """A kind has a remedy of its own, or can't be made without one: mypy holds every raise site to that."""
    assert made(kind).remedy


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_an_error_survives_the_way_to_another_process(kind):
    """A worker sends its last error to the supervisor: same kind, same text, same facts."""
    error = made(kind)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert again.args == error.args
    assert vars(again) == vars(error)


def test_the_codes_are_their_own():
    """Two kinds share a code only where one is a case of the other."""
    for kind in kinds(errors.LedgerError):
        for other in kinds(errors.LedgerError):
            if kind.code == other.code and kind.__dict__.get("code") and other.__dict__.get("code"):
                assert kind is other


ROOT = Path(__file__).parents[2]
BLANK = re.compile(r"(?<![$\w])(?!STOCKLEDGER_)[A-Z][A-Z_]*\b(?![a-z])|\.\.\.|<\w+>")
# Words that mean themselves: of SQL, acronyms, libpq's variables, options. All else in capitals is a blank.
MEANT = {"ALTER", "CONNECT", "CREATE", "CURRENT_USER", "DATABASE", "FROM", "GRANT", "ON", "RENAME", "RESET",
         "ROLE", "SCHEMA", "SELECT", "SET", "SYSTEM", "TO", "ALLOW_CONNECTIONS", "PGHOST", "PGOPTIONS",
         "PGPASSWORD", "PGSERVICE", "PGSSLMODE", "PGSSLROOTCERT", "ACL", "C", "DSN", "JSON", "TLS", "UTF",
         "U", "X"}  # fmt: skip
REMEDIES = {"remedy", "fix", "mend", "next"}
TABLES = {"Cause", "Complaint", "Obstacle", "Finding"}


def constants(trees):
    """The text that a module has under a name in capitals, of all of them."""
    return {
        target.id: node.value
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id.isupper()
    }


def remedies(tree):
    """Everything in the code that becomes a remedy: an argument, a default, a name, a table's last text."""
    for node in ast.walk(tree):
        match node:
            case ast.keyword(arg=name) if name in REMEDIES:
                yield node.value
            case ast.Assign(targets=[ast.Name(id=name)]) if name.lower() in {"remedy", "remedies"}:
                yield node.value
            case ast.AnnAssign(target=ast.Name(id="remedy"), value=ast.expr() as value):
                yield value
            case ast.Call(func=ast.Name(id=name), args=args) if name in TABLES:
                yield from args[1:]
            case ast.FunctionDef(name="_remedy" | "remedy"):
                yield from (each.value for each in ast.walk(node) if isinstance(each, ast.Return))


def texts(node, known, depth=2):
    """The texts in it, those of the constants that it names included; what is filled in is an `x`."""
    if isinstance(node, ast.JoinedStr):
        parts = [str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values]
        yield "".join(parts)
        inside: Iterable[ast.AST] = [
            part.value for part in node.values if isinstance(part, ast.FormattedValue)
        ]
    elif isinstance(node, ast.Name) and depth and node.id in known:
        inside, depth = [known[node.id]], depth - 1
    else:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        inside = ast.iter_child_nodes(node)
    for each in inside:
        yield from texts(each, known, depth)


def blanks(trees):
    """What somebody would have to fill in, with the text it stands in."""
    known = constants(trees)
    return [
        (word, text)
        for tree in trees
        for remedy in remedies(tree)
        for text in texts(remedy, known)
        for word in BLANK.findall(text)
        if word not in MEANT
    ]


def test_no_remedy_has_a_blank_to_fill_in():
    """It can be pasted, or done, as it is: it has no NAME, HOST:PORT, FILE or N, and nothing is left out."""
    trees = [
        ast.parse(path.read_text())
        for package in ("ledger", "consumer", "producer", "gateway", "stockledger")
        for path in sorted((ROOT / package).rglob("*.py"))
    ]
    assert sum(1 for tree in trees for _ in remedies(tree)) > 200
    assert blanks(trees) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("raise Stop('it', remedy=f'kafka-configs.sh --bootstrap-server HOST:PORT {x}')", ["HOST", "PORT"]),
        ("AWAY = 'publish FILE'\nraise Stop('it', remedy=AWAY)", ["FILE"]),
        ("remedy = 'dlq show ' + 'PARTITION@OFFSET'", ["PARTITION", "OFFSET"]),
        ("Complaint('it', 'docker run --user <uid> ...')", ["<uid>", "..."]),
        ("raise Stop('it', remedy=command('migrate --partitions N', topic))", ["N"]),
        ("raise Stop('it', remedy=f'set {PREFIX}GROUP to {command(NAME)}')", []),
        ("raise Stop('NAME', remedy='ALTER SYSTEM SET fsync = on;')", []),
    ],
)
def test_the_check_for_blanks(code, found):
    """The check above sees what it should."""
    assert [word for word, _ in blanks([ast.parse(code)])] == found
