"""The judge of everything that runs side by side: the ledger against one command after the other.

Replays what was delivered, in the order of the journal, through the pure `decide` and `evolve`, and
compares every row: outcomes, reasons, versions, events, conflicts, stock, accounts, and the chain.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ledger.domain.commands import MessageKey
from ledger.domain.decider import State, decide, evolve
from ledger.domain.delivery import Bad, Delivery, Lane, Request
from ledger.domain.events import payload
from ledger.domain.goods import Goods
from ledger.domain.outcome import Outcome, Rejection
from ledger.domain.user import User
from ledger.store.connection.database import Connection
from ledger.store.tables import journal

REGISTER = """
SELECT p.source, p.id, j.position, j.topic, j.partition, p."offset", p.fingerprint, p.reason, p.version
FROM ledger.processed_message p LEFT JOIN ledger.journal j USING (entry)
"""
EVENTS = """
SELECT j.position, e.ordinal, e.stream, e.version, e.type, e.payload::text, e.source, e.id
FROM ledger.event e LEFT JOIN ledger.journal j USING (entry) ORDER BY j.position, e.ordinal
"""
CONFLICTS = """
SELECT source, id, first_fingerprint, first_topic, first_partition, first_offset,
       second_fingerprint, second_topic, second_partition, second_offset, position
FROM ledger.conflicts
"""
DEAD = 'SELECT topic, partition, "offset", code FROM ledger.dead_letters'


class Sequential:
    """The ledger as it would be if there were one worker and no faults."""

    def __init__(self) -> None:
        self.state = State()
        self.register: dict[MessageKey, tuple[Any, ...]] = {}
        self.events: list[tuple[Any, ...]] = []
        self.conflicts: set[tuple[Any, ...]] = set()
        self.dead: set[tuple[Any, ...]] = set()
        self._ordinal: Counter[int] = Counter()

    def take(self, position: int, lane: Lane, delivery: Delivery) -> Outcome:
        """The outcome of this delivery."""
        content, offset = delivery.content, delivery.offset
        if isinstance(content, Bad):
            self.dead.add((*lane, offset, content.code))
            return Outcome.DEAD
        if first := self.register.get(content.key):
            if first[4] == content.fingerprint:
                return Outcome.DUPLICATE
            evidence = first[4], *first[1:4], content.fingerprint, *lane, offset, position
            self.conflicts.add((*content.key, *evidence))
            return Outcome.CONFLICT
        reason, version = self._decide(position, content)
        self.register[content.key] = position, *lane, offset, content.fingerprint, reason, version
        return Outcome.REJECTED if reason else Outcome.APPLIED

    def _decide(self, position: int, request: Request) -> tuple[str | None, int | None]:
        decision = decide(self.state, request)
        if isinstance(decision, Rejection):
            return decision.reason.value, None
        place = evolve(self.state, request.key, decision)
        where = position, self._ordinal[position], place.stream, place.version
        self.events.append((*where, decision.TYPE, payload(decision).decode(), *request.key))
        self._ordinal[position] += 1
        return None, place.version


def compare(conn: Connection, delivered: Mapping[Lane, Mapping[int, Delivery]]) -> None:
    """Assert that all that is stored is what `Sequential` makes of it, in journal order."""
    model, next_offsets, chained = Sequential(), Counter[Lane](), hashlib.sha256(b"stockledger").digest()
    rows = journal.rows(conn, 1, journal.tip(conn).position)
    for number, row in enumerate(rows, 1):
        lane, position = Lane(row.topic, row.partition), row.position
        first, last = row.first_offset, row.next_offset
        assert (position, first) == (number, next_offsets[lane]), "positions or offsets don't tile"
        records = [delivered[lane][o] for o in range(first, last) if o in delivered[lane]]
        tally = Counter(model.take(position, lane, delivery) for delivery in records)
        assert row.counts == {o: tally[o] for o in Outcome}, f"at {position}"
        assert row.skipped == last - first - len(records), f"at {position}"
        chained, next_offsets[lane] = journal.chain(chained, row), last
        assert row.hash == chained
    assert journal.tip(conn) == (len(rows), chained)
    lanes = conn.execute("SELECT topic, partition, next_offset FROM ledger.lane").fetchall()
    assert {Lane(topic, partition): offset for topic, partition, offset in lanes if offset} == next_offsets
    _compare_rows(conn, model)


def _compare_rows(conn: Connection, model: Sequential) -> None:
    stored = {MessageKey(*row[:2]): row[2:] for row in conn.execute(REGISTER)}
    assert stored == model.register
    assert conn.execute(EVENTS).fetchall() == model.events
    assert set(conn.execute(CONFLICTS)) == model.conflicts
    assert set(conn.execute(DEAD)) == model.dead
    stock = {g: Goods(version, on_hand) for g, on_hand, version in conn.execute("TABLE ledger.stock_levels")}
    assert stock == model.state.goods
    accounts = {u: User(*rest) for u, *rest in conn.execute("TABLE ledger.account")}
    assert accounts == model.state.users
    cancelled = {key for key, purchase in model.state.purchases.items() if purchase.cancelled}
    assert {
        MessageKey(*key) for key in conn.execute("SELECT source, id FROM ledger.cancellation")
    } == cancelled
