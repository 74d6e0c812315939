"""The journal: one row per batch, dense positions in commit order. Sealed and committed in one round trip.

A position is taken under the head row's lock, which is held to the commit, so whoever sees a position
sees every lower one: readers page by position and miss nothing. `hash` chains each entry to all before it.
The caller owns the transaction up to `seal`, which ends it.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from psycopg.rows import class_row

from ledger.domain.delivery import Batch, Lane
from ledger.domain.outcome import Outcome
from ledger.store.connection import roundtrip
from ledger.store.connection.copy import Made, line
from ledger.store.connection.database import Connection, confirm_commit, faults
from ledger.store.connection.roundtrip import NOTHING, Before, Statement

COUNTED = (Outcome.APPLIED, Outcome.REJECTED, Outcome.DUPLICATE, Outcome.CONFLICT, Outcome.DEAD)
"""The order in columns, `seal`, digests and hashes. It is stored, so it stays, whatever the enum's is."""


class Head(NamedTuple):
    """What a batch must find unchanged when it is sealed."""

    catalogue: int
    stock_generation: int


class Tip(NamedTuple):
    """The last entry of the journal."""

    position: int
    hash: bytes


class StoredEntry(NamedTuple):
    """An entry as it is stored. `recorded_us`: microseconds since 1970, as text: a forged one may be none."""

    position: int
    entry: int
    topic: str
    partition: int
    epoch: int
    first_offset: int
    next_offset: int
    applied: int
    rejected: int
    duplicate: int
    conflict: int
    dead: int
    skipped: int
    recorded_us: str
    digest: bytes
    hash: bytes

    @property
    def counts(self) -> dict[Outcome, int]:
        """Deliveries by outcome."""
        numbers = self.applied, self.rejected, self.duplicate, self.conflict, self.dead
        return dict(zip(COUNTED, numbers, strict=True))


@dataclass(frozen=True)
class Entry:
    """A batch as the journal records it. `counts` and the gaps account for every offset of its range."""

    number: int
    batch: Batch
    epoch: int
    counts: Mapping[Outcome, int]
    digest: bytes
    bumps_catalogue: bool
    stock_generation: int


GENESIS = hashlib.sha256(b"stockledger").digest()
"""The hash before the first entry."""
CATALOGUE_MOVED = "LG001"
READ_HEAD = "SELECT catalogue, stock_generation FROM ledger.head"
LOCK_HEAD = "SELECT ledger.lock_head()"
TIP = "SELECT position, hash FROM ledger.head"
SEAL = "SELECT ledger.seal(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
SEAL_AND_COMMIT = "SAVEPOINT before_seal; " + SEAL + "; COMMIT"
COLUMNS = """
SELECT position, entry, topic, partition, epoch, first_offset, next_offset,
       applied, rejected, duplicate, conflict, dead, skipped,
       trunc(extract(epoch FROM recorded_at) * 1000000)::text AS recorded_us, digest, hash
FROM ledger.journal
"""
ROWS = COLUMNS + "WHERE position BETWEEN %s AND %s ORDER BY position"
LANE_ROWS = (
    COLUMNS
    + """
WHERE topic = %s AND partition = %s AND first_offset >= %s AND first_offset < %s AND position <= %s
ORDER BY first_offset
"""
)
LANE_ENDS = """
SELECT topic, partition, max(next_offset) FROM ledger.journal WHERE position <= %s
GROUP BY topic, partition ORDER BY topic, partition
"""
LANE_RANGES = """
SELECT topic, partition, min(first_offset), max(next_offset) FROM ledger.journal
WHERE position > %s AND position <= %s GROUP BY topic, partition ORDER BY topic, partition
"""
TOTALS = """
SELECT coalesce(sum(applied), 0), coalesce(sum(rejected), 0), coalesce(sum(duplicate), 0),
       coalesce(sum(conflict), 0), coalesce(sum(dead), 0), coalesce(sum(skipped), 0)
FROM ledger.journal
"""


def head_statement() -> Statement[Head]:
    """Read the catalogue counter and the live stock generation; no lock."""
    return Statement(READ_HEAD, (), lambda rows: Head(*rows[0]))


def lock_head(conn: Connection) -> int:
    """Hold the head until the transaction ends, and return the catalogue counter: nothing can move it now."""
    row = conn.execute(LOCK_HEAD).fetchone()
    assert row is not None
    return int(row[0])


def tip(conn: Connection) -> Tip:
    """The last committed position (0: none yet) and its hash."""
    (row,) = conn.execute(TIP)
    return Tip(*row)


def totals(conn: Connection) -> dict[str, int]:
    """Deliveries by outcome, and the skipped offsets, over the whole journal."""
    (row,) = conn.execute(TOTALS)
    return dict(zip([*map(str, COUNTED), "skipped"], map(int, row), strict=True))


