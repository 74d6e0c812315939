"""What operators ask for over HTTP, as the bodies have it: status, dead letters, and sending these again."""

import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.operations import RecordPlace
from ledger.api import Ledger
from ledger.errors import LedgerError
from ledger.figures import count
from ledger.shell import command
from ledger.store.connection.database import Connection
from ledger.store.tables.dead_letter import DeadLetter, Heading, LetterStatus
from ledger.verify.anchor import check_anchor
from stockledger.reports import deliveries, prospects, status
from stockledger.reports.anchor_file import read_anchor
from stockledger.reports.dead_letters import naming, shown, status_of, summaries, summary
from stockledger.settings import Settings
from stockledger.verb.exits import NotYet, as_json


class LedgerOperations:
    """Answers from the ledger and from Kafka; each takes as long as these do."""

    def __init__(self, settings: Settings, book: Ledger, anchor: Path | None = None) -> None:
        self._settings = settings
        self._book = book
        self._anchor = anchor

    def status(self) -> dict[str, Any]:
        """As `stockledger status --json` has it, and `error`: why Kafka's part is missing."""
        found = status.read(self._book, self._settings)
        return found.as_json() | {"error": as_json(found.fault) if found.fault else None}

    def standing(self) -> dict[str, Any]:
        """The same without the counts of all that there ever was."""
        found = status.read(self._book, self._settings, counts=False)
        return found.as_json() | {"error": as_json(found.fault) if found.fault else None}

    def dead_letters(
        self, wanted: LetterStatus | None, code: str | None, limit: int, after: RecordPlace | None = None
    ) -> dict[str, Any]:
        """The first ones, as `stockledger dlq list --json` has them."""
        found = self._book.dead_letters(status=wanted, code=code, after=after, limit=limit + 1)
        listed = summaries(found[:limit], self._book.repaired())
        return {"dead_letters": listed, "more": len(found) > limit}

    def dead_letter(self, place: RecordPlace) -> dict[str, Any] | None:
        """As `stockledger dlq show --json` has it."""
        found = self._book.dead_letter(*place)
        return shown(self._book, found) if found else None

    def letters_of(self, id: str) -> list[dict[str, Any]]:
        """As `stockledger outcome --json` has them."""
        return [summary(each) | {"status": status_of(self._book, each)} for each in naming(self._book, id)]

    def redrive(self, code: str | None, *, dry_run: bool, place: RecordPlace | None = None) -> dict[str, Any]:
        """As `stockledger dlq redrive --json` has it, and `error`: what kept some from being sent."""
        letters = self._parked(code, place)
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

    def _parked(self, code: str | None, place: RecordPlace | None) -> Sequence[Heading | DeadLetter]:
        if place is None:
            return self._book.dead_letters(status=LetterStatus.PARKED, code=code)
        found = self._book.dead_letter(*place)
        return [found] if found and found.status is LetterStatus.PARKED else []

    def deliveries(self, id: str, timeout_s: float) -> dict[str, Any]:
        """As `stockledger outcome --deliveries --json` has it, and `error`: where the time was up.

        What came before the id was first decided is left out: no repeat can be there.
        """
        outcomes = self._book.outcome(id)
        remembered = deliveries.known(self._book, id, outcomes, naming(self._book, id))
        since = min((each.position for each in outcomes), default=0)
        until = time.monotonic() + timeout_s

        def in_time(lane: str, done: int, of: int) -> None:
            if time.monotonic() > until:
                raise NotYet(
                    f"{lane} was read for {count(done)} of {count(of)} records, then the time was up",
                    remedy=command("outcome --deliveries", id),
                )

        seen, fault = deliveries.every(self._settings, id, remembered, in_time, since)
        history = [each.as_json() for each in seen]
        return {"history": history, "error": as_json(fault) if fault else None}

    def proof(self, conn: Connection) -> dict[str, Any] | None:
        """What the last `stockledger verify --anchor` proved, if it's known where that writes."""
        if self._anchor is None:
            return None
        try:
            anchor = read_anchor(self._anchor)
            proved_at = datetime.fromtimestamp(self._anchor.stat().st_mtime, UTC)
            trouble = check_anchor(conn, anchor).difference
        except (LedgerError, OSError) as error:
            return {"trouble": str(error)}
        return {"position": anchor.position, "proved_at": proved_at, "trouble": trouble}

    def settings(self) -> list[dict[str, str]]:
        """As `stockledger config --json` has them."""
        return [row._asdict() for row in self._settings.rows()]

    def environment(self) -> str | None:
        """The setting."""
        return self._settings.environment
