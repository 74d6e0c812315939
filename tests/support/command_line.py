"""A command line and its environment as a file shows them, beside what the program takes."""

from collections.abc import Sequence
from typing import Any

import typer

from stockledger.cli import app
from stockledger.settings import KAFKA_PREFIX, PREFIX, Settings

LIBPQ = {"PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGSSLMODE"}


def understood(words: Sequence[str]) -> dict[str, Any]:
    """The verb's options and arguments, as its own parser has them; nothing is done.

    Raises the parser's own UsageError where the program would end with exit 2.
    """
    command: Any = typer.main.get_command(app)
    context: Any = command.make_context("stockledger", [*words])
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
    return dict(context.params)


def is_setting(name: str) -> bool:
    """Whether the program takes a variable of this name."""
    if name.startswith(KAFKA_PREFIX) or name in LIBPQ:
        return True
    return name.startswith(PREFIX) and name.removeprefix(PREFIX).lower() in Settings.model_fields