def rows(conn: Connection, first: int, last: int) -> list[StoredEntry]:
    """The entries of a range of positions, in journal order."""
    with conn.cursor(row_factory=class_row(StoredEntry)) as cursor:
        return cursor.execute(ROWS, (first, last)).fetchall()


def lane_rows(conn: Connection, lane: Lane, first: int, end: int, last: int) -> list[StoredEntry]:
    """The lane's entries that begin at an offset from `first` to before `end`, up to the position `last`."""
    with conn.cursor(row_factory=class_row(StoredEntry)) as cursor:
        return cursor.execute(LANE_ROWS, (*lane, first, end, last)).fetchall()


def lane_ends(conn: Connection, last: int) -> list[tuple[Lane, int]]:
    """Each lane's next offset as of the position `last`."""
    rows = conn.execute(LANE_ENDS, (last,))
    return [(Lane(topic, partition), next_offset) for topic, partition, next_offset in rows]


def lane_ranges(conn: Connection, since: int, last: int) -> list[tuple[Lane, int, int]]:
    """The lanes with entries after the position `since` up to `last`: their first and next offset."""
    rows = conn.execute(LANE_RANGES, (since, last))
    return [(Lane(topic, partition), first, next_offset) for topic, partition, first, next_offset in rows]


def seal(conn: Connection, entry: Entry, seen_catalogue: int | None, before: Before = NOTHING) -> int:
    """Take the next position, write the entry and COMMIT, all in one message; returns the position.

    What is to be done `before` travels with it, and isn't undone where the seal is (below).

    In one message, so that a client that freezes can't hold the head: a pipeline sends one after the other,
    and a client frozen between them holds it for the whole transaction timeout, because its session counts
    as active, not as idle. `seen_catalogue` is what the batch saw when it read what it couldn't lock (None:
    it read no such thing). Where it moved, seal raises (Contended, LG001), so that the COMMIT after it is
    not executed; the transaction is then back before the seal and doesn't hold the head.
    """
    batch, counts = entry.batch, entry.counts
    parameters: tuple[Any, ...] = (
        entry.number,
        *batch.lane,
        entry.epoch,
        batch.first_offset,
        batch.next_offset,
        *(counts.get(outcome, 0) for outcome in COUNTED),
        skipped(batch),
        entry.digest,
        seen_catalogue,
        entry.bumps_catalogue,
        entry.stock_generation,
    )
    with faults():
        _, sealed, committed = roundtrip.finish(conn, before, SEAL_AND_COMMIT.encode(), parameters)
        confirm_commit(committed)
    position = sealed.get_value(0, 0)
    assert position is not None
    return int(position)


def back_before_seal(conn: Connection) -> None:
    """Undo a seal that raised, and let go of the head."""
    conn.execute("ROLLBACK TO SAVEPOINT before_seal")


def skipped(batch: Batch) -> int:
    """How many offsets the batch's gaps cover."""
    return sum(gap.next_offset - gap.first_offset for gap in batch.gaps)


def digest(batch: Batch, counts: Mapping[Outcome, int], tables: Iterable[Made]) -> bytes:
    """SHA-256 over the entry's counts and its rows as written.

    `tables` holds the rows of register (by offset), events (by ordinal), cancellations, dead letters,
    conflicts and gaps (by offset). Each begins with its number of rows, so no row can pass for another's.
    """
    numbers = [counts.get(outcome, 0) for outcome in COUNTED]
    counted = line(*batch.lane, batch.first_offset, batch.next_offset, *numbers, skipped(batch))
    return _digest(counted, ((len(rows), rows.text()) for rows in tables))


def stored_digest(row: StoredEntry, tables: Iterable[list[bytes]]) -> bytes:
    """The digest of an entry from what is stored: equal to that of `digest`, unless it was tampered with."""
    numbers = [row.counts[outcome] for outcome in COUNTED]
    counted = line(row.topic, row.partition, row.first_offset, row.next_offset, *numbers, row.skipped)
    return _digest(counted, ((len(lines), b"".join(lines)) for lines in tables))


def _digest(counted: str, tables: Iterable[tuple[int, bytes]]) -> bytes:
    sha = hashlib.sha256(counted.encode())
    for number, text in tables:
        sha.update(f"{number}\n".encode())
        sha.update(text)
    return sha.digest()


def chain(previous: bytes, row: StoredEntry) -> bytes:
    """The hash of the entry that follows `previous`: over that, the digest, and every other column.

    The function `seal` makes the same one. The topic stands last: what precedes it are numbers.
    """
    columns = row.position, row.entry, row.partition, row.epoch, row.first_offset, row.next_offset
    numbers = [row.counts[outcome] for outcome in COUNTED]
    text = "\t".join(map(str, (*columns, *numbers, row.skipped, row.recorded_us, row.topic)))
    return hashlib.sha256(previous + row.digest + text.encode()).digest()
