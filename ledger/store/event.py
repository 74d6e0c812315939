"""Events: appended, never changed. One line per event; the primary key is its place in its stream."""

from collections.abc import Sequence

from ledger.domain.commands import MessageKey
from ledger.domain.decider import Place
from ledger.domain.events import AnyEvent, payload
from ledger.domain.goods import Purchase, stream
from ledger.store import copy
from ledger.store.database import Connection

COPY = """
COPY ledger.event (entry, ordinal, stream, version, type, payload, delta, source, id, user_id) FROM STDIN
"""
LINES = """
COPY (SELECT entry, ordinal, stream, version, type, payload, delta, source, id, user_id
      FROM ledger.event WHERE entry BETWEEN %s AND %s ORDER BY entry, ordinal) TO STDOUT
"""
# The register says at which version of its stream a command's event stands; the stream's name is asked
# for with the goods that the canceller names, so a purchase of other goods isn't found.
PURCHASES = """
SELECT e.source, e.id, w.goods_id, e.user_id, -e.delta, c.id IS NOT NULL
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS w (source, id, goods_id, stream)
JOIN ledger.processed_message p ON p.id = w.id AND p.source = w.source
JOIN ledger.event e ON e.stream = w.stream AND e.version = p.version AND e.id = p.id AND e.source = p.source
LEFT JOIN ledger.cancellation c ON c.id = w.id AND c.source = w.source
WHERE e.type = 'GoodsPurchased'
"""
# The journal names the entry, whose rows a block range index finds.
PLACE = "SELECT stream, version FROM ledger.events WHERE position = %s AND source = %s AND id = %s"


def line(entry: int, ordinal: int, place: Place, key: MessageKey, event: AnyEvent) -> str:
    """The event's row."""
    user_id = getattr(event, "user_id", "")
    row = (
        f"{entry}\t{ordinal}\t{place.stream}\t{place.version}\t{event.TYPE}\t{payload(event).decode()}\t"
        f"{event.stock_delta}\t{key.source}\t{key.id}\t{user_id}"
    )
    return f"{copy.visible(row)}{'' if user_id else copy.NULL}\n"


def find_purchases(conn: Connection, wanted: Sequence[tuple[MessageKey, str]]) -> dict[MessageKey, Purchase]:
    """Those of the wanted purchases (message key, goods) that were applied, and whether they are cancelled.

    Read it while holding the goods' stock rows: purchases and cancellations are written under their lock.
    """
    sources, ids, goods_ids = (
        [key.source for key, _ in wanted],
        [key.id for key, _ in wanted],
        [g for _, g in wanted],
    )
    rows = conn.execute(PURCHASES, (sources, ids, goods_ids, [stream(goods_id) for goods_id in goods_ids]))
    return {MessageKey(source, id_): Purchase(*purchase) for source, id_, *purchase in rows}


def place(conn: Connection, position: int, key: MessageKey) -> Place | None:
    """Where the event of the command stands that was applied at this position."""
    row = conn.execute(PLACE, (position, *key)).fetchone()
    return Place(*row) if row else None
