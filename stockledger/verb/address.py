"""How people name a record: `3@5512`, partition 3 at offset 5512, where there is one topic; `orders[3]@5512`.

The short form means nothing as soon as there are two topics: then it is neither printed nor taken.
"""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from stockledger.verb.exits import UsageError

if TYPE_CHECKING:
    from ledger.domain.delivery import Lane

PATTERN = re.compile(
    r"(?:(?P<topic>[a-zA-Z0-9._-]+)\[(?P<named>[0-9]{1,9})\]|(?P<partition>[0-9]{1,9}))@(?P<offset>[0-9]{1,18})"
)
REMEDY = "stockledger dlq list"


class Address(NamedTuple):
    """A record as it was named; no topic: of the only one."""

    topic: str | None
    partition: int
    offset: int


def parse(text: str) -> Address:
    """The record that `text` names. Raises UsageError."""
    found = PATTERN.fullmatch(text)
    if not found:
        raise UsageError(
            f"{text} names no record: it is PARTITION@OFFSET or TOPIC[PARTITION]@OFFSET", remedy=REMEDY
        )
    return Address(found["topic"], int(found["named"] or found["partition"]), int(found["offset"]))


class Addresses:
    """Reads and writes addresses where there are these topics."""

    def __init__(self, topics: Iterable[str]) -> None:
        self._topics = sorted(set(topics))

    def read(self, address: Address) -> tuple["Lane", int]:
        """The record's lane and offset. Raises UsageError where the topic has to be named."""
        from ledger.domain.delivery import Lane  # brings pydantic

        if address.topic is None and len(self._topics) > 1:
            raise UsageError(
                f"{address.partition}@{address.offset} names no record where there are several topics "
                f"({', '.join(self._topics)}): it is TOPIC[PARTITION]@OFFSET",
                remedy=REMEDY,
            )
        return Lane(address.topic or self._topics[0], address.partition), address.offset

    def written(self, lane: "Lane", offset: int) -> str:
        """The shortest text that is read back as this record."""
        return f"{lane.partition}@{offset}" if self._topics == [lane.topic] else f"{lane}@{offset}"
