"""Compare a generation with the live one: all rows in one snapshot, or those that a range touched.

In one REPEATABLE READ transaction, beside the workers, what lies between the two is applied, so that both
stand at one position; then the rows are compared. Of those that differ the first ones are told, by key.
"""

from dataclasses import dataclass, field

from ledger import failpoints
from ledger.catch_up import CHUNK_EVENTS, catch_up, live_of
from ledger.errors import ProjectionDiffers
from ledger.follow import fold_range, in_transaction
from ledger.projections.projection import Projection, Range
from ledger.store import generation as tables
from ledger.store import projection as pointer
from ledger.store import spans
from ledger.store.database import Connection
from ledger.store.generation import Difference, Shape

EVENTS_MAX = 2**62
SHOWN_MAX = 5


@dataclass(frozen=True)
class Comparison:
    """How many rows the two generations were compared by, at which position, and the first that differ."""

    rows: int
    position: int
    differences: list[Difference] = field(default_factory=list)


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
        return compared(conn, projection, live.generation, number, since, position)

    comparison = in_transaction(conn, projection, number, rest, in_snapshot)
    failpoints.hit("rebuild.compared")
    return comparison


def compared(
    conn: Connection, projection: Projection, live: int, number: int, since: int | None, position: int
) -> Comparison:
    """The comparison itself, in the caller's transaction, where both generations stand at `position`."""
    if since == position:
        return Comparison(0, position)
    touched = spans.span(conn, since, position, EVENTS_MAX) if since is not None else None
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
    upto = spans.head(conn) if projection.inline else generations[live].position
    at = generations[number].position
    while at < upto and (span := spans.span(conn, at, upto, CHUNK_EVENTS)):
        rest.append(Range(*span))
        fold_range(conn, projection, number, rest[-1])
        pointer.move(conn, projection.name, number, span.first, span.last, [status])
        at = span.last
    return max(at, upto)


def require_equal(projection: Projection, comparison: Comparison) -> None:
    """Raises ProjectionDiffers unless all rows are the same."""
    if comparison.differences:
        raise differ(projection, comparison)


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
