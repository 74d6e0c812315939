"""One assigned lane between Kafka and the ledger: consecutive deliveries, every hole accounted for.

Knows no Kafka client. What arrives must begin at the lane's stored offset and continue it. At a hole the
reader seeks back once, because the client itself loses records (an exception inside `consume()` destroys
what it had dequeued while its position stays advanced). A hole that stays is Kafka's own (transaction
markers, aborted records) and becomes a gap, as far as both looks agree: a record seen once exists. What
was read behind a hole is only looked at for more of them, so that one way back serves many transactions.
"""

from collections import deque
from itertools import islice

from ledger.domain.delivery import Batch, Delivery, Gap, Lane
from ledger.store.lane import Claim


class LaneQueue:
    """What is read but not yet applied, in offset order."""

    def __init__(self, lane: Lane, claim: Claim) -> None:
        self.lane = lane
        self.epoch = claim.epoch
        self.next_offset = claim.next_offset
        """The first offset that isn't applied."""
        self.end_seen = -1
        """The highest log end offset that the reader has met."""
        self.seek_to: int | None = None
        """Where the reader must seek before it reads on."""
        self._expected = claim.next_offset
        self._seen = claim.next_offset
        """Where the look goes on behind a hole, while `seek_to` is set."""
        self._holes: dict[int, int] = {}
        """The holes that were seen once, from their first offset to their next."""
        self._items: deque[Delivery | Gap] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def expects(self, offset: int) -> bool:
        """Whether the record at `offset` is the next one to `add`; sets `seek_to` where one is missing."""
        if self.seek_to is not None:
            self._look(offset, offset + 1)
            return False
        if offset < self._expected:
            return False  # already here
        return self._reaches(offset, offset + 1)

    def add(self, delivery: Delivery) -> None:
        """Take the record that was just expected."""
        self._items.append(delivery)
        self._expected = delivery.offset + 1

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
            self._items.append(Gap(self._expected, agreed, "log_hole"))
            self._expected = agreed
        if offset == self._expected:
            return True
        self._holes = {first: next_ for first, next_ in self._holes.items() if first > self._expected}
        self._holes[self._expected] = offset
        self._seen = next_offset
        self.seek_to = self._expected
        return False

    def take(self, size_max: int) -> Batch | None:
        """The next batch, of at most `size_max` records and gaps; it stays the next until `advance`."""
        if not self._items:
            return None
        items = list(islice(self._items, size_max))
        deliveries = [item for item in items if isinstance(item, Delivery)]
        gaps = [item for item in items if isinstance(item, Gap)]
        last = items[-1]
        next_offset = last.next_offset if isinstance(last, Gap) else last.offset + 1
        return Batch(self.lane, self.next_offset, next_offset, deliveries, gaps)

    def advance(self, next_offset: int) -> None:
        """Forget what lies below `next_offset`: it is applied."""
        while self._items and _first(self._items[0]) < next_offset:
            self._items.popleft()
        self.next_offset = next_offset


def _first(item: Delivery | Gap) -> int:
    return item.offset if isinstance(item, Delivery) else item.first_offset
