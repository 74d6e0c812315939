"""A step of the relay: a few entries, all that they say, and how it is written.

What is read is in the history that was published so far, or HistoryChanged is raised.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ledger.domain.delivery import Lane
from ledger.domain.token import Token
from ledger.store.connection.database import Connection, faults
from ledger.store.reads import columns, history
from ledger.store.reads.columns import Bounds, EventColumns, OutcomeColumns
from ledger.store.reads.history import StockNow
from ledger.store.tables import journal
from ledger.store.tables.journal import StoredEntry
from producer.relay.outputs import OutgoingRecord, Outputs, of_events, of_outcomes, of_stock

ENTRIES_MAX = 500
RECORDS = 10_000
"""A step takes entries until they have so many records; an entry is never cut."""


class JournalStep(NamedTuple):
    """Entries that follow one another, and what they say. `is_last`: the journal ended there.

    The stock is as of when it was read, which may be later: a reader keeps what has the higher version.
    """

    entries: list[StoredEntry]
    events: list[EventColumns]
    outcomes: list[OutcomeColumns]
    stock: StockNow
    is_last: bool

    @property
    def reached(self) -> Token:
        """Where it ends."""
        return Token.at(self.entries[-1].position, self.entries[-1].hash)

    @property
    def happened(self) -> int:
        """How many events it has."""
        return sum(each.applied for each in self.entries)

    @property
    def decided(self) -> int:
        """How many outcomes."""
        return sum(map(_decided, self.entries))

    def records(self, outputs: Outputs, source: str) -> Iterator[OutgoingRecord]:
        """Events and outcomes in journal order, and the stock that they moved. Raises UnreadableEvent."""
        tokens = {each.position: str(Token.at(each.position, each.hash)) for each in self.entries}
        lanes = {each.position: Lane(each.topic, each.partition) for each in self.entries}
        for happened in self.events:
            yield from of_events(outputs.events, happened, source, tokens[happened.position])
        for decided in self.outcomes:
            at = decided.position
            yield from of_outcomes(outputs.outcomes, decided, source, tokens[at], lanes[at])
        for level in self.stock.levels.values():
            yield of_stock(outputs.stock, level, self.stock.moment.token)


def following(conn: Connection, after: Token) -> JournalStep | None:
    """The step after this place; None where the journal ends there. Raises HistoryChanged, Unavailable."""
    with faults():
        end = history.end(conn, [str(after)]).position
        first = after.position + 1
        entries = _fitting(journal.rows(conn, first, min(end, first + ENTRIES_MAX - 1)))
        if not entries:
            return None
        numbers, last = [each.entry for each in entries], entries[-1].position
        within = Bounds(first, last, min(numbers), max(numbers))
        happened, decided = columns.events(conn, within), columns.outcomes(conn, within)
        stock = history.live(conn, _goods(happened))
        return JournalStep(entries, happened, decided, stock, is_last=last == end)


def _fitting(found: list[StoredEntry]) -> list[StoredEntry]:
    taken = records = 0
    while taken < len(found) and (not taken or records + _records(found[taken]) <= RECORDS):
        records += _records(found[taken])
        taken += 1
    return found[:taken]


def _goods(happened: Iterable[EventColumns]) -> list[str]:
    prefix = history.GOODS_PREFIX.encode()
    streams = {stream for each in happened for stream in each.streams if stream.startswith(prefix)}
    return [stream.removeprefix(prefix).decode() for stream in streams]


def _decided(entry: StoredEntry) -> int:
    return entry.applied + entry.rejected


def _records(entry: StoredEntry) -> int:
    return entry.applied + _decided(entry)
