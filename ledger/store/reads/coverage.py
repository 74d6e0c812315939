"""How far the journal and the projections have come, for whoever waits until they cover a position."""

from collections.abc import Collection
from typing import NamedTuple

from ledger.domain.token import AnyPosition, position_of, prove
from ledger.store.connection.database import Connection
from ledger.store.tables import journal


class PositionGoal(NamedTuple):
    """What somebody waits for: that the live generation of the projection covers this position."""

    projection: str
    at: AnyPosition


class Coverage(NamedTuple):
    """How things stand for a goal. `covered` is None where there is no such projection."""

    covered: int | None
    hash: bytes | None
    head: int
    standby: bool

    def reaches(self, goal: PositionGoal) -> bool:
        """Whether the goal is covered.

        Raises HistoryChanged for a token of another history. One beyond the head is of a lost past, unless
        this is a standby: what it names may be on its way.
        """
        position = position_of(goal.at)
        if position <= self.head or not self.standby:
            prove(goal.at, self.hash)
        return self.covered is not None and self.covered >= position


POSITION_MAX = 2**63 - 1
COVERAGE = """
SELECT p.position, j.hash, h.position, pg_is_in_recovery()
FROM unnest(%s::text[], %s::bigint[]) WITH ORDINALITY AS w (name, position, number)
CROSS JOIN ledger.head h
LEFT JOIN ledger.projections p ON p.name = w.name AND p.status = 'live'
LEFT JOIN ledger.journal j ON j.position = w.position
ORDER BY w.number
"""


def coverage(conn: Connection, goals: Collection[PositionGoal]) -> dict[PositionGoal, Coverage]:
    """How things stand for each of them, as of one snapshot."""
    positions = [min(position_of(goal.at), POSITION_MAX) for goal in goals]
    rows = conn.execute(COVERAGE, ([goal.projection for goal in goals], positions))
    return {
        goal: Coverage(covered, hash if position else journal.GENESIS, head, standby)
        for goal, position, (covered, hash, head, standby) in zip(goals, positions, rows, strict=True)
    }
