"""Compare two generations at one position, and change which one is live. Nobody sees half of it.

The whole comparison happens in one snapshot, beside the workers. Then a transaction locks the projection's
rows and, for the inline `stock`, the head; applies the little that came since; compares the rows that this
touched; and moves the pointer. It holds these locks for `LOCK_MAX_MS` at most, or gives up and tries again.

Batches that loaded the old generation of the stock can't seal any more (SL002): they retry from fresh reads.
"""

import time
from contextlib import suppress
from dataclasses import dataclass, field

from ledger import failpoints
from ledger.errors import Contended, ProjectionDiffers, ProjectionRefused
from ledger.follow import advance, fold_range, follows, in_transaction
from ledger.projections.projection import Projection, Range
from ledger.store import generation as tables
from ledger.store import journal
from ledger.store import projection as pointer
from ledger.store.database import Connection, faults
from ledger.store.generation import Difference, Shape
from ledger.store.projection import Generation

LOCK_MAX_MS = 50
REST_EVENTS = 5_000
"""What the last round before the lock may apply."""
EVENTS_MAX = 2**62
ATTEMPTS = 50
SHOWN_MAX = 5
CHUNK_EVENTS = 200_000


@dataclass(frozen=True)
class Comparison:
    """How many rows the two generations were compared by, at which position, and the first that differ."""

    rows: int
    position: int
    differences: list[Difference] = field(default_factory=list)


@dataclass(frozen=True)
class Swapped:
    """The generation that is live now, and for how long the swap held its locks."""

    live: int
    standby: int
    position: int
    lock_ms: float


def find(conn: Connection, projection: Projection, number: int) -> Generation:
    """The generation as it is now. Raises ProjectionRefused if it is gone."""
    with faults():
        for each in pointer.generations(conn, projection.name):
            if each.generation == number:
                return each
    raise ProjectionRefused(f"generation {number} of {projection.name} was removed meanwhile")


def live_of(conn: Connection, projection: Projection) -> Generation:
    """The live generation. Raises ProjectionRefused if the projection isn't known here yet."""
    with faults():
        for each in pointer.generations(conn, projection.name):
            if each.status == "live":
                return each
    remedy = f"stockledger project {projection.name} --until-caught-up"
    raise ProjectionRefused(f"{projection.name} was never built here", remedy=remedy)


def goal(conn: Connection, projection: Projection, live: Generation) -> int:
    """Up to which position another generation may be brought to be compared with the live one.

    That is the head where batches write the live one; else where the live one is, once it was brought on.
    """
    if live.inline or not follows(projection, live):
        with faults():
            return pointer.head(conn)
    while True:
        step = advance(conn, projection, live.generation, events=CHUNK_EVENTS)
        if step.busy:
            time.sleep(0.01)  # a projector is at it
        elif step.applied is None:
            return find(conn, projection, live.generation).position


def catch_up(conn: Connection, projection: Projection, live: Generation, number: int, status: str) -> None:
    """Bring the generation to where it can be compared with the live one, but for what comes meanwhile.

    The last round applies `REST_EVENTS` at most, so little comes while it lasts: that is left for the lock.
    """
    with suppress(Contended), faults():  # a vacuum that is at it does the same
        pointer.summarize(conn)
    while True:
        upto = goal(conn, projection, live)
        at = find(conn, projection, number).position
        with faults():
            left = pointer.events_between(conn, at, upto)
        while at < upto:
            step = advance(conn, projection, number, upto=upto, events=CHUNK_EVENTS, statuses=[status])
            at = find(conn, projection, number).position
            if step.busy:
                time.sleep(0.01)  # a projector is at it
        if left <= REST_EVENTS:
            return


