"""The register of processed messages: one row per message key, permanent, with the first outcome."""

from collections.abc import Iterable
from typing import NamedTuple

from ledger.domain.commands import MessageKey
from ledger.domain.delivery import Lane
from ledger.domain.outcome import Outcome
from ledger.store import copy
from ledger.store.database import Connection


class Processed(NamedTuple):
    """What the register knows of a command. `version` is its event's, if it was applied."""

    fingerprint: bytes
    reason: str | None
    version: int | None
    entry: int
    offset: int

    @property
    def outcome(self) -> Outcome:
        """`applied` or `rejected`; it never changes."""
        return Outcome.APPLIED if self.reason is None else Outcome.REJECTED


COPY = 'COPY ledger.processed_message (entry, "offset", version, reason, fingerprint, source, id) FROM STDIN'
# One key column and one array: an index probe per id. The source is compared afterwards, in `find`.
PROBE = """
SELECT source, id, fingerprint, reason, version, entry, "offset"
FROM ledger.processed_message WHERE id = ANY(%s)
"""
ORIGINS = "SELECT entry, topic, partition FROM ledger.journal WHERE entry = ANY(%s)"
OUTCOMES = """
SELECT source, id, outcome, reason, topic, partition, "offset", position, recorded_at
FROM ledger.outcomes WHERE id = %s AND (%s::text IS NULL OR source = %s)
"""


def line(key: MessageKey, processed: Processed) -> str:
    """The command's row."""
    return copy.line(
        processed.entry,
        processed.offset,
        processed.version,
        processed.reason,
        processed.fingerprint,
        key.source,
        key.id,
    )


def find(conn: Connection, keys: Iterable[MessageKey]) -> dict[MessageKey, Processed]:
    """Those of the keys that are known. A superset may come back where sources share an id."""
    rows = conn.execute(PROBE, (list({key.id for key in keys}),), binary=True)
    return {MessageKey(source, id_): Processed(*rest) for source, id_, *rest in rows}


def origins(conn: Connection, entries: Iterable[int]) -> dict[int, Lane]:
    """The lanes through which the entries came."""
    return {entry: Lane(*lane) for entry, *lane in conn.execute(ORIGINS, (list(entries),))}
