"""A batch until it is done: retried where nothing was written, cut in halves where one record is to blame.

The halves go left first, so that a lane's records are decided in offset order whatever happens. A poison
record ends as a dead letter, kept byte for byte; its neighbours are applied once. Nothing is cached from
one attempt to the next: each reads what it needs again.
"""

import random
import time
from collections import Counter

from structlog.typing import FilteringBoundLogger

from ledger.batch import apply_batch
from ledger.domain.delivery import Bad, Batch, Delivery
from ledger.domain.outcome import Outcome
from ledger.errors import DOCTOR, Contended, Park, Stop, Unavailable
from ledger.store.connection.database import Connection, transaction
from ledger.store.tables import lane

ATTEMPTS_MAX = 12
LOCKED_MAX_S = 60.0
"""How long a lock is waited for before the lanes are let go, and claimed anew."""
BACKOFF_FIRST_S = 0.01
BACKOFF_MAX_S = 1.0
PARKS_IN_A_ROW_MAX = 10
"""So many parks without an applied command between them are no poison records but a fault of ours."""


class Processor:
    """Applies batches over one database connection."""

    def __init__(self, conn: Connection, log: FilteringBoundLogger) -> None:
        self.counts: Counter[Outcome] = Counter()
        self._conn = conn
        self._log = log
        self._parks_in_a_row = 0

    def apply(self, batch: Batch, epoch: int) -> None:
        """Apply the batch, in as many transactions as it takes.

        Raises Fenced (a newer owner: the batch is its business), Unavailable (connect again, then read
        the lane's row), or Stop.
        """
        try:
            self._retrying(batch, epoch)
        except Park as poison:
            if not batch.deliveries:  # no record is to blame for what a gap can't do
                raise Stop(f"{batch.lane} can't move over a gap: {poison.message}", remedy=DOCTOR) from poison
            if len(batch.deliveries) == 1 and not batch.gaps:
                self._park(batch, epoch, poison)
                return
            for half in halves(batch):
                self.apply(half, epoch)

    def _retrying(self, batch: Batch, epoch: int) -> None:
        begun, attempt, again = time.monotonic(), 0, False
        while attempt < ATTEMPTS_MAX:
            try:
                if again:
                    self._require_ours(batch, epoch)
                applied = apply_batch(self._conn, batch, epoch)
            except Contended as lost:
                again = True
                if lost.is_lock_timeout:  # no race: somebody holds what we need, and may do so for long
                    if time.monotonic() - begun > LOCKED_MAX_S:
                        raise
                    continue
                self._log.info("batch is tried again", lane=str(batch.lane), cause=lost.message)
                time.sleep(_backoff_s(attempt))
                attempt += 1
                continue
            self.counts.update(applied.counts)
            if applied.counts[Outcome.APPLIED]:
                self._parks_in_a_row = 0
            return
        raise Stop(
            f"the batch of {batch.lane} from {batch.first_offset} on lost {ATTEMPTS_MAX} races in a row",
            remedy="look for long transactions on the database: stockledger doctor",
        )

    def _require_ours(self, batch: Batch, epoch: int) -> None:
        """Raise Fenced or Unavailable unless the lane is ours and still where the batch begins."""
        with transaction(self._conn):
            at = lane.resume(self._conn, batch.lane, epoch)
        if at != batch.first_offset:
            raise Unavailable(f"{batch.lane} is at {at} already: an earlier commit took effect")

    def _park(self, batch: Batch, epoch: int, poison: Park) -> None:
        """Keep the batch's one record as a dead letter."""
        self._parks_in_a_row += 1
        if self._parks_in_a_row > PARKS_IN_A_ROW_MAX:
            raise Stop(
                f"{PARKS_IN_A_ROW_MAX} records in a row couldn't be applied: {poison.message}",
                remedy="this is a fault of the schema or of this build: stockledger doctor",
            ) from poison
        self._log.warning(
            "record parked", lane=str(batch.lane), offset=batch.first_offset, code=poison.reason
        )
        bad = Bad(poison.reason, poison.message.replace("\0", "")[:500])
        dead = [Delivery(d.offset, bad, d.packed) for d in batch.deliveries]
        self._retrying(batch._replace(deliveries=dead), epoch)


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """The batch in two consecutive ones: half of its deliveries each, the gaps where they belong."""
    if len(batch.deliveries) == 1:  # then it has gaps: set the record apart from those after or before it
        offset = batch.deliveries[0].offset
        cut = offset if batch.first_offset < offset else offset + 1
    else:
        cut = batch.deliveries[len(batch.deliveries) // 2].offset
    left = [d for d in batch.deliveries if d.offset < cut]
    right = [d for d in batch.deliveries if d.offset >= cut]
    return (
        Batch(batch.lane, batch.first_offset, cut, left, [g for g in batch.gaps if g.first_offset < cut]),
        Batch(batch.lane, cut, batch.next_offset, right, [g for g in batch.gaps if g.first_offset >= cut]),
    )


def _backoff_s(attempt: int) -> float:
    """Full jitter: two lanes that collided once shouldn't meet again."""
    return random.uniform(0, min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2**attempt))
