"""One sentence per decision: `given(events).when(command).then(event)` or `.rejected(reason)`.

A bare event belongs to nobody in particular; where its message key matters, say `by("p1", event)`.
"""

from dataclasses import dataclass

from ledger.domain.commands import AnyCommand, MessageKey
from ledger.domain.decider import State, decide, fold
from ledger.domain.envelope import request
from ledger.domain.events import AnyEvent
from ledger.domain.outcome import Reason, Rejection

SOURCE = "shop"

Keyed = tuple[MessageKey, AnyEvent]


def by(id: str, event: AnyEvent, *, source: str = SOURCE) -> Keyed:
    """The event of the command (`source`, `id`)."""
    return MessageKey(source, id), event


@dataclass(frozen=True)
class Decided:
    """What `decide` answered."""

    answer: AnyEvent | Rejection

    def then(self, event: AnyEvent) -> None:
        """The command was applied, with exactly this event."""
        assert self.answer == event

    def rejected(self, reason: Reason) -> None:
        """The command was rejected, for exactly this reason."""
        assert self.answer == Rejection(reason)


@dataclass(frozen=True)
class Given:
    """The state after a history."""

    state: State

    def when(self, command: AnyCommand, *, id: str = "now", source: str = SOURCE) -> Decided:
        """Let `decide` answer the command, sent as (`source`, `id`)."""
        key = MessageKey(source, id)
        return Decided(decide(self.state, request(key, command)))


def given(*history: AnyEvent | Keyed) -> Given:
    """The history so far, in order."""
    keyed = (
        entry if isinstance(entry, tuple) else by(f"earlier-{number}", entry)
        for number, entry in enumerate(history)
    )
    return Given(fold(keyed))
