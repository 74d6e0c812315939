"""What became of commands, as programs are told: each outcome with its event's place and its conflicts.

However many outcomes there are, they take the same few statements. The caller owns the connection.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol, Self

from ledger.domain.commands import MessageKey
from ledger.domain.decider import Place
from ledger.domain.delivery import Lane
from ledger.domain.outcome import Outcome, Reason
from ledger.domain.token import Token
from ledger.store.connection.database import Connection
from ledger.store.tables import conflict, event
from ledger.store.tables.conflict import Conflict
from ledger.store.tables.processed_message import StoredOutcome


@dataclass(frozen=True)
class RecordedOutcome:
    """What became of a command: `applied` or `rejected`, for good; and the delivery that decided it.

    `stream` and `version` say where its event stands, if it was applied. `fingerprint` is of the payload that
    was decided. `conflicts` are later deliveries of the same key with another payload. `token` names the
    position in this one history: wherever a position is taken, it is taken, too.

    Who waited with another payload is told `conflict`: his command isn't applied and never will be. `asked`
    is then its fingerprint, and all else says what became of the first payload, but for the reason.
    """

    source: str
    id: str
    outcome: Outcome
    reason: Reason | None
    lane: Lane
    offset: int
    position: int
    token: str
    recorded_at: datetime
    stream: str | None
    version: int | None
    fingerprint: bytes
    conflicts: tuple[Conflict, ...]
    asked: bytes | None = None

    def answer_to(self, fingerprint: bytes) -> Self:
        """The same for whoever sent the payload with this fingerprint."""
        if fingerprint == self.fingerprint:
            return self
        return replace(self, outcome=Outcome.CONFLICT, reason=None, asked=fingerprint)


class Sent(Protocol):
    """A command that was sent, such as a publisher's receipt: its identity, its payload's fingerprint, and
    the stream that its event belongs to if it is applied."""

    @property
    def key(self) -> MessageKey: ...
    @property
    def fingerprint(self) -> bytes: ...
    @property
    def stream(self) -> str: ...


def answers(
    conn: Connection, found: Sequence[StoredOutcome], sent: Iterable[Sent] = ()
) -> list[RecordedOutcome]:
    """The outcomes with all that belongs to them, in the same order.

    The event of a command that is known, payload and all, as one that was `sent`, needn't be looked for.
    """
    if not found:
        return []
    streams = {(each.key, each.fingerprint): each.stream for each in sent}
    places, unknown = dict[MessageKey, Place](), dict[MessageKey, int]()
    for each in found:
        if each.version is None:
            continue
        if stream := streams.get((each.key, each.fingerprint)):
            places[each.key] = Place(stream, each.version)
        else:
            unknown[each.key] = each.position
    places |= event.places(conn, unknown)
    conflicts = conflict.of_keys(conn, [each.key for each in found])
    return [_answer(each, places.get(each.key), conflicts[each.key]) for each in found]


def _answer(found: StoredOutcome, place: Place | None, conflicts: Sequence[Conflict]) -> RecordedOutcome:
    return RecordedOutcome(
        source=found.key.source,
        id=found.key.id,
        outcome=found.outcome,
        reason=found.reason,
        lane=found.lane,
        offset=found.offset,
        position=found.position,
        token=str(Token.at(found.position, found.hash)),
        recorded_at=found.recorded_at,
        stream=place.stream if place else None,
        version=place.version if place else None,
        fingerprint=found.fingerprint,
        conflicts=tuple(conflicts),
    )
