"""The command line as such: help, usage errors, exit codes, one object under --json, and no traceback."""

import json
import subprocess
import sys
from typing import Any, NamedTuple

import pytest
import typer.main

from ledger import errors
from ledger.figures import count
from stockledger import cli
from stockledger.verb.call import Answer, conclude
from stockledger.verb.exits import Interrupted, NotFound, SomeFailed, UsageError, exit_code
from stockledger.verb.output import Output, as_typed, plain

CANARY = "canary-91bc"
VERBS = [
    ["demo"], ["migrate"], ["doctor"], ["config"], ["publish"], ["run"], ["status"], ["outcome"], ["stock"],
    ["verify"], ["dlq", "list"], ["dlq", "show"], ["dlq", "redrive"], ["dlq", "discard"], ["gap", "list"],
    ["gap", "accept"], ["why"], ["hot"], ["replay"], ["project"], ["rebuild"],
    ["cache", "feed"], ["cache", "check"], ["cache", "prune"],
    ["serve"], ["relay"], ["token", "add"], ["token", "list"], ["token", "revoke"],
    ["asyncapi"],
]  # fmt: skip
OFFLINE = [["asyncapi"], ["demo"], ["token", "add"], ["token", "list"], ["token", "revoke"]]


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def object(self):
        """The one JSON object on stdout."""
        assert self.out.count("\n") == 1
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    """No setting of whoever runs the tests takes part, and nothing is coloured."""
    import os

    for name in list(os.environ):
        if name.upper().startswith(("STOCKLEDGER_", "PG")) or name in (
            "NO_COLOR",
            "FORCE_COLOR",
            "TTY_COMPATIBLE",
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def stockledger(capsys):
    """`stockledger("run", "-h")` -> Result, in this process."""

    def run(*arguments):
        code = cli.execute([str(argument) for argument in arguments])
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def concluded(capsys):
    """`concluded(action)`: how a verb that does this ends."""

    def run(action, *, json=False, debug=False):
        code = conclude(Output(json=json), debug, action)
        return Result(code, *capsys.readouterr())

    return run


def raising(error):
    def action():
        raise error

    return action


def command(path):
    found: Any = typer.main.get_command(cli.app)
    for name in path:
        found = found.commands[name]
    return found


def every_verb(group, path=()):
    for name, found in group.commands.items():
        if hasattr(found, "commands"):
            yield from every_verb(found, (*path, name))
        else:
            yield [*path, name]


# Help


def test_the_verbs_are_those_of_the_design():
    """No verb is missing, and none of a later release is there yet."""
    assert sorted(every_verb(typer.main.get_command(cli.app))) == sorted(VERBS)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_verb_has_help(stockledger, verb, option):
    """Help goes to stdout, exit 0, and begins with what the verb does."""
    result = stockledger(*verb, option)
    assert result.code == 0
    assert "Usage: stockledger " + " ".join(verb) in result.out
    assert not result.err


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_takes_the_common_options(verb):
    """--json and --debug everywhere, --dsn and -X wherever something is connected to."""
    options = {name for param in command(verb).params for name in param.opts}
    wanted = {"--json", "--debug"} | (set() if verb in OFFLINE else {"--dsn", "-X"})
    assert wanted <= options


@pytest.mark.parametrize("group", [[], ["dlq"], ["gap"]], ids=" ".join)
def test_no_arguments_show_the_help(stockledger, group):
    """Whoever types the bare name is told what there is; the exit code says that nothing was done."""
    result = stockledger(*group)
    assert (result.code, result.err) == (2, "")
    assert "Usage: stockledger" in result.out


def test_version(stockledger):
    """`--version` is one line."""
    result = stockledger("--version")
    assert result.code == 0
    assert result.out.startswith("stockledger ")


def test_help_needs_nothing_heavy():
    """The command line is there before the drivers are: they are imported by the verb that needs them."""
    heavy = ["pydantic", "psycopg", "confluent_kafka", "pydantic_settings", "structlog", "rich.progress"]
    script = f"import sys, stockledger.cli; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Usage errors


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["rnu"], "Did you mean 'run'?"),
        (["statsu"], "Did you mean 'status'?"),
        (["dlq", "lst"], "Did you mean 'list'?"),
        (["run", "--worker", "2"], "--workers"),
        (["run", "--workers", "many"], "--workers"),
        (["run", "--workers", "0"], "--workers"),
        (["run", "--start", "middle"], "--start"),
        (["outcome"], "it takes an ID"),
        (["stock", "a", "b"], "unexpected extra argument"),
        (["migrate", "--topic", "x"], "--partitions"),
        (["dlq", "redrive"], "--all"),
        (["dlq", "show", "nonsense"], "PARTITION@OFFSET"),
        (["dlq", "show", "0@9999999999999999999"], "PARTITION@OFFSET"),
        (["gap", "accept", "x"], "PARTITION"),
        (["status", "--watch", "--json"], "--watch"),
        (["config", "-X", "acks"], "name=value"),
        (["asyncapi", "--topic", "a", "--topic", "b", "--into", "/dev/null"], "one of them"),
        (["token", "list"], "no tokens file"),
        (["token", "add", "a", "--source", "b", "--rights", "fly", "--tokens", "c"], "no right fly"),
        (["serve", "--source", "a", "--host", "0.0.0.0"], "this machine alone"),
        (["serve", "--source", "a", "--tls-cert", "c.pem"], "--tls-key"),
        (["serve"], "in whose name"),
    ],
)
def test_a_wrong_command_line_is_exit_2(stockledger, arguments, part):
    """It says what is wrong and where the help is, on stderr; under --json the same as an object."""
    result = stockledger(*arguments)
    assert result.code == 2
    assert part in result.err
    assert "Traceback" not in result.err
    assert not result.out or "--json" in arguments
    error = stockledger(*arguments, "--json").object["error"]
    assert error.keys() == {"code", "message", "remedy", "retryable"}
    assert part in error["message"] + error["remedy"]


