"""What a stock row comes from: the events of its goods, each with its command and delivery, and their sum.

Read in short statements; nothing is written or locked. The stock row and the sum come from one snapshot.
"""

from datetime import datetime
from typing import NamedTuple

from ledger.domain.commands import MessageKey
from ledger.domain.delivery import Lane
from ledger.domain.goods import goods_stream
from ledger.store.connection.database import Connection


class Change(NamedTuple):
    """One event of goods, the delivery that brought its command, and the stock after it."""

    position: int | None
    version: int
    type: str
    delta: int
    on_hand: int
    user_id: str | None
    key: MessageKey
    lane: Lane | None
    offset: int | None
    recorded_at: datetime | None


class Balance(NamedTuple):
    """What the stock says, and what the goods' events add up to, in one snapshot. None: no row."""

    on_hand: int | None
    version: int | None
    sum: int
    events: int
    last_version: int | None


BALANCE = """
SELECT s.on_hand, s.version, e.on_hand, e.events, e.version
FROM (SELECT coalesce(sum(delta), 0)::bigint AS on_hand, count(*) AS events, max(version) AS version
      FROM ledger.event WHERE stream = %(stream)s) e
LEFT JOIN ledger.stock_levels s ON s.goods_id = %(goods_id)s
"""
UPTO = """
SELECT coalesce(sum(delta), 0)::bigint, count(*), max(version) FROM ledger.event
WHERE stream = %s AND version <= %s
"""
# Outer joins: an event whose entry or register row was deleted is shown without them.
CHANGES = """
SELECT j.position, e.version, e.type, e.delta, e.user_id, e.source, e.id, j.topic, j.partition, p."offset",
       j.recorded_at
FROM ledger.event e LEFT JOIN ledger.journal j USING (entry)
LEFT JOIN ledger.processed_message p ON p.id = e.id AND p.source = e.source AND p.entry = e.entry
WHERE e.stream = %s AND e.version <= %s ORDER BY e.version DESC LIMIT %s
"""


def balance(conn: Connection, goods_id: str) -> Balance:
    """What the stock says of the goods, beside the sum of their events."""
    row = conn.execute(BALANCE, {"stream": goods_stream(goods_id), "goods_id": goods_id}).fetchone()
    assert row is not None
    return Balance(*row)


def upto(conn: Connection, goods_id: str, version: int) -> Balance:
    """What the goods' events up to this version add up to; of the stock it says nothing."""
    ((added, events, last),) = conn.execute(UPTO, (goods_stream(goods_id), version))
    return Balance(None, None, added, events, last)


def changes(conn: Connection, goods_id: str, total: Balance, limit: int) -> list[Change]:
    """The last `limit` of the events that `total` adds up, the oldest first."""
    found, on_hand = [], total.sum
    for position, version, type_, delta, user_id, source, id_, topic, partition, *rest in conn.execute(
        CHANGES, (goods_stream(goods_id), total.last_version, limit)
    ):
        lane = None if topic is None else Lane(topic, partition)
        key = MessageKey(source, id_)
        found.append(Change(position, version, type_, delta, on_hand, user_id, key, lane, *rest))
        on_hand -= delta
    return found[::-1]
