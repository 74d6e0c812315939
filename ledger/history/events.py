"""The events of a range of the journal, one after the other, also as CloudEvents; and on, as they come.

Reads only. Events come in (position, ordinal) order and none twice; what was read up to a position can be
gone on with from the next one. Memory holds a page of events, whatever the range. The connection must be in
autocommit: each page is a statement of its own, so no snapshot is held while somebody is slow to take them.
"""

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

from ledger.domain.envelope import JSON_TYPE, SPEC_VERSION, TYPE_PREFIX, TYPE_VERSION
from ledger.domain.events import AnyEvent, payload
from ledger.domain.upcast import are_current, load
from ledger.errors import UnreadableEvent
from ledger.store.connection.database import Connection, faults
from ledger.store.reads import history
from ledger.store.reads.columns import EventColumns
from ledger.store.reads.history import Piece, StoredEvent, Wanted
from ledger.store.tables import identity

POLL_INTERVAL_S = 0.2
SOURCE = "/stockledger"


class Window(NamedTuple):
    """Which positions: `first` to `last` (None: the end), recorded from `since` on and before `until`.

    `tokens` say of which history: it is proved before any event is read.
    """

    first: int = 1
    last: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    tokens: tuple[str, ...] = ()


def event(stored: StoredEvent) -> AnyEvent:
    """What happened, in today's shape. Raises UnreadableEvent naming position, stream and type."""
    try:
        return load(stored.type, stored.payload)
    except ValueError as error:
        where = (
            f"position {stored.position}, ordinal {stored.ordinal} ({stored.stream} version {stored.version})"
        )
        raise UnreadableEvent(
            f"the event {stored.type} at {where} can't be read: {error}",
            position=stored.position,
            type=stored.type,
            remedy="use the version of stockledger that wrote it; if this is it, stockledger verify",
        ) from error


def of_today(stored: EventColumns) -> EventColumns:
    """The same events as `event` makes them: types and payloads in today's shape. Raises UnreadableEvent."""
    types, payloads = stored.types.copy(), stored.payloads.copy()
    numbers: dict[bytes, list[int]] = {}
    for number, type in enumerate(types):
        numbers.setdefault(type, []).append(number)
    for type, some in numbers.items():
        if not are_current(type.decode(), [payloads[number] for number in some]):
            for number in some:
                happened = event(stored.stored(number))
                types[number], payloads[number] = happened.TYPE.encode(), payload(happened)
    return stored._replace(types=types, payloads=payloads)


def replay(
    conn: Connection, within: Window, wanted: Wanted, wait: Callable[[float], bool] | None = None
) -> Iterator[Piece]:
    """The wanted events within the window, piece by piece, up to the end of the journal as it is now.

    With `wait` it goes on with what is committed later: `wait(seconds)` returns after that time at the
    latest, and says whether to go on. Each time it proves first that the end which it knew is still of this
    history; a piece has the token, for whoever goes on over another connection. Raises ValueError for a time
    without an offset from UTC, HistoryChanged for a token of another history, Unavailable on a standby that
    has yet to hear of one.
    """
    known = within.tokens
    with faults():
        first = within.first
        if within.since:
            first = max(first, history.last_recorded(conn, within.since, before=True) + 1)
        first = max(first, 1)
    while True:
        with faults():
            # Also after a pause, and beside the end itself: a restore in between brings positions back with
            # other content, which would be taken for what comes next.
            token = history.end(conn, known)
            end, over = _end(conn, within, token.position)
        known = (str(token),)
        pieces = history.events(conn, first, end, wanted)
        while piece := _next(pieces):
            yield piece._replace(end=known[0])
        first = max(first, end + 1)
        yield Piece([], first, known[0])
        if over or wait is None or not wait(POLL_INTERVAL_S):
            return


def _next(pieces: Iterator[Piece]) -> Piece | None:
    with faults():  # around the reading alone: what the caller does with a piece is no fault of the database
        return next(pieces, None)


def _end(conn: Connection, within: Window, end: int) -> tuple[int, bool]:
    """The last position of the window in a journal that ends there, and whether nothing can come after it."""
    over = False
    if within.until:
        last = history.last_recorded(conn, within.until, before=True)
        end, over = min(end, last), last < end
    if within.last is not None and end >= within.last:
        end, over = within.last, True
    return end, over


def source(conn: Connection) -> str:
    """The `source` of this ledger's events: its group and cluster, which are its own for good."""
    with faults():
        group, cluster_id = identity.read(conn)
    if group is None or cluster_id is None:  # no worker has been here yet
        return SOURCE
    return f"{SOURCE}/{quote(cluster_id, safe='')}/{quote(group, safe='')}"


def cloud_event(stored: StoredEvent, source: str) -> str:
    """The event as a line of JSON: a CloudEvent in structured mode. Raises UnreadableEvent.

    `id` is `<position>.<ordinal>`: an event's place, which no other one has and which never changes.
    What can't be printed is escaped as JSON has it: lines are read on terminals, too.
    Extensions: `position`, `ordinal`, `version`; `causationsource` and `causationid` name the command.
    Source: CloudEvents 1.0.2, "JSON Event Format", section 3.
    """
    happened = event(stored)
    head = json.dumps(attributes(stored, happened, source), ensure_ascii=False, separators=(",", ":"))
    line = f'{head[:-1]},"data":{payload(happened).decode()}}}'
    return f"{line if line.isprintable() else _escaped(line)}\n"


def attributes(stored: StoredEvent, happened: AnyEvent, source: str) -> dict[str, str | int]:
    """The CloudEvent's attributes by name, in the order in which they are written."""
    return {
        "specversion": SPEC_VERSION,
        "id": f"{stored.position}.{stored.ordinal}",
        "source": source,
        "type": f"{TYPE_PREFIX}{happened.TYPE}{TYPE_VERSION}",
        "subject": stored.stream,
        "time": attribute_time(stored.recorded_at),
        "datacontenttype": JSON_TYPE,
        "position": stored.position,
        "ordinal": stored.ordinal,
        "version": stored.version,
        "causationsource": stored.source,
        "causationid": stored.id,
    }


@lru_cache(maxsize=16)  # all of an entry have one
def attribute_time(recorded_at: datetime) -> str:
    """As CloudEvents have it: RFC 3339, in UTC."""
    return recorded_at.isoformat().replace("+00:00", "Z")


def _escaped(line: str) -> str:
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)
