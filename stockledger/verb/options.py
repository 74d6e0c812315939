"""Options that several verbs take, and what their values mean."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ledger.errors import BadSettings
from stockledger.verb.exits import NotYet
from stockledger.verb.moment import POSITION, given_position

if TYPE_CHECKING:
    from ledger.api import Ledger

RATE_MAX = 1e9
DAY_S = 86_400.0
WAIT_TIMEOUT_S = 10.0
MinPosition = Annotated[
    str | None, typer.Option(metavar=POSITION, help="Wait until the journal has come so far.")
]
TokensFile = Annotated[
    Path | None,
    typer.Option("--tokens", metavar="FILE", help="The tokens file; else STOCKLEDGER_TOKENS."),
]


HttpOption = Annotated[
    str | None,
    typer.Option(
        "--http",
        metavar="[HOST:]PORT",
        help="Serve /metrics, /livez and /readyz there; else STOCKLEDGER_HTTP.",
    ),
]


def percent(text: str) -> float:
    """`0.5`, `10` or `10%`. Raises what typer shows as a usage error."""
    return _above_zero(str(text).removesuffix("%"), 100, f"{text} is no percentage above 0 and up to 100")


def seconds(text: str) -> float:
    """`0.01` or `10`. Raises what typer shows as a usage error."""
    return _above_zero(str(text), DAY_S, f"{text} is no time above 0 and up to a day, in seconds")


def wait_for(book: "Ledger", min_position: str | None) -> None:
    """Read your own write: not before the journal has come so far."""
    if min_position is None:
        return
    try:
        book.wait_for_position(given_position(min_position), WAIT_TIMEOUT_S)
    except TimeoutError as error:
        raise NotYet(f"{error}", remedy="stockledger status") from error


@contextmanager
def gateway_needed(verb: str) -> Iterator[None]:
    """Raises BadSettings where what is imported within isn't installed."""
    try:
        yield
    except ImportError as missing:
        raise BadSettings(
            f"{verb} needs the package {missing.name}", remedy="pip install 'stockledger[gateway]'"
        ) from None


class LogFormat(StrEnum):
    """How logs look on stderr; `auto` is `console` on a terminal, else `json`."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


def per_second(text: str) -> float:
    """A rate. Raises what typer shows as a usage error."""
    return _above_zero(text, RATE_MAX, f"{text} is no rate above 0")


def _above_zero(text: str, most: float, otherwise: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found <= most:
        raise typer.BadParameter(otherwise)
    return found
