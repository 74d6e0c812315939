"""Records that are no valid command, kept byte for byte, never registered."""

from ledger.domain.delivery import Bad, Lane, Record
from ledger.store import copy

COPY = """
COPY ledger.dead_letter
    (entry, topic, partition, "offset", code, detail, key, value, header_names, header_values) FROM STDIN
"""


def line(entry: int, lane: Lane, offset: int, bad: Bad, record: Record) -> str:
    """The record's row."""
    names: list[bytes | None] | None = None
    values: list[bytes | None] | None = None
    if record.headers is not None:
        names = [name.encode("utf-8", "surrogateescape") for name, _ in record.headers]
        values = [value for _, value in record.headers]
    return copy.line(entry, *lane, offset, bad.code, bad.detail, record.key, record.value, names, values)
