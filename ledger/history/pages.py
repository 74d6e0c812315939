"""The past in pages: for who asks over a network, a part at a time, and goes on where the last page ended.

A page is a few short statements, each as of its own moment: what is committed at a position never changes.
The caller's connection is in autocommit.
"""

from collections.abc import Sequence
from typing import NamedTuple

from ledger.domain.goods import goods_stream
from ledger.domain.token import AnyPosition, position_of
from ledger.history import events
from ledger.store.connection.database import Connection
from ledger.store.reads import buyers, history
from ledger.store.reads.buyers import Bought
from ledger.store.reads.history import StoredEvent, Wanted


class EventPage(NamedTuple):
    """Events in their order, whose they are, and the token of the journal's end.

    `more`: there are others after the last one here.
    """

    events: list[StoredEvent]
    source: str
    token: str
    more: bool


class PurchasePage(NamedTuple):
    """Purchases in journal order; `next` is the place from which to go on, None at the end."""

    purchases: list[Bought]
    next: tuple[int, int] | None


def of_journal(
    conn: Connection, after: AnyPosition, ordinal: int | None, limit: int, known: Sequence[str] = ()
) -> EventPage:
    """The events after this ordinal of the position, or after all of it (None).

    A token proves its history, and so do those that are `known`. Raises HistoryChanged, and ValueError for a
    text that is no token.
    """
    end = history.end(conn, [*known, *([after] if isinstance(after, str) else [])])
    position = position_of(after)
    first = position + 1 if ordinal is None else position
    found: list[StoredEvent] = []
    for piece in history.events(conn, max(first, 1), end.position, Wanted(), limit + 1):
        found += [
            each
            for each in piece.events
            if ordinal is None or (each.position, each.ordinal) > (position, ordinal)
        ]
        if len(found) > limit:
            break
    return EventPage(found[:limit], events.source(conn), str(end), len(found) > limit)


def version_at(conn: Connection, goods_id: str, place: tuple[int, int]) -> int:
    """The version of the goods after all that came up to this place; 0 if nothing did."""
    return history.version_at(conn, goods_stream(goods_id), *place)


def of_goods(
    conn: Connection, goods_id: str, after_version: int, limit: int, known: Sequence[str] = ()
) -> EventPage:
    """The events of the goods after this version. Raises HistoryChanged."""
    end = history.end(conn, known)
    found = history.of_stream(conn, goods_stream(goods_id), after_version, end.position, limit + 1)
    return EventPage(found[:limit], events.source(conn), str(end), len(found) > limit)


def of_user(conn: Connection, user_id: str, after: tuple[int, int], limit: int) -> PurchasePage:
    """What the user bought after this place, as far as the projection `user_events` has come."""
    places, bought = buyers.purchases(conn, user_id, after, limit)
    return PurchasePage(bought, places[-1] if len(places) == limit else None)


def latest_of_user(conn: Connection, user_id: str, before: tuple[int, int], limit: int) -> PurchasePage:
    """What the user bought before this place, the newest first, as far as `user_events` has come."""
    places, bought = buyers.latest(conn, user_id, before, limit)
    return PurchasePage(bought, places[-1] if len(places) == limit else None)
