"""Following: what the journal says behind a generation's checkpoint is applied to it, range by range.

A range and the checkpoint's move over it are one transaction, begun by holding the generation's row, so
several projectors may run: one works, the others pass by. The checkpoint moves by compare-and-set all the
same. The one code path for following and rebuilding is `apply`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ledger import failpoints
from ledger.errors import Defect, LedgerError, Park, ProjectionFault, Retry
from ledger.projections.projection import Projection, Range
from ledger.store import generation as tables
from ledger.store import migrate, spans
from ledger.store import projection as pointer
from ledger.store.database import Connection, faults, rollback, transaction
from ledger.store.projection import Generation
from ledger.store.spans import Broken

T = TypeVar("T")

FOLLOWED = ["live", "standby"]
RANGE_EVENTS = 100_000
"""About how many events a transaction applies; an entry is never cut."""
FILLFACTOR = 90
FILLFACTOR_INLINE = 50  # batches update it in place


@dataclass(frozen=True)
class Step:
    """What one look at a generation came to: the range applied, or None and whether another one is at it."""

    applied: Range | None
    busy: bool = False


def follow_once(conn: Connection, projection: Projection) -> list[Step]:
    """One range for each generation that this build can follow. The connection must be in autocommit.

    Raises ProjectionFault where an event can't be applied; what was applied before it stays.
    """
    with faults():
        found = pointer.generations(conn, projection.name)
    return [advance(conn, projection, each.generation) for each in found if follows(projection, each)]


def follows(projection: Projection, generation: Generation) -> bool:
    """Whether a projector moves it: not while the batches write it, nor if another version made it."""
    by_batches = projection.inline and generation.status == "live"
    return generation.status in FOLLOWED and not by_batches and generation.version == projection.version


def advance(
    conn: Connection,
    projection: Projection,
    generation: int,
    *,
    upto: int | None = None,
    events: int = RANGE_EVENTS,
    statuses: Sequence[str] = FOLLOWED,
) -> Step:
    """Apply the next range to the generation, in a transaction of its own."""
    with faults():
        at = pointer.position(conn, projection.name, generation, list(statuses))
        span = spans.span(conn, at, spans.head(conn) if upto is None else upto, events)
    if span is None:
        return Step(None)
    applied = apply(conn, projection, generation, Range(*span), statuses)
    return Step(applied, busy=applied is None)


def apply(
    conn: Connection, projection: Projection, generation: int, events: Range, statuses: Sequence[str]
) -> Range | None:
    """Apply the range and move the checkpoint over it, in one transaction. None: another one holds it.

    Raises ProjectionFault naming the event that can't be applied; nothing of the range is then.
    """

    def fold() -> bool:
        if pointer.hold(conn, projection.name, generation, list(statuses)) != events.first - 1:
            return False
        fold_range(conn, projection, generation, events)
        failpoints.hit("follow.applied")
        pointer.move(conn, projection.name, generation, events.first, events.last, list(statuses))
        return True

    return events if in_transaction(conn, projection, generation, [events], fold) else None


def in_transaction(
    conn: Connection, projection: Projection, generation: int, ranges: Sequence[Range], work: Callable[[], T]
) -> T:
    """Run `work` in a transaction; an event of the last of its ranges that can't be applied is named.

    (`work` may add to the ranges as it goes.)
    """
    try:
        with transaction(conn):
            return work()
    except LedgerError as error:
        if not ranges or not isinstance(error, Park | Defect | _Unaccounted):
            raise
        raise _blame(conn, projection, generation, ranges[-1], error) from error
    except failpoints.Injected:
        raise
    except Exception as error:
        if not ranges:
            raise
        raise _blame(conn, projection, generation, ranges[-1], error) from error


class _Unaccounted(LedgerError):
    """The projection understood another number of events than the journal has."""


def fold_range(conn: Connection, projection: Projection, generation: int, events: Range) -> None:
    """Apply the range, inside the caller's transaction; every event of it must be accounted for.

    A type that is unknown to the projection, or an event that is missing, is never passed over in silence.
    """
    understood = projection.apply(conn, generation, events)
    if understood != events.events:
        raise _Unaccounted(f"{understood} of {events.events} events were understood")


def ensure(conn: Connection, projection: Projection) -> None:
    """Make the projection's tables and first generation, unless it is known. Needs the database's owner."""
    with faults():
        if pointer.generations(conn, projection.name):
            return
    with transaction(conn):
        conn.execute(migrate.LOCK, (migrate.ADVISORY_LOCK,))  # schema changes one after the other
        if pointer.generations(conn, projection.name):
            return
        if projection.ddl:
            conn.execute(projection.ddl)
        first = pointer.begin(conn, projection.name, projection.version, "live", inline=False)
        tables.make(conn, projection.table, first, FILLFACTOR)
        tables.add_key(conn, projection.table, first, projection.key)
        tables.publish(conn, projection.name, projection.table)


def _blame(
    conn: Connection, projection: Projection, generation: int, events: Range, cause: Exception
) -> LedgerError:
    """Find the event by halving the range, in a transaction that is rolled back."""
    with faults():
        conn.execute("BEGIN")
        try:
            places = spans.places(conn, events.parameters(0))
            broken = _first_broken(conn, projection, generation, events, places)
        except Retry as error:
            return error
        finally:
            rollback(conn)
    if len(places) != events.events:
        lost = (
            f"positions {events.first} to {events.last} have {len(places)} events, "
            f"the journal says {events.events}"
        )
        return ProjectionFault(lost, position=events.first, remedy="stockledger verify")
    if broken is None:
        return cause if isinstance(cause, LedgerError) else Defect(f"{projection.name}: {cause!r}")
    why = cause.message if isinstance(cause, LedgerError) else repr(cause)
    if isinstance(cause, _Unaccounted):
        why = "its type is unknown to this version of the projection"
    return ProjectionFault(
        f"{projection.name} can't apply the event at position {broken.position}, ordinal {broken.ordinal}: "
        f"{broken.type} of {broken.stream}: {why}",
        position=broken.position,
        stream=broken.stream,
        type=broken.type,
        remedy=f"look at it (stockledger replay --from {broken.position}), then correct the projection",
    )


def _first_broken(
    conn: Connection, projection: Projection, generation: int, events: Range, places: list[Broken]
) -> Broken | None:
    low, high = 0, len(places)  # it is one of places[low:high]; those before `low` are applied
    while high - low > 1:
        middle = (low + high) // 2
        if _applies(conn, projection, generation, events, places[low:middle]):
            low = middle
        else:
            high = middle
    if not places or _applies(conn, projection, generation, events, places[low:high]):
        return None
    return places[low]


def _applies(
    conn: Connection, projection: Projection, generation: int, events: Range, places: list[Broken]
) -> bool:
    try:
        with faults(), conn.transaction():  # a savepoint
            for part in _parts(events, places):
                fold_range(conn, projection, generation, part)
    except Retry:
        raise
    except Exception:  # noqa: BLE001 (a projection may be anybody's code)
        return False
    return True


def _parts(events: Range, places: list[Broken]) -> list[Range]:
    """The places as ranges: only the first and the last position of consecutive places may be cut."""
    at = [place.position for place in places]
    if at[0] == at[-1]:
        return [_part(events, places)]
    tail = at.index(at[-1])
    head = at.index(next(position for position in at if position != at[0]))
    parts = [places[:head], places[head:tail], places[tail:]]
    return [_part(events, part) for part in parts if part]


def _part(events: Range, places: list[Broken]) -> Range:
    cut = places[0].position == places[-1].position
    return events._replace(
        first=places[0].position,
        last=places[-1].position,
        events=len(places),
        first_ordinal=places[0].ordinal if cut else events.first_ordinal,
        last_ordinal=places[-1].ordinal if cut else events.last_ordinal,
    )
