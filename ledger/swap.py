"""Change which generation is live. Nobody sees half of it.

One transaction locks the projection's rows and, for the inline `stock`, the head; applies the little that
came since the comparison; compares the rows that this touched; and moves the pointer. It holds these locks
for `LOCK_MAX_MS` at most, or gives up and tries again.

Batches that loaded the old generation of the stock can't seal any more (SL002): they retry from fresh reads.
"""

import time
from dataclasses import dataclass

from ledger import failpoints
from ledger.catch_up import REST_EVENTS, catch_up, live_of
from ledger.compare import compare, compared, require_equal
from ledger.errors import Contended
from ledger.follow import fold_range, in_transaction
from ledger.projections.projection import Projection, Range
from ledger.store import journal, session, spans
from ledger.store import projection as pointer
from ledger.store.database import Connection
from ledger.store.projection import Generation

LOCK_MAX_MS = 50
ATTEMPTS = 50


@dataclass(frozen=True)
class Swapped:
    """The generation that is live now, and for how long the swap held its locks."""

    live: int
    standby: int
    position: int
    lock_ms: float


def swap(
    conn: Connection, projection: Projection, number: int, status: str, *, compared_at: int | None
) -> Swapped:
    """Make the generation live and the live one a standby.

    With `compared_at`, where the two were compared, all that was touched since is compared, too.
    Raises ProjectionDiffers where it differs, Contended if the locks weren't to be had within the budget.
    """
    for attempt in range(ATTEMPTS):
        live = live_of(conn, projection)
        if compared_at is None:
            catch_up(conn, projection, live, number, status)
        else:
            comparison = compare(conn, projection, number, status, compared_at)
            require_equal(projection, comparison)
            compared_at = comparison.position
        try:
            return _try_swap(conn, projection, live, number, status, compared_at)
        except Contended:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(0.02 * (attempt + 1))
    raise AssertionError("unreachable")


def _try_swap(
    conn: Connection,
    projection: Projection,
    live: Generation,
    number: int,
    status: str,
    compared_at: int | None,
) -> Swapped:
    rest: list[Range] = []

    def locked() -> Swapped:
        pointer.lock(conn, projection.name)
        session.limit_statements(conn, LOCK_MAX_MS)
        if projection.inline:
            journal.lock_head(conn)  # no batch can seal from here to our commit
        begun = time.perf_counter()
        position = _apply_rest_once(conn, projection, live, number, status, rest)
        if compared_at is not None:
            found = compared(conn, projection, live.generation, number, compared_at, position)
            require_equal(projection, found)
        _move_pointer(conn, projection, live, number, status, position)
        failpoints.hit("rebuild.swap")
        lock_ms = (time.perf_counter() - begun) * 1000
        if lock_ms > LOCK_MAX_MS * 0.9:
            raise Contended(f"the swap would hold its locks for more than {LOCK_MAX_MS} ms")
        return Swapped(number, live.generation, position, lock_ms)

    swapped = in_transaction(conn, projection, number, rest, locked)
    failpoints.hit("rebuild.swapped")
    return swapped


def _apply_rest_once(
    conn: Connection, projection: Projection, live: Generation, number: int, status: str, rest: list[Range]
) -> int:
    now = {each.generation: each for each in pointer.generations(conn, projection.name)}
    if (now[live.generation].status, now[number].status) != ("live", status):
        raise Contended(f"{projection.name} was swapped by another one")
    at = now[number].position
    upto = spans.head(conn) if projection.inline else max(at, now[live.generation].position)
    if at < upto:
        span = spans.span(conn, at, upto, 2 * REST_EVENTS)
        if span is None or span.last != upto:
            raise Contended("too much came meanwhile")
        rest.append(Range(*span))
        fold_range(conn, projection, number, rest[0])
        pointer.move(conn, projection.name, number, span.first, span.last, [status])
    return upto


def _move_pointer(
    conn: Connection, projection: Projection, live: Generation, number: int, status: str, position: int
) -> None:
    name = projection.name
    if not pointer.set_status(conn, name, live.generation, was="live", now="standby"):
        raise Contended(f"{name} was swapped by another one")
    if not pointer.set_status(conn, name, number, was=status, now="live"):
        raise Contended(f"{name} was swapped by another one")
    if projection.inline:
        pointer.set_position(conn, name, live.generation, position)  # the batches kept it current up to here
        pointer.set_live_stock(conn, number)
