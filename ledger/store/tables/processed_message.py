"""The register of processed messages: one row per message key, permanent, with the first outcome."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, LiteralString, NamedTuple

from msgspec import Struct

from ledger.domain.commands import MessageKey
from ledger.domain.delivery import Lane
from ledger.domain.outcome import Outcome, Reason
from ledger.errors import Contradiction
from ledger.store.connection import copy
from ledger.store.connection.database import Connection
from ledger.store.connection.roundtrip import Statement


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


class StoredOutcome(NamedTuple):
    """The outcome of a command, and the delivery that it belongs to; `hash` is the journal's there.

    `version` is its event's, if it was applied.
    """

    key: MessageKey
    outcome: Outcome
    reason: Reason | None
    lane: Lane
    offset: int
    position: int
    recorded_at: datetime
    fingerprint: bytes
    hash: bytes
    version: int | None


COPY = 'COPY ledger.processed_message (entry, "offset", version, reason, fingerprint, source, id) FROM STDIN'
LINES = """
COPY (SELECT entry, "offset", version, reason, fingerprint, source, id
      FROM ledger.processed_message WHERE entry BETWEEN %s AND %s ORDER BY entry, "offset") TO STDOUT
"""
# One key column and one array: an index probe per id. The source is compared afterwards, in `find_statement`.
PROBE = """
SELECT source, id, fingerprint, reason, version, entry, "offset"
FROM ledger.processed_message WHERE id = ANY(string_to_array(%s, E'\\n'))
"""
ORIGINS = (
    "SELECT entry, topic, partition, first_offset, next_offset FROM ledger.journal WHERE entry = ANY(%s)"
)
_COLUMNS: LiteralString = """
p.source, p.id, CASE WHEN p.reason IS NULL THEN 'applied' ELSE 'rejected' END, p.reason, j.topic, j.partition,
p."offset", j.position, j.recorded_at, p.fingerprint, j.hash, p.version
"""
STORED: LiteralString = (
    "SELECT" + _COLUMNS + "FROM ledger.processed_message p JOIN ledger.journal j USING (entry)\n"
)
OUTCOMES: LiteralString = (
    STORED + "WHERE p.id = %(id)s AND (%(source)s::text IS NULL OR p.source = %(source)s) ORDER BY p.source"
)
# Each id by the primary key, mostly in vain; then the entries of what was found. A join would be planned
# as if all were found, and read the whole journal.
WAITED_FOR: LiteralString = (
    "SELECT"
    + _COLUMNS
    + """
FROM (SELECT * FROM ledger.processed_message WHERE id = ANY(string_to_array(%s, E'\\n')) OFFSET 0) p
CROSS JOIN LATERAL (SELECT * FROM ledger.journal WHERE entry = p.entry OFFSET 0) j
"""
)
# Along the primary key, whose texts are visible ASCII in byte order: `beyond` is the prefix and DEL.
LIKE: LiteralString = (
    STORED
    + """
WHERE p.id >= %(prefix)s AND p.id < %(beyond)s AND j.position BETWEEN %(first)s AND %(last)s
      AND (%(source)s::text IS NULL OR p.source = %(source)s)
ORDER BY p.id, p.source LIMIT %(limit)s
"""
)
BEYOND_ANY = "\x7f"
# By blocks of the range index on `entry`: as much is read as was recorded then.
BETWEEN: LiteralString = (
    STORED
    + """
WHERE j.position BETWEEN %(first)s AND %(last)s AND p.entry BETWEEN
      (SELECT min(entry) FROM ledger.journal WHERE position BETWEEN %(first)s AND %(last)s) AND
      (SELECT max(entry) FROM ledger.journal WHERE position BETWEEN %(first)s AND %(last)s)
      AND (%(source)s::text IS NULL OR p.source = %(source)s)
ORDER BY j.position, p."offset" LIMIT %(limit)s
"""
)
OF_USER: LiteralString = (
    STORED
    + """
