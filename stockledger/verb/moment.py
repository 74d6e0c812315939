"""A moment on the command line: what isn't one is a UsageError, with an example of what is."""

from typing import TYPE_CHECKING

from stockledger.verb.exits import UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from ledger.domain.token import AnyPosition

POSITION = "POSITION|TOKEN"
PLACE = "POSITION|TOKEN|TIME"
AS_OF = "Then: a position, a token, a time such as 2010-12-01T10:00:00Z, or a date (its 00:00 UTC)."


def time_of(text: str) -> "datetime":
    """The time that the text names, with its offset from UTC. Raises UsageError."""
    from ledger.domain import moment

    try:
        return moment.time_of(text)
    except ValueError as error:
        raise UsageError(str(error), remedy=f"for example {moment.TIMES}") from error


def given_position(text: str) -> "AnyPosition":
    """The position, or the token, that the text is. Raises UsageError."""
    from ledger.domain import moment

    try:
        return moment.given_position(text)
    except ValueError as error:
        raise UsageError(str(error), remedy=f"for example {moment.POSITIONS}") from error


def moment_of(text: str) -> "AnyPosition | datetime":
    """The position, token or time that the text names. Raises UsageError."""
    from ledger.domain import moment

    if moment.DATE.match(text):
        return time_of(text)
    try:
        return moment.moment_of(text)
    except ValueError as error:
        raise UsageError(str(error), remedy=f"for example {moment.POSITIONS}, or {moment.TIMES}") from error
