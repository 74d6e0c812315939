"""Compare a generation with the live one, and make it live. Nobody sees half of it.

*Compare*: one REPEATABLE READ transaction, beside the workers, folds what lies between the two, so that both
stand at one position; then it compares all rows, or those that a range touched. The first ones that differ
are told, by key.

*Swap*: one transaction locks the projection's rows and, for the inline `stock`, the head; folds the little
that came since the comparison; compares the rows that this touched; and moves the pointer. It holds these
locks for `LOCK_MAX_MS` at most, or gives up and tries again.

Batches that loaded the old generation of the stock can't seal any more (LG002): they retry from fresh reads.
"""

import time
from dataclasses import dataclass, field

from ledger import failpoints
from ledger.errors import Contended, ProjectionDiffers
from ledger.projections.projection import Projection
from ledger.rebuilding.create import publish
from ledger.rebuilding.fold import fold_range, in_transaction
from ledger.rebuilding.follow import REST_EVENTS, ROUND_EVENTS, catch_up, moving
from ledger.store.connection import session
from ledger.store.connection.database import Connection
from ledger.store.reads import ranges
from ledger.store.reads.ranges import Range
from ledger.store.tables import journal, partitions, projection_state
from ledger.store.tables.partitions import RowDifference, Shape
from ledger.store.tables.projection_state import Generation

LOCK_MAX_MS = 50
ATTEMPTS = 50
EVENTS_MAX = 2**62
SHOWN_MAX = 5


@dataclass(frozen=True)
class Comparison:
    """How many rows the two generations were compared by, at which position, and the first that differ."""

    rows: int
    position: int
    differences: list[RowDifference] = field(default_factory=list)


def compare_with_live(
    conn: Connection, projection: Projection, number: int, status: str, since: int | None = None
) -> Comparison:
    """Bring the generation to the live one's position and compare them there, in one snapshot.

    It compares all rows; or, with `since`, those that the journal after that position touched.
    """
    live = projection_state.live(conn, projection.name)
    catch_up(conn, projection, live, number, status)
    failpoints.hit("rebuild.compare")
    rest: list[Range] = []

    def in_snapshot() -> Comparison:
        session.keep_snapshot(conn)
        position = _fold_rest(conn, projection, live.generation, number, status, rest)
        return _compare_here(conn, projection, live.generation, number, since, position)

    comparison = in_transaction(conn, projection, number, rest, in_snapshot)
    failpoints.hit("rebuild.compared")
    return comparison


def _compare_here(
    conn: Connection, projection: Projection, live: int, number: int, since: int | None, position: int
) -> Comparison:
    """The comparison itself, in the caller's transaction, where both generations stand at `position`."""
    if since == position:
        return Comparison(0, position)
    touched = ranges.next_range(conn, since, position, EVENTS_MAX) if since is not None else None
    if touched and touched.last != position:
        touched = None
    shape = Shape(projection.table, projection.key, projection.keys if touched else None)
    parameters = touched.parameters(number) if touched else None
    rows, differences = partitions.compare_generations(conn, shape, live, number, SHOWN_MAX, parameters)
    return Comparison(rows, position, differences)


def require_equal(projection: Projection, comparison: Comparison) -> None:
    """Raises ProjectionDiffers unless all rows are the same."""
    if comparison.differences:
        raise differs(projection, comparison)


def differs(projection: Projection, comparison: Comparison) -> ProjectionDiffers:
    """The fault that says which rows differ first."""
    lines = "; ".join(map(str, comparison.differences))
    return ProjectionDiffers(
        f"{projection.name}: the rebuilt generation differs from the live one at position "
        f"{comparison.position}: {lines}. Nothing was swapped",
        remedy="stockledger verify",
    )


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
        live = projection_state.live(conn, projection.name)
        if compared_at is None:
            catch_up(conn, projection, live, number, status)
        else:
            comparison = compare_with_live(conn, projection, number, status, compared_at)
            require_equal(projection, comparison)
            compared_at = comparison.position
        try:
            return _try_swap(conn, projection, live, number, status, compared_at)
        except Contended as lost:
            if attempt == ATTEMPTS - 1:
                raise _not_in_time(projection, status, lost) from lost
            time.sleep(0.02 * (attempt + 1))
    raise AssertionError("unreachable")


