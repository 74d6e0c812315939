"""The register of processed messages: one row per message key, permanent, with the first outcome."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from msgspec import Struct

from ledger.domain.commands import MessageKey
from ledger.domain.delivery import Lane
from ledger.domain.outcome import Outcome, Reason
from ledger.store import copy
from ledger.store.database import Connection
from ledger.store.together import Question


class Processed(Struct, frozen=True, gc=False):
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


class Recorded(NamedTuple):
    """The outcome of a command, and the delivery that it belongs to."""

    key: MessageKey
    outcome: Outcome
    reason: Reason | None
    lane: Lane
    offset: int
    position: int
    recorded_at: datetime


COPY = 'COPY ledger.processed_message (entry, "offset", version, reason, fingerprint, source, id) FROM STDIN'
LINES = """
COPY (SELECT entry, "offset", version, reason, fingerprint, source, id
      FROM ledger.processed_message WHERE entry BETWEEN %s AND %s ORDER BY entry, "offset") TO STDOUT
"""
# One key column and one array: an index probe per id. The source is compared afterwards, in `find`.
PROBE = """
SELECT source, id, fingerprint, reason, version, entry, "offset"
FROM ledger.processed_message WHERE id = ANY(string_to_array(%s, E'\\n'))
"""
ORIGINS = "SELECT entry, topic, partition FROM ledger.journal WHERE entry = ANY(%s)"
OUTCOMES = """
SELECT source, id, outcome, reason, topic, partition, "offset", position, recorded_at
FROM ledger.outcomes WHERE id = %(id)s AND (%(source)s::text IS NULL OR source = %(source)s) ORDER BY source
"""
REJECTED = """
SELECT reason, count(*) FROM ledger.processed_message WHERE reason IS NOT NULL GROUP BY reason ORDER BY reason
"""


def line(key: MessageKey, processed: Processed) -> str:
    """The command's row."""
    version = copy.NULL if processed.version is None else processed.version
    reason = copy.NULL if processed.reason is None else processed.reason
    named = copy.visible(f"{key.source}\t{key.id}")
    return (
        f"{processed.entry}\t{processed.offset}\t{version}\t{reason}\t"
        f"\\\\x{processed.fingerprint.hex()}\t{named}\n"
    )


def find(keys: Iterable[MessageKey]) -> Question[dict[MessageKey, Processed]]:
    """Those of the keys that are known. A superset may come back where sources share an id."""
    return Question(
        PROBE,
        (copy.texts({key.id for key in keys}),),
        lambda rows: {MessageKey(source, id_): Processed(*rest) for source, id_, *rest in rows},
    )


def outcomes(conn: Connection, id: str, source: str | None = None) -> list[Recorded]:
    """The outcomes of the commands with this id, of one source or of all."""
    return [_recorded(*row) for row in conn.execute(OUTCOMES, {"id": id, "source": source})]


def rejected(conn: Connection) -> dict[Reason, int]:
    """Rejections by reason. Reads the whole register."""
    return {Reason(reason): number for reason, number in conn.execute(REJECTED)}


def _recorded(
    source: str, id: str, outcome: str, reason: str | None, topic: str, partition: int, *rest: Any
) -> Recorded:
    why = Reason(reason) if reason else None
    return Recorded(MessageKey(source, id), Outcome(outcome), why, Lane(topic, partition), *rest)


def origins(conn: Connection, entries: Iterable[int]) -> dict[int, Lane]:
    """The lanes through which the entries came."""
    return {entry: Lane(*lane) for entry, *lane in conn.execute(ORIGINS, (list(entries),))}
