"""What operators ask for over HTTP, as the bodies have it: status, dead letters, and sending these again."""

from collections import Counter
from typing import Any

from ledger.api import Ledger
from ledger.store.tables.dead_letter import DeadLetter, LetterStatus
from stockledger.reports import prospects, status
from stockledger.reports.dead_letters import summaries, summary
from stockledger.settings import Settings
from stockledger.verb.exits import as_json


class LedgerOperations:
    """Answers from the ledger and from Kafka; each takes as long as these do."""

    def __init__(self, settings: Settings, book: Ledger) -> None:
        self._settings = settings
        self._book = book

    def status(self) -> dict[str, Any]:
        """As `stockledger status --json` has it, and `error`: why Kafka's part is missing."""
        found = status.read(self._book, self._settings)
        return found.as_json() | {"error": as_json(found.fault) if found.fault else None}

    def dead_letters(self, wanted: LetterStatus | None, code: str | None, limit: int) -> dict[str, Any]:
        """The first ones, as `stockledger dlq list --json` has them."""
        found = self._book.dead_letters(status=wanted, code=code)
        listed = summaries(found[:limit], self._book.repaired())
        return {"dead_letters": listed, "more": len(found) > limit}

    def redrive(self, code: str | None, *, dry_run: bool) -> dict[str, Any]:
        """As `stockledger dlq redrive --json` has it, and `error`: what kept some from being sent."""
        letters = self._book.dead_letters(status=LetterStatus.PARKED, code=code)
        seen, worthy = prospects.sorted_out(self._book, letters)
        done: list[DeadLetter] = []
        fault = None
        if not dry_run:
            done, fault = prospects.redrive(self._settings, self._book, worthy)
        return {
            "dry_run": dry_run,
            "records": len(letters),
            "prospects": Counter(each.value for each in seen),
            "redriven": [summary(letter) for letter in done],
            "error": as_json(fault) if fault else None,
        }