JOIN ledger.user_events u ON u.id = p.id AND u.source = p.source
WHERE u.user_id = %(user)s AND u.position BETWEEN %(first)s AND %(last)s
      AND (%(source)s::text IS NULL OR u.source = %(source)s)
ORDER BY u.position, u.ordinal LIMIT %(limit)s
"""
)
ENTRIES_AT_ONCE = 16
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


def find_statement(keys: Iterable[MessageKey]) -> Statement[dict[MessageKey, Processed]]:
    """Read what is known of the keys. More than was asked may come back where sources share an id."""
    return Statement(
        PROBE,
        (copy.texts({key.id for key in keys}),),
        lambda rows: {MessageKey(source, id_): Processed(*rest) for source, id_, *rest in rows},
    )


def outcomes(conn: Connection, id: str, source: str | None = None) -> list[StoredOutcome]:
    """The outcomes of the commands with this id, of one source or of all."""
    return [_recorded(*row) for row in conn.execute(OUTCOMES, {"id": id, "source": source})]


def waited_for(conn: Connection, keys: Collection[MessageKey]) -> list[StoredOutcome]:
    """The outcomes of those of the keys that have one, however many are asked for."""
    rows = conn.execute(WAITED_FOR, (copy.texts({key.id for key in keys}),))
    return [found for row in rows if (found := _recorded(*row)).key in keys]


def like(
    conn: Connection, prefix: str, source: str | None, first: int, last: int, limit: int
) -> list[StoredOutcome]:
    """The outcomes of the commands whose ids begin so, by id, recorded at these positions."""
    wanted = {"prefix": prefix, "beyond": prefix + BEYOND_ANY, "source": source}
    rows = conn.execute(LIKE, wanted | {"first": first, "last": last, "limit": limit})
    return [_recorded(*row) for row in rows]


def between(conn: Connection, source: str | None, first: int, last: int, limit: int) -> list[StoredOutcome]:
    """The first outcomes that were recorded at these positions, in journal order."""
    found: list[StoredOutcome] = []
    entries = ENTRIES_AT_ONCE
    while first <= last and len(found) < limit:
        part = {"first": first, "last": min(first + entries - 1, last), "limit": limit - len(found)}
        found += [_recorded(*row) for row in conn.execute(BETWEEN, part | {"source": source})]
        first, entries = first + entries, 2 * entries
    return found


def of_user(
    conn: Connection, user_id: str, source: str | None, first: int, last: int, limit: int
) -> list[StoredOutcome]:
    """The first of this user's applied commands that were recorded at these positions, in journal order.

    As far as the projection `user_events` has come.
    """
    wanted = {"user": user_id, "source": source, "first": first, "last": last, "limit": limit}
    return [_recorded(*row) for row in conn.execute(OF_USER, wanted)]


def rejected(conn: Connection) -> dict[Reason, int]:
    """Rejections by reason. Reads the whole register."""
    return {Reason(reason): number for reason, number in conn.execute(REJECTED)}


def _recorded(
    source: str, id: str, outcome: str, reason: str | None, topic: str, partition: int, *rest: Any
) -> StoredOutcome:
    why = Reason(reason) if reason else None
    return StoredOutcome(MessageKey(source, id), Outcome(outcome), why, Lane(topic, partition), *rest)


def origins(conn: Connection, known: Mapping[MessageKey, Processed]) -> dict[int, Lane]:
    """The lanes through which these came, by entry.

    Raises Contradiction where the journal has no such delivery: a row that was written past the journal would
    answer `duplicate` to a command that was never applied.
    """
    rows = conn.execute(ORIGINS, (list({first.entry for first in known.values()}),))
    found = {entry: (Lane(topic, partition), offsets) for entry, topic, partition, *offsets in rows}
    for key, first in known.items():
        _, (begin, end) = found.get(first.entry, (None, (0, 0)))
        if not begin <= first.offset < end:
            raise Contradiction(
                f"message {' '.join(key)} is registered in entry {first.entry} at offset {first.offset}, "
                "but the journal has no such delivery",
                remedy="stockledger verify",
            )
    return {entry: lane for entry, (lane, _) in found.items()}
