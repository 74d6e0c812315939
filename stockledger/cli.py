"""The command line: which verbs there are, and how a command line that makes no sense ends.

What all verbs have in common is in `stockledger.verb.call`, each verb in `stockledger.verbs`.
"""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from ledger import signals
from ledger.errors import AGAIN
from stockledger.verb.call import fail
from stockledger.verb.exits import DATA, OK, USAGE, OutputFailed, UsageError
from stockledger.verb.output import Output
from stockledger.verb.streams import drop
from stockledger.verbs import (
    asyncapi,
    cache,
    config,
    demo,
    dlq,
    doctor,
    gap,
    hot,
    migrate,
    outcome,
    project,
    publish,
    rebuild,
    relay,
    replay,
    run,
    serve,
    status,
    stock,
    token,
    verify,
    why,
)

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
    (START, demo.demo),
    (START, migrate.migrate),
    (START, doctor.doctor),
    (START, config.config),
    (START, asyncapi.asyncapi),
    (MOVE, publish.publish),
    (MOVE, run.run),
    (MOVE, project.project),
    (MOVE, serve.serve),
    (MOVE, relay.relay),
    (ASK, status.status),
    (ASK, outcome.outcome),
    (ASK, stock.stock),
    (ASK, why.why),
    (ASK, hot.hot),
    (ASK, replay.replay),
    (ASK, verify.verify),
    (REPAIR, rebuild.rebuild),
):
    app.command(rich_help_panel=panel)(command)
app.add_typer(cache.app, name="cache", rich_help_panel=MOVE)
app.add_typer(token.app, name="token", rich_help_panel=START)
app.add_typer(dlq.app, name="dlq", rich_help_panel=REPAIR)
app.add_typer(gap.app, name="gap", rich_help_panel=REPAIR)


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
    code = execute(sys.argv[1:])
    signals.leave(code)
    sys.exit(code)


def execute(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code."""
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: it was closed
        stream.reconfigure(errors="backslashreplace")
    out = Output(json="--json" in arguments)
    try:
        return int(app(arguments, prog_name=NAME, standalone_mode=False) or OK)
    except SystemExit:  # so rich and typer end where nobody reads the help any more; a verb returns its code
        return OK
    except OSError as error:
        drop(sys.stdout)
        out.error(OutputFailed(f"the help can't be written: {error.strerror}", remedy=AGAIN))
        return DATA
    except typer.TyperException as error:
        message = error.format_message()
        if not message:  # the help was shown, because there was nothing else on the line
            return USAGE
        context = getattr(error, "ctx", None)
        remedy = f"{context.command_path if context else NAME} --help"
        return fail(out, UsageError(message, remedy=remedy))