def compare(
    conn: Connection, projection: Projection, number: int, status: str, since: int | None = None
) -> Comparison:
    """Bring the generation to the live one's position and compare them there, in one snapshot.

    All rows; or, with `since`, those that the journal behind that position touched.
    """
    live = live_of(conn, projection)
    catch_up(conn, projection, live, number, status)
    failpoints.hit("rebuild.compare")
    rest: list[Range] = []

    def in_snapshot() -> Comparison:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        position = _apply_rest(conn, projection, live.generation, number, status, rest)
        return _compared(conn, projection, live.generation, number, since, position)

    comparison = in_transaction(conn, projection, number, rest, in_snapshot)
    failpoints.hit("rebuild.compared")
    return comparison


def _compared(
    conn: Connection, projection: Projection, live: int, number: int, since: int | None, position: int
) -> Comparison:
    if since == position:
        return Comparison(0, position)
    touched = pointer.span(conn, since, position, EVENTS_MAX) if since is not None else None
    if touched and touched.last != position:
        touched = None
    shape = Shape(projection.table, projection.key, projection.keys if touched else None)
    parameters = Range(*touched).parameters(number) if touched else None
    rows, differences = tables.compare(conn, shape, live, number, SHOWN_MAX, parameters)
    return Comparison(rows, position, differences)


def _apply_rest(
    conn: Connection, projection: Projection, live: int, number: int, status: str, rest: list[Range]
) -> int:
    """Apply what lies between the generation and the live one in this snapshot; returns the position."""
    generations = {each.generation: each for each in pointer.generations(conn, projection.name)}
    upto = pointer.head(conn) if projection.inline else generations[live].position
    at = generations[number].position
    while at < upto and (span := pointer.span(conn, at, upto, CHUNK_EVENTS)):
        rest.append(Range(*span))
        fold_range(conn, projection, number, rest[-1])
        pointer.move(conn, projection.name, number, span.first, span.last, [status])
        at = span.last
    return max(at, upto)


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
            _require_equal(projection, comparison)
            compared_at = comparison.position
        try:
            return _try_swap(conn, projection, live, number, status, compared_at)
        except Contended:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(0.02 * (attempt + 1))
    raise AssertionError("unreachable")


def _require_equal(projection: Projection, comparison: Comparison) -> None:
    if comparison.differences:
        raise differ(projection, comparison)


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
        conn.execute(pointer.SWAP_BUDGET, (str(LOCK_MAX_MS),))
        if projection.inline:
            journal.lock_head(conn)  # no batch can seal from here to our commit
        begun = time.perf_counter()
        position = _apply_rest_once(conn, projection, live, number, status, rest)
        if compared_at is not None:
            found = _compared(conn, projection, live.generation, number, compared_at, position)
            _require_equal(projection, found)
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
    upto = pointer.head(conn) if projection.inline else max(at, now[live.generation].position)
    if at < upto:
        span = pointer.span(conn, at, upto, 2 * REST_EVENTS)
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


def differ(projection: Projection, comparison: Comparison) -> ProjectionDiffers:
    """The fault that says which rows differ first."""
    lines = "; ".join(map(str_of, comparison.differences))
    return ProjectionDiffers(
        f"{projection.name}: the rebuilt generation differs from the live one at position "
        f"{comparison.position}: {lines}. Nothing was swapped",
        remedy="`stockledger verify` says who is right; then again with --accept-differences, or --cancel",
    )


def str_of(difference: Difference) -> str:
    """The row as a line: what the live one has, and what the rebuilt one has."""
    key = ", ".join(str(value) for value in difference.key.values())
    if difference.live is None or difference.rebuilt is None:
        side, row = ("rebuilt", difference.rebuilt) if difference.live is None else ("live", difference.live)
        return f"{key}: only {side} has {_values(row or {})}"
    changed = {name for name in difference.live if difference.live[name] != difference.rebuilt[name]}
    live = {name: value for name, value in difference.live.items() if name in changed}
    rebuilt = {name: value for name, value in difference.rebuilt.items() if name in changed}
    return f"{key}: live {_values(live)}, rebuilt {_values(rebuilt)}"


def _values(row: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in row.items())
