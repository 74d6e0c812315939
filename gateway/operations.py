"""What operators ask for over HTTP, as far as it stands above this floor: it reads Kafka."""

from typing import Any, Protocol

from ledger.store.tables.dead_letter import LetterStatus


class Operations(Protocol):
    """What operators ask for and order. Each answer is a body; each may raise a LedgerError."""

    def status(self) -> dict[str, Any]:
        """How the ledger stands, beside what Kafka has."""
        ...

    def dead_letters(self, status: LetterStatus | None, code: str | None, limit: int) -> dict[str, Any]:
        """The first dead letters with that status and code."""
        ...

    def redrive(self, code: str | None, *, dry_run: bool) -> dict[str, Any]:
        """Send all that are parked, or those with the code, again; or say what would become of them."""
        ...
