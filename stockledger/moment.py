"""How people name a moment: a position, a time (RFC 3339), or a date, which is its 00:00 UTC."""

import re
from datetime import UTC, datetime

from stockledger.exits import UsageError

AS_OF = "Then: a position, a time such as 2010-12-01T10:00:00Z, or a date (its 00:00 UTC)."
POSITION = re.compile(r"\d{1,18}")
DATE = re.compile(r"\d{4}-\d\d-\d\d")
TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)")


def time_of(text: str) -> datetime:
    """The time that the text names, with its offset from UTC. Raises UsageError."""
    try:
        if DATE.fullmatch(text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
        if TIME.fullmatch(text):
            return datetime.fromisoformat(text.upper())
    except ValueError:
        pass  # the 30th of February
    raise UsageError(
        f"{text} is no time: it is a date (its 00:00 UTC), or a time with its offset from UTC",
        remedy="for example 2010-12-01 or 2010-12-01T10:00:00Z",
    )


def moment_of(text: str) -> int | datetime:
    """The position or the time that the text names. Raises UsageError."""
    return int(text) if POSITION.fullmatch(text) else time_of(text)
