"""What a worker says of itself: one line a change of state, and now and then how far it is."""

import time
from collections import Counter
from collections.abc import Iterable

from structlog.typing import FilteringBoundLogger

from consumer.admin import TopicFacts, Watermarks
from ledger.domain.delivery import Lane
from ledger.domain.outcome import Outcome
from ledger.errors import LedgerError

SAY_AGAIN_S = 60.0
"""How often a wait is said again while it lasts."""


class Announcements:
    """Knows what was said last, and so what is news."""

    def __init__(self, log: FilteringBoundLogger, group: str, status_interval_s: float) -> None:
        self.waiting_for = ""
        """The code of what is waited for, if anything is."""
        self._log = log
        self._group = group
        self._status_interval_s = status_interval_s
        self._again_due = 0.0
        self._silent: list[Lane] = []
        self._status_due = 0.0
        self._reported: Counter[Outcome] = Counter()

    def waiting(self, doubt: LedgerError) -> None:
        """One line a change of state, not one a try nor a wording; then one now and then."""
        now = time.monotonic()
        if doubt.code != self.waiting_for or now > self._again_due:
            self.waiting_for, self._again_due = doubt.code, now + SAY_AGAIN_S
            self._log.warning("waiting", cause=doubt.message, code=doubt.code, next=doubt.remedy)

    def going_on(self) -> bool:
        """Something was applied. Whether that is news."""
        if not self.waiting_for:
            return False
        self.waiting_for = ""
        self._log.info("goes on")
        return True

    def silent(self, marks: Watermarks) -> None:
        """Which lanes' brokers don't answer, if that has changed."""
        silent = sorted(marks.silent)
        if silent and silent != self._silent:
            causes = sorted({fault.message for fault in marks.silent.values()})
            self._log.warning("brokers of lanes are away", lanes=said(silent), cause=causes)
        elif self._silent and not silent:
            self._log.info("brokers of all lanes answer again")
        self._silent = silent

    def ready(self, topics: Iterable[TopicFacts]) -> None:
        """A session begins."""
        self.waiting_for = ""
        self._log.info("ready", group=self._group, topics={facts.name: facts.partitions for facts in topics})

    def status(self, counts: Counter[Outcome], queued: int, lanes: Iterable[Lane]) -> None:
        """What was applied since it was said last, if it is time for that."""
        now = time.monotonic()
        if now < self._status_due:
            return
        self._status_due = now + self._status_interval_s
        since, self._reported = counts - self._reported, counts.copy()
        self._log.info("status", **{str(o): since[o] for o in Outcome}, queued=queued, lanes=said(lanes))


def said(lanes: Iterable[Lane]) -> list[str]:
    """Lanes as a log names them."""
    return [str(lane) for lane in sorted(lanes)]