# Errors and exit codes


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SomeFailed("x", remedy="y"), 1),
        (UsageError("x", remedy="y"), 2),
        (errors.BadSettings("x", remedy="y"), 2),
        (errors.Unavailable("x", remedy="y"), 3),
        (errors.BrokerUnavailable("x", remedy="y"), 3),
        (errors.Contended("x", remedy="y"), 3),
        (errors.SchemaMismatch("x", remedy="y"), 4),
        (errors.RecordsLost("x", remedy="y"), 4),
        (errors.Defect("x", remedy="y"), 4),
        (errors.Stop("x", remedy="y"), 4),
        (NotFound("x", remedy="y"), 4),
        (Interrupted("x", remedy="y"), 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_exit_codes(error, code):
    """1 some item failed, 2 usage, 3 dependency unreachable, 4 data problem, 130 interrupted."""
    assert exit_code(error) == code


def test_an_error_is_two_lines(concluded):
    """What happened with its code, and the one next step; stdout stays empty."""
    result = concluded(raising(errors.SchemaMismatch("the schema is old", remedy="stockledger migrate")))
    assert result == (4, "", "error SL-DB-003: the schema is old\n  next: stockledger migrate\n")


def test_an_error_as_an_object(concluded):
    """Under --json scripts get the same, and whether trying again may help."""
    result = concluded(raising(errors.Unavailable("no database", remedy="start it")), json=True)
    error = {"code": "SL-DB-001", "message": "no database", "remedy": "start it", "retryable": True}
    assert result.object == {"ok": False, "error": error}


def test_a_result_with_an_error_shows_both(concluded):
    """What was found isn't lost because something else failed."""
    found = Answer({"figures": [1]}, error=SomeFailed("one failed", remedy="correct it"))
    result = concluded(lambda: found, json=True)
    assert result.code == 1
    assert result.object["figures"] == [1]
    assert result.object["ok"] is False
    assert result.object["error"]["message"] == "one failed"


def test_the_next_command(concluded):
    """People are told what usually follows, beside the result and not in it."""
    result = concluded(lambda: Answer({}, next="stockledger run"))
    assert result == (0, "", "next: stockledger run\n")
    assert (
        concluded(lambda: Answer({}, next="stockledger run"), json=True).object["next"] == "stockledger run"
    )


def test_a_bug_is_one_line(concluded):
    """An exception that nobody foresaw: its code, its name, and how to report it; no traceback."""
    result = concluded(raising(RuntimeError("first\nsecond")))
    assert result.code == 4
    assert result.err.startswith("error SL-BUG: RuntimeError: first\n  next: ")
    assert "second" not in result.err


def test_debug_shows_the_traceback(concluded):
    """--debug adds it, before the line."""
    result = concluded(raising(RuntimeError("boom")), debug=True)
    assert result.err.startswith("Traceback")
    assert "error SL-BUG: RuntimeError: boom" in result.err


def test_interrupted(concluded):
    """Ctrl-C is 130, as shells have it, and an object under --json all the same."""
    result = concluded(raising(KeyboardInterrupt()), json=True)
    assert result.code == 130
    assert result.object["error"]["message"] == "interrupted"


# Secrets


@pytest.mark.parametrize("extra", [[], ["--json"], ["--debug"]], ids=str)
@pytest.mark.parametrize("dsn", [f"postgresql://app:{CANARY}@db/x", f"password='{CANARY}"])
def test_config_masks_secrets(stockledger, monkeypatch, extra, dsn):
    """No password of any kind in what `config` prints, whether it ends well or not."""
    monkeypatch.setenv("STOCKLEDGER_DSN", dsn)
    monkeypatch.setenv("PGPASSWORD", CANARY)
    monkeypatch.setenv("STOCKLEDGER_KAFKA_SASL_PASSWORD", CANARY)
    result = stockledger("config", "-X", f"ssl.key.password={CANARY}", "-X", f"sasl.pasword={CANARY}", *extra)
    assert result.code == 2, "sasl.pasword is refused"
    assert "****" in result.out
    assert "sasl.password" in result.out
    assert CANARY not in result.out + result.err


def test_config_shows_values_and_origins(stockledger, monkeypatch):
    """Each setting with where it comes from; no broker and no database are needed."""
    monkeypatch.setenv("STOCKLEDGER_TOPIC", "orders")
    monkeypatch.setenv("STOCKLEDGER_TOPICS", "oders")
    result = stockledger("config", "--json", "-X", "bootstrap.servers=b:1")
    assert result.code == 0
    rows = {row["name"]: (row["value"], row["origin"]) for row in result.object["settings"]}
    assert rows["topic"] == ("orders", "STOCKLEDGER_TOPIC")
    assert rows["group"] == ("stockledger", "default")
    assert rows["bootstrap.servers"] == ("b:1", "-X")
    assert "STOCKLEDGER_TOPICS is no setting" in result.object["warnings"][0]


# Output


def test_strangers_text_is_harmless():
    """No control character that others published reaches the terminal, and none breaks a line."""
    assert plain("a\x1b[31mred\n\u202eb") == "a\\x1b[31mred\\n\\u202eb"
    assert plain(b"\xff\x00") == "\\xff\\x00"
    assert plain("[red]not markup[/red]") == "[red]not markup[/red]"
    assert plain("85123Ä") == "85123Ä"


def test_unknown_is_a_dash_and_nothing_is_zero():
    """`-` where it isn't known, `0` where it is none."""
    assert (plain(None), plain(0)) == ("-", "0")
    assert count(1204331) == "1 204 331"


def test_tables_align_and_never_wrap(capsys):
    """Numbers to the right, words to the left, wide characters counted as wide; a row is a line."""
    Output().table(("GOODS", "ON HAND"), [("cup", 7), ("茶碗", 1234), ("x" * 300, None)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[1].endswith("      7")
    assert lines[3].endswith("      -")
    assert lines[2].startswith("茶碗" + " " * 296)


def test_colours_only_where_they_are_wanted(monkeypatch, capsys):
    """None in a pipe; with FORCE_COLOR some; NO_COLOR wins."""
    Output().say("ok")
    assert "\x1b" not in capsys.readouterr().out
    monkeypatch.setenv("FORCE_COLOR", "1")
    Output().say("ok")
    assert "\x1b[32m" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    Output().say("ok")
    assert "\x1b[32m" not in capsys.readouterr().out


# Publish and migrate, as far as they need no services


def test_publish_judges_without_a_broker(stockledger, tmp_path):
    """`--dry-run` works offline: bad lines are named with line and column, exit 4."""
    file = tmp_path / "orders.jsonl"
    file.write_text(
        '{"type":"ListGoods","id":"1","goods_id":"cup"}\n{"type":"ListGoods","id":"2","goods_id":""}\n'
    )
    result = stockledger("publish", file, "--source", "shop", "--dry-run")
    assert result.code == 4
    assert "orders.jsonl:2:" in result.err
    assert "error SL-IN-001" in result.err
    answer = stockledger("publish", file, "--source", "shop", "--dry-run", "--json").object
    assert [(bad["line"], bad["field"]) for bad in answer["bad_lines"]] == [(2, "goods_id")]
    assert answer["error"]["code"] == "SL-IN-001"


@pytest.mark.parametrize("option", ["--bad", "--rejected"])
def test_bad_lines_have_one_place_and_its_old_name_is_hidden(stockledger, option):
    """`--bad` names the place of bad lines; what it was called is still taken, but not shown."""
    refused = stockledger("publish", "-", "--skip-bad", option, "/dev/null/bad")
    assert "No such option" not in refused.err
    shown = stockledger("publish", "--help").out
    assert "--bad " in shown
    assert "--rejected" not in shown


def test_publish_needs_a_broker(stockledger, tmp_path):
    """Without one named it is a matter of settings, exit 2, and nothing was done."""
    file = tmp_path / "orders.jsonl"
    file.write_text("")
    result = stockledger("publish", file)
    assert result.code == 2
    assert "STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS" in result.err


def test_migrations_as_a_script(stockledger):
    """`migrate --print` is SQL for a person to run: one transaction that also records what it did."""
    script = stockledger("migrate", "--print").out
    assert script.startswith("BEGIN;\n")
    assert script.endswith("COMMIT;\n")
    assert script.count("INSERT INTO ledger.migration ") == len(
        stockledger("migrate", "--print", "--json").object["migrations"]
    )


def test_the_next_step_works_where_it_is_printed(monkeypatch, tmp_path):
    """Called by its place, because its folder isn't on the PATH, the program names itself by that place; its
    bare name stands where that is enough, and other commands stay as they are."""
    program = tmp_path / "my env/stockledger"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(program), "demo"])
    monkeypatch.setenv("PATH", "/nowhere")
    assert as_typed("stockledger doctor") == f"'{program}' doctor"
    assert as_typed("df -h /tmp") == "df -h /tmp"
    assert as_typed("stockledgers") == "stockledgers"
    monkeypatch.setenv("PATH", str(program.parent))
    assert as_typed("stockledger doctor") == "stockledger doctor"


def test_a_gateway_without_its_packages_names_the_extra():
    """Installed without the extra, `serve` says how to install it, and nothing is connected to."""
    words = ["serve", "--source", "web", "-X", "bootstrap.servers=nowhere:1"]
    script = f"import sys; sys.modules['uvicorn'] = None; from stockledger import cli; cli.execute({words!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "serve needs the package uvicorn" in done.stderr
    assert "stockledger[gateway]" in done.stderr


def options():
    """Every option of every verb that takes a number."""

    def verbs(command, path=()):
        for name, each in getattr(command, "commands", {}).items():
            yield from verbs(each, (*path, name))
        if not hasattr(command, "commands"):
            yield path, command

    for path, command in verbs(typer.main.get_command(cli.app)):
        for parameter in command.params:
            if parameter.type_descriptor.annotation in (int, float):
                yield [*path], parameter


NUMBERS = [*options()]
NEEDED = {"publish": ["x.jsonl"], "rebuild": ["stock"], "why": ["tea"]}


@pytest.mark.parametrize(("path", "parameter"), NUMBERS, ids=lambda value: getattr(value, "name", str(value)))
def test_a_number_out_of_bounds_is_a_usage_error(stockledger, path, parameter):
    """Whatever could take it further down: named here, exit 2, before anything is connected to."""
    name = parameter.opts[-1]
    for value in ("99999999999999999999", "-99999999999999999999", "1e400", "nan", "0x10", ""):
        words = [name, value] if name.startswith("-") else ["--", value]
        result = stockledger(*path, *NEEDED.get(" ".join(path), []), *words)
        assert result.code == 2, (value, result)
        assert "SL-CLI-001" in result.err
