"""What the edges hand to the ledger: batches of numbered deliveries from a lane.

A lane is a named, numbered source whose records carry rising offsets; that it is a topic's partition
is the edges' business. `offset` in `next_offset` is always the next one to read.
"""

from typing import NamedTuple

from ledger.domain.commands import AnyCommand, MessageKey

Headers = list[tuple[str, bytes | None]]


class Lane(NamedTuple):
    """A topic's partition as the ledger sees it."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class Request(NamedTuple):
    """A command with its identity and the digest of its canonical payload."""

    key: MessageKey
    command: AnyCommand
    fingerprint: bytes


class Bad(NamedTuple):
    """Why a record is no valid command: `code` is a stable word, `detail` a sentence for people."""

    code: str
    detail: str


class Record(NamedTuple):
    """A record as it was delivered, byte for byte."""

    key: bytes | None
    value: bytes | None
    headers: Headers | None


class Delivery(NamedTuple):
    """One record of a lane, and what it says."""

    offset: int
    content: Request | Bad
    record: Record


class Gap(NamedTuple):
    """Offsets that will never be applied, and why: `log_hole`, `before_start`, `records_deleted`."""

    first_offset: int
    next_offset: int
    cause: str
    accepted_by: str = ""


class Batch(NamedTuple):
    """Consecutive deliveries of one lane; with the gaps they tile [`first_offset`, `next_offset`)."""

    lane: Lane
    first_offset: int
    next_offset: int
    deliveries: list[Delivery]
    gaps: list[Gap] = []  # noqa: RUF012 (never changed)
