"""Who is told how a relay goes: a log, and a meter where somebody watches."""

from typing import NamedTuple, Protocol

from ledger.domain.token import Token
from ledger.errors import LedgerError
from ledger.store.reads.lag import JournalLag

STATUS_INTERVAL_S = 10.0


class RelayedStep(NamedTuple):
    """What was published and committed at once: records by kind, of so many entries, up to this place."""

    entries: int
    events: int
    outcomes: int
    stock: int
    token: Token


class RelayLog(Protocol):
    """Who is told how it goes."""

    status_interval_s: float = STATUS_INTERVAL_S

    def moved(self) -> None:
        """Its loop goes on, or waits for what it knows."""
        return

    def ready(self, after: Token) -> None:
        """It begins after this place."""
        ...

    def relayed(self, step: RelayedStep) -> None:
        """So much was published."""
        ...

    def status(self, at: Token, lag: JournalLag) -> None:
        """How far it is, every few seconds."""
        ...

    def waiting(self, cause: LedgerError) -> None:
        """Kafka or the database is away; it tries again."""
        ...
