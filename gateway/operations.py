"""What operators ask for over HTTP, as far as it stands above this floor: it reads Kafka."""

from typing import Any, Protocol

from ledger.domain.delivery import Lane
from ledger.store.connection.database import Connection
from ledger.store.tables.dead_letter import LetterStatus

RecordPlace = tuple[Lane, int]
"""A lane and an offset."""


class Operations(Protocol):
    """What operators ask for and order. Each answer is a body; each may raise a LedgerError."""

    def status(self) -> dict[str, Any]:
        """How the ledger stands, beside what Kafka has."""
        ...

    def standing(self) -> dict[str, Any]:
        """The same without what takes longer the longer the journal is."""
        ...

    def dead_letters(
        self, status: LetterStatus | None, code: str | None, limit: int, after: RecordPlace | None = None
    ) -> dict[str, Any]:
        """The first dead letters with that status and code, after a place."""
        ...

    def dead_letter(self, place: RecordPlace) -> dict[str, Any] | None:
        """One dead letter with its record, if there is one at this place."""
        ...

    def letters_of(self, id: str) -> list[dict[str, Any]]:
        """The dead letters whose id it is."""
        ...

    def redrive(self, code: str | None, *, dry_run: bool, place: RecordPlace | None = None) -> dict[str, Any]:
        """Send all that are parked, or those with the code, again; or say what would become of them.

        With a `place`, the one there alone.
        """
        ...

    def deliveries(self, id: str, timeout_s: float) -> dict[str, Any]:
        """Every delivery of the id, as far as Kafka can be read in that time; `error`: why not further."""
        ...

    def proof(self, conn: Connection) -> dict[str, Any] | None:
        """Up to where the ledger was proved, and when; `trouble`: why that says nothing. None: not known."""
        ...

    def settings(self) -> list[dict[str, str]]:
        """Every setting with where it comes from; secrets are masked."""
        ...

    def environment(self) -> str | None:
        """What this installation is called."""
        ...