def _not_in_time(projection: Projection, status: str, lost: Contended) -> Contended:
    how = "--rollback" if status == "standby" else "--yes"
    return Contended(
        f"{projection.name} couldn't be swapped within {LOCK_MAX_MS} ms, in {ATTEMPTS} tries: "
        f"{lost.message}. Nothing was swapped; what was built is kept",
        sqlstate=lost.sqlstate,
        remedy=f"stockledger rebuild {projection.name} {how}",
    )


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
        projection_state.lock(conn, projection.name)
        session.limit_statements(conn, LOCK_MAX_MS)
        if projection.inline:
            journal.lock_head(conn)  # no batch can seal from here to our commit
        begun = time.perf_counter()
        position = _fold_rest(
            conn, projection, live.generation, number, status, rest, events_max=2 * REST_EVENTS
        )
        if compared_at is not None:
            found = _compare_here(conn, projection, live.generation, number, compared_at, position)
            require_equal(projection, found)
        _move_pointer(conn, projection, live, number, status, position)
        if projection.ddl and live.version != projection.version:
            publish(conn, projection)
        failpoints.hit("rebuild.swap")
        lock_ms = (time.perf_counter() - begun) * 1000
        if lock_ms > LOCK_MAX_MS * 0.9:
            raise Contended(f"the swap would hold its locks for more than {LOCK_MAX_MS} ms")
        return Swapped(number, live.generation, position, lock_ms)

    swapped = in_transaction(conn, projection, number, rest, locked)
    failpoints.hit("rebuild.swapped")
    return swapped


def _fold_rest(
    conn: Connection,
    projection: Projection,
    live: int,
    number: int,
    status: str,
    rest: list[Range],
    *,
    events_max: int | None = None,
) -> int:
    """Fold what lies between the generation and the live one, in the caller's transaction; both then stand at
    the position that is returned. Raises Contended where that is more than `events_max` events.
    """
    shown, other = _both(conn, projection, live, number, status)
    at = other.position
    upto = max(at, ranges.head(conn) if projection.inline else shown.position)
    while at < upto and (found := ranges.next_range(conn, at, upto, events_max or ROUND_EVENTS)):
        if events_max and found.last != upto:
            break
        rest.append(found)
        fold_range(conn, projection, number, found)
        projection_state.move(conn, moving(projection, number, [status]), found.first, found.last)
        at = found.last
    if events_max and at < upto:
        raise Contended("more events came meanwhile than may be folded under the locks")
    return upto


def _both(
    conn: Connection, projection: Projection, live: int, number: int, status: str
) -> tuple[Generation, Generation]:
    """The live generation and the other one, as the transaction sees them.

    Raises Contended if they aren't what they were: a swap or a cancellation came between.
    """
    now = {each.generation: each for each in projection_state.generations(conn, projection.name)}
    found = now.get(live), now.get(number)
    if found[0] and found[1] and (found[0].status, found[1].status) == ("live", status):
        return found[0], found[1]
    raise Contended(f"{projection.name} was swapped, or its rebuild ended, by another one")


def _move_pointer(
    conn: Connection, projection: Projection, live: Generation, number: int, status: str, position: int
) -> None:
    name = projection.name
    if not projection_state.set_status(conn, name, live.generation, was="live", now="standby"):
        raise Contended(f"{name} was swapped by another one")
    if not projection_state.set_status(conn, name, number, was=status, now="live"):
        raise Contended(f"{name} was swapped by another one")
    if projection.inline:
        # The batches kept it current up to here.
        projection_state.set_position(conn, name, live.generation, position)
        projection_state.set_live_stock(conn, number)
