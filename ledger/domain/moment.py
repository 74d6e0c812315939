"""How people name a moment: a position, a token, a time (RFC 3339), or a date, which is its 00:00 UTC."""

import re
from datetime import UTC, datetime

from ledger.domain.token import AnyPosition, Token

TIMES = "2010-12-01 or 2010-12-01T10:00:00Z"
POSITIONS = "18402 or 18402-9f3c21aa00b7e415"
NUMBER = re.compile(r"[0-9]{1,18}")
DATE = re.compile(r"\d{4}-\d\d-\d\d")
TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)")


def time_of(text: str) -> datetime:
    """The time that the text names, with its offset from UTC. Raises ValueError."""
    try:
        if DATE.fullmatch(text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
        if TIME.fullmatch(text):
            return datetime.fromisoformat(text.upper())
    except ValueError:
        pass  # the 30th of February
    raise ValueError(f"{text} is no time: it is a date (its 00:00 UTC), or a time with its offset from UTC")


def given_position(text: str) -> AnyPosition:
    """The position, or the token, that the text is. Raises ValueError."""
    if NUMBER.fullmatch(text):
        return int(text)
    try:
        return str(Token.parse(text))
    except ValueError as error:
        raise ValueError(f"{text} is neither a position nor a token") from error


def moment_of(text: str) -> AnyPosition | datetime:
    """The position, token or time that the text names. Raises ValueError."""
    if DATE.match(text):
        return time_of(text)
    try:
        return given_position(text)
    except ValueError as error:
        raise ValueError(f"{text} is no position, token, date or time") from error
