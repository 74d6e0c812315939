"""How people name a record: `3@5512`, which is partition 3 at offset 5512, or `orders[3]@5512`."""

import re
from typing import TYPE_CHECKING, NamedTuple

from stockledger.verb.exits import UsageError

if TYPE_CHECKING:
    from ledger.domain.delivery import Lane

PATTERN = re.compile(
    r"(?:(?P<topic>[a-zA-Z0-9._-]+)\[(?P<named>[0-9]{1,9})\]|(?P<partition>[0-9]{1,9}))@(?P<offset>[0-9]{1,18})"
)


class Address(NamedTuple):
    """One record of a topic."""

    lane: "Lane"
    offset: int


def parse(text: str, topic: str) -> Address:
    """The record that `text` names; without a topic it is of `topic`. Raises UsageError."""
    from ledger.domain.delivery import Lane  # brings pydantic

    found = PATTERN.fullmatch(text)
    if not found:
        raise UsageError(
            f"{text} names no record: it is PARTITION@OFFSET or TOPIC[PARTITION]@OFFSET",
            remedy="stockledger dlq list",
        )
    lane = Lane(found["topic"] or topic, int(found["named"] or found["partition"]))
    return Address(lane, int(found["offset"]))


def written(lane: "Lane", offset: int, topic: str) -> str:
    """The shortest text that `parse` reads back."""
    return f"{lane.partition}@{offset}" if lane.topic == topic else f"{lane}@{offset}"
