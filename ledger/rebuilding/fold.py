"""A range folded into a generation, in a transaction; what fails is told apart.

An event that can't be applied is named: its range is halved, in a transaction that is rolled back, until one
event is left. What no event is at fault for, a table, a right, the code, is the projection's own fault.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from ledger import failpoints
from ledger.errors import LedgerError, Park, ProjectionBroken, ProjectionFault, Retry
from ledger.projections.projection import Projection, origin
from ledger.store.connection.database import Connection, faults, in_a_transaction, rolled_back, transaction
from ledger.store.connection.sqlstates import driver_error
from ledger.store.reads import ranges
from ledger.store.reads.ranges import EventPlace, Range

T = TypeVar("T")


def fold_range(conn: Connection, projection: Projection, generation: int, events: Range) -> None:
    """Apply the range, inside the caller's transaction; every event of it must be accounted for.

    A type that is unknown to the projection, or an event that is missing, is never passed over in silence.
    """
    understood = projection.apply(conn, generation, events)
    if not in_a_transaction(conn):
        raise broken(projection, RuntimeError("`apply` ended the transaction, which isn't its own"))
    if understood != events.events:
        raise _Unaccounted(
            f"{understood} of {events.events} events were understood", remedy="stockledger verify"
        )


def in_transaction(
    conn: Connection, projection: Projection, generation: int, ranges: Sequence[Range], work: Callable[[], T]
) -> T:
    """Run `work` in a transaction. What a fold of the last of its ranges raises is told apart: an event that
    can't be applied is named (ProjectionFault), a table or code at fault is, too (ProjectionBroken).

    (`work` may add to the ranges as it goes.)
    """
    try:
        with transaction(conn):
            return work()
    except failpoints.Injected:
        raise
    except (Exception, SystemExit) as error:  # a projection may be anybody's code
        if not ranges:
            raise
        if _may_be_an_events(error):
            raise _blame(conn, projection, generation, ranges[-1], error) from error
        if isinstance(error, Retry) or not driver_error(error)[0]:
            raise
        raise broken(projection, error) from error


def broken(projection: Projection, error: BaseException) -> ProjectionBroken:
    """The fault that is the projection's own: of its code, its table, or the server's with its table."""
    state, _, words = driver_error(error)
    said = f"{words} (SQLSTATE {state})" if state else repr(error)
    return ProjectionBroken(
        f"{projection.name} ({origin(projection)}) can't be written: {said}. No event is at fault: its "
        "checkpoint stays, and the other projections go on",
        remedy=f"correct that, then: stockledger project {projection.name}",
    )


def _may_be_an_events(error: BaseException) -> bool:
    """Whether another event might have been applied: its value, a constraint, or code that met it.

    Not what the server says of a table, a column or a right, whichever event is there.
    """
    if isinstance(error, Park | _Unaccounted):
        return True
    state, constraint, _ = driver_error(error)
    if state:
        return state.startswith("23") and bool(constraint)
    return not isinstance(error, LedgerError)


class _Unaccounted(LedgerError):
    """The projection understood another number of events than the journal has."""


def _blame(
    conn: Connection, projection: Projection, generation: int, events: Range, cause: BaseException
) -> LedgerError:
    """Find the event by halving the range, in a transaction that is rolled back."""
    with faults(), rolled_back(conn):
        try:
            places = ranges.places(conn, events)
            found = _first_broken(conn, projection, generation, events, places)
        except LedgerError as error:
            return error if isinstance(error, Retry) else broken(projection, error)
    if len(places) != events.events:
        lost = (
            f"positions {events.first} to {events.last} have {len(places)} events, "
            f"the journal says {events.events}"
        )
        return ProjectionFault(lost, position=events.first, remedy="stockledger verify")
    if found is None:
        return cause if isinstance(cause, Retry) else broken(projection, cause)
    why = cause.message if isinstance(cause, LedgerError) else repr(cause)
    if isinstance(cause, _Unaccounted):
        why = "its type is unknown to this version of the projection"
    return ProjectionFault(
        f"{projection.name} ({origin(projection)}) can't apply the event at position {found.position}, "
        f"ordinal {found.ordinal}: {found.type} of {found.stream}: {why}",
        position=found.position,
        stream=found.stream,
        type=found.type,
        remedy=f"stockledger replay --from {found.position} --to {found.position}",
    )


def _first_broken(
    conn: Connection, projection: Projection, generation: int, events: Range, places: list[EventPlace]
) -> EventPlace | None:
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
    conn: Connection, projection: Projection, generation: int, events: Range, places: list[EventPlace]
) -> bool:
    try:
        with faults(), conn.transaction():  # a savepoint
            for part in _parts(events, places):
                fold_range(conn, projection, generation, part)
    except (Exception, SystemExit) as error:
        if isinstance(error, LedgerError) and not _may_be_an_events(error):
            raise
        return False
    return True


def _parts(events: Range, places: list[EventPlace]) -> list[Range]:
    """The places as ranges: only the first and the last position of consecutive places may be cut."""
    at = [place.position for place in places]
    if at[0] == at[-1]:
        return [_part(events, places)]
    tail = at.index(at[-1])
    head = at.index(next(position for position in at if position != at[0]))
    parts = [places[:head], places[head:tail], places[tail:]]
    return [_part(events, part) for part in parts if part]


def _part(events: Range, places: list[EventPlace]) -> Range:
    cut = places[0].position == places[-1].position
    return events._replace(
        first=places[0].position,
        last=places[-1].position,
        events=len(places),
        first_ordinal=places[0].ordinal if cut else events.first_ordinal,
        last_ordinal=places[-1].ordinal if cut else events.last_ordinal,
    )
