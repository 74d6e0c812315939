"""One assigned lane between Kafka and the ledger: consecutive deliveries, every hole accounted for.

Knows no Kafka client. What arrives must begin at the lane's stored offset and continue it. At a hole the
reader seeks back once, because the client itself loses records (an exception inside `consume()` destroys
what it had dequeued while its position stays advanced). A hole that stays is Kafka's own (transaction
markers, aborted records) and becomes a gap, as far as both looks agree: a record seen once exists. What
was read behind a hole is only looked at for more of them, so that one way back serves many transactions.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from ledger.domain.delivery import Batch, Delivery, Gap, Lane
from ledger.store.lane import Claim

RecordT = TypeVar("RecordT")


class LaneQueue(Generic[RecordT]):
    """What is read but not yet applied, in offset order. Records are decoded when there is time for it."""

    def __init__(self, lane: Lane, claim: Claim, decode: Callable[[RecordT], Delivery]) -> None:
        self.lane = lane
        self.epoch = claim.epoch
        self.next_offset = claim.next_offset
        """The first offset that isn't applied."""
        self.end_seen = -1
        """The highest log end offset that the reader has met."""
        self.seek_to: int | None = None
        """Where the reader must seek before it reads on."""
        self._decode = decode
        self._expected = claim.next_offset
        self._seen = claim.next_offset
        """Where the look goes on behind a hole, while `seek_to` is set."""
        self._holes: dict[int, int] = {}
        """The holes that were seen once, from their first offset to their next."""
        self._records: deque[RecordT | Gap] = deque()
        """As they came; those before them are in `_items`."""
        self._items: list[Delivery | Gap] = []

    def __len__(self) -> int:
        return len(self._items) + len(self._records)

    def offer(self, offset: int, record: RecordT) -> bool:
        """Queue the record if it is the next one, else return False; sets `seek_to` where one is missing."""
        if self.seek_to is not None:
            self._look(offset, offset + 1)
            return False
        if offset < self._expected:
            return False  # already here
        if offset > self._expected and not self._reaches(offset, offset + 1):
            return False
        self._records.append(record)
        self._expected = offset + 1
        return True

    def reached_end(self, offset: int) -> None:
        """The reader met the end of the log: what is missing before it is a trailing hole."""
        if self.seek_to is not None:
            self._look(offset, offset)
        elif offset >= self._expected and self._reaches(offset, offset):
            self.end_seen = max(self.end_seen, offset)

    def sought(self) -> None:
        """The reader has done as `seek_to` said."""
        self.seek_to = None

    def _look(self, offset: int, next_offset: int) -> None:
        if offset > self._seen:
            self._holes[self._seen] = offset
        self._seen = max(self._seen, next_offset)

    def _reaches(self, offset: int, next_offset: int) -> bool:
        if offset > self._expected and self._expected in self._holes:
            agreed = min(offset, self._holes[self._expected])
            self._records.append(Gap(self._expected, agreed, "log_hole"))
            self._expected = agreed
        if offset == self._expected:
            return True
        self._holes = {first: next_ for first, next_ in self._holes.items() if first > self._expected}
        self._holes[self._expected] = offset
        self._seen = next_offset
        self.seek_to = self._expected
        return False

    def decode(self, size_max: int) -> int:
        """Decode at most so many records, and return how many there were."""
        count = min(size_max, len(self._records))
        for _ in range(count):
            record = self._records.popleft()
            self._items.append(record if isinstance(record, Gap) else self._decode(record))
        return count

    def take(self, size_max: int) -> Batch | None:
        """The next batch, of at most `size_max` records and gaps; it stays the next until `advance`."""
        self.decode(size_max - len(self._items))
        items = self._items[:size_max]
        if not items:
            return None
        deliveries = [item for item in items if isinstance(item, Delivery)]
        gaps = [item for item in items if isinstance(item, Gap)]
        return Batch(self.lane, self.next_offset, _next(items[-1]), deliveries, gaps)

    def advance(self, next_offset: int) -> None:
        """Forget what lies below `next_offset`: it is applied."""
        del self._items[: bisect_left(self._items, next_offset, key=first)]
        self.next_offset = next_offset


def first(item: Delivery | Gap) -> int:
    """The first offset that the item stands for."""
    return item.offset if isinstance(item, Delivery) else item.first_offset


def _next(item: Delivery | Gap) -> int:
    return item.offset + 1 if isinstance(item, Delivery) else item.next_offset
