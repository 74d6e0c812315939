"""The command line: which verbs there are, and how a command line that makes no sense ends.

What all verbs have in common is in `stockledger.call`, each verb in `stockledger.commands`.
"""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from stockledger.call import fail
from stockledger.commands import ask, deadletters, gaps, move, past, projecting, setup
from stockledger.exits import OK, USAGE, UsageError
from stockledger.output import Output

NAME = "stockledger"
HELP = "An event-sourced ledger for purchases and stock, on Kafka and Postgres. Each command counts once."
EPILOG = (
    "Exit codes: 0 ok, 1 some item failed, 2 usage, 3 dependency unreachable, "
    "4 data problem, 130 interrupted."
)
SETTINGS = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name=NAME,
    help=HELP,
    epilog=EPILOG,
    context_settings=SETTINGS,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)
START, MOVE, ASK, REPAIR = "Set up", "Move commands", "Ask", "Repair"
for panel, command in (
    (START, setup.demo),
    (START, setup.migrate),
    (START, setup.doctor),
    (START, setup.config),
    (MOVE, move.publish),
    (MOVE, move.run),
    (MOVE, projecting.project),
    (ASK, ask.status),
    (ASK, ask.outcome),
    (ASK, ask.stock),
    (ASK, past.why),
    (ASK, past.replay),
    (ASK, ask.verify),
    (REPAIR, projecting.rebuild),
):
    app.command(rich_help_panel=panel)(command)
app.add_typer(deadletters.app, name="dlq", rich_help_panel=REPAIR)
app.add_typer(gaps.app, name="gap", rich_help_panel=REPAIR)


def _version(wanted: bool) -> None:
    if wanted:
        from stockledger import version

        typer.echo(f"{NAME} {version()}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        return int(app(arguments, prog_name=NAME, standalone_mode=False) or OK)
    except typer.TyperException as error:
        message = error.format_message()
        if not message:  # the help was shown, because there was nothing else on the line
            return USAGE
        context = getattr(error, "ctx", None)
        remedy = f"{context.command_path if context else NAME} --help"
        return fail(Output(json="--json" in arguments), UsageError(message, remedy=remedy))
