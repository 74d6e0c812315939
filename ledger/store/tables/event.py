"""Events: appended, never changed. One line per event; the primary key is its place in its stream."""

from collections.abc import Iterator, Mapping, Sequence
from typing import LiteralString

from ledger.domain.commands import MessageKey
from ledger.domain.decider import Place
from ledger.domain.events import AnyEvent, payload
from ledger.domain.goods import Purchase, goods_stream
from ledger.store.connection import copy
from ledger.store.connection.database import Connection

TYPES: LiteralString = """
    'UserRegistered', 'UserClosed', 'GoodsListed', 'StockReceived', 'StockAdjusted', 'GoodsPurchased',
    'PurchaseCancelled'
"""
"""All types of events. The shipped projections count them as understood: who adds one looks at each fold."""
GOODS_ID: LiteralString = "substr(stream, 7)"
"""The goods of a stream `goods-<goods_id>`."""
USER_ID: LiteralString = "substr(stream, 6)"
"""The user of a stream `user-<user_id>`."""
COPY = """
COPY ledger.event (entry, ordinal, stream, version, type, payload, delta, source, id, user_id) FROM STDIN
"""
LINES = """
COPY (SELECT entry, ordinal, stream, version, type, payload, delta, source, id, user_id
      FROM ledger.event WHERE entry BETWEEN %s AND %s ORDER BY entry, ordinal) TO STDOUT
"""
# The register says at which version of its stream a command's event stands; the stream's name is asked
# for with the goods that the canceller names, so a purchase of other goods isn't found.
# Each by its key, one after the other (OFFSET 0 keeps it so): a join could read the whole tables.
PURCHASES = """
SELECT w.source, w.id, w.goods_id, e.user_id, -e.delta, c.id IS NOT NULL
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS w (source, id, goods_id, stream)
CROSS JOIN LATERAL (
    SELECT version FROM ledger.processed_message WHERE id = w.id AND source = w.source OFFSET 0
) p
CROSS JOIN LATERAL (
    SELECT id, source, type, user_id, delta FROM ledger.event
    WHERE stream = w.stream AND version = p.version OFFSET 0
) e
LEFT JOIN LATERAL (
    SELECT id FROM ledger.cancellation WHERE id = w.id AND source = w.source OFFSET 0
) c ON true
WHERE e.id = w.id AND e.source = w.source AND e.type = 'GoodsPurchased'
"""
# What the register says of the events of some entries.
REGISTERED = """
SELECT e.source, e.id, e.type, e.payload::text, p.fingerprint
FROM ledger.event e JOIN ledger.processed_message p USING (entry, source, id)
WHERE e.entry BETWEEN %s AND %s AND p.entry BETWEEN %s AND %s ORDER BY e.entry, e.ordinal
"""
# The journal names the entries, whose rows a block range index finds, one entry after the other.
PLACES = """
SELECT e.source, e.id, e.stream, e.version
FROM (SELECT entry FROM ledger.journal WHERE position = ANY(%s)) j
CROSS JOIN LATERAL (
    SELECT source, id, stream, version FROM ledger.event
    WHERE entry = j.entry AND id = ANY(string_to_array(%s, E'\\n')) OFFSET 0
) e
"""


def line(entry: int, ordinal: int, place: Place, key: MessageKey, event: AnyEvent) -> str:
    """The event's row."""
    user_id = getattr(event, "user_id", "")
    row = (
        f"{entry}\t{ordinal}\t{place.stream}\t{place.version}\t{event.TYPE}\t{payload(event).decode()}\t"
        f"{event.stock_delta}\t{key.source}\t{key.id}\t{user_id}"
    )
    return f"{copy.visible(row)}{'' if user_id else copy.NULL}\n"


def find_purchases(conn: Connection, wanted: Sequence[tuple[MessageKey, str]]) -> dict[MessageKey, Purchase]:
    """The wanted purchases (message key, goods) that were applied, and whether they are cancelled.

    Read it while holding the goods' stock rows: purchases and cancellations are written under their lock.
    """
    keys, goods_ids = [key for key, _ in wanted], [goods_id for _, goods_id in wanted]
    streams = [goods_stream(goods_id) for goods_id in goods_ids]
    columns = [key.source for key in keys], [key.id for key in keys], goods_ids, streams
    rows = conn.execute(PURCHASES, columns)
    return {MessageKey(source, id_): Purchase(*purchase) for source, id_, *purchase in rows}


def places(conn: Connection, applied: Mapping[MessageKey, int]) -> dict[MessageKey, Place]:
    """The places of the events of commands that were applied, each at its position."""
    if not applied:
        return {}
    rows = conn.execute(PLACES, (sorted(set(applied.values())), copy.texts({key.id for key in applied})))
    return {MessageKey(source, id_): Place(*place) for source, id_, *place in rows}


def registered(conn: Connection, first: int, last: int) -> Iterator[tuple[MessageKey, str, str, bytes]]:
    """The key, type and payload of each event in a range of entries, and its fingerprint in the register."""
    rows = conn.execute(REGISTERED, (first, last, first, last), prepare=False)
    return ((MessageKey(source, id_), *rest) for source, id_, *rest in rows)
