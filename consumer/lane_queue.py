"""One assigned lane between Kafka and the ledger: consecutive deliveries, every hole accounted for.

Knows no Kafka client. What arrives must begin at the lane's stored offset and continue it. At a hole the
reader seeks back once, because the client itself loses records (an exception inside `consume()` destroys
what it had dequeued while its position stays advanced). A hole that stays is Kafka's own (transaction
markers, aborted records) and becomes a gap, as far as both looks agree: a record seen once exists. What
was read after a hole is only looked at for more of them, so that one way back serves many transactions.

It begins at the last applied record, not after it: only if that is still the one which was applied, what
follows it is handed on. Nothing of this outlives the assignment: after the next one it is read again.
"""

import math
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from itertools import accumulate
from typing import Generic, TypeVar

from consumer.known_log import require_same_record
from ledger.domain.delivery import Batch, Delivery, Gap, Lane, Mark, Unread
from ledger.store.tables.lane import Claim

BATCH_BYTES_MAX = 8_000_000
"""What a batch may hold, however few records: large ones would fill the memory, and time out together."""
PORTION = 5_000
"""Records. What is in hand is counted in these, however small batches are."""
RecordT = TypeVar("RecordT")
Complete = Callable[[Lane, Delivery], Delivery]


class LaneQueue(Generic[RecordT]):
    """What is read but not yet applied, in offset order. Records are decoded when there is time for it."""

    def __init__(
        self,
        lane: Lane,
        claim: Claim,
        decode: Callable[[RecordT], Delivery],
        complete: Complete = lambda _, found: found,
    ) -> None:
        self.lane = lane
        self.epoch = claim.epoch
        self.next_offset = claim.next_offset
        """The first offset that isn't applied."""
        self.seek_to: int | None = None
        """Where the reader must seek before it reads on."""
        self.proven = claim.mark is None
        """Whether the log was seen to hold the last applied record, if there is one."""
        self.ended_at = -math.inf
        """When the reader last met an end of the log that was new, on the monotonic clock."""
        self._end = claim.next_offset
        self._decode = decode
        self._complete = complete
        self._incomplete = False
        self._mark = claim.mark
        self._applied: Delivery | None = None
        self._leader_epochs = {claim.mark.leader_epoch} if claim.mark else set()
        self._expected = self.start
        self._seen = self.start
        """Where the look goes on after a hole, while `seek_to` is set."""
        self._holes: dict[int, int] = {}
        """The holes that were seen once, from their first offset to their next."""
        self._records: deque[RecordT | Gap] = deque()
        """What came and isn't decoded yet; what came before is in `_items`."""
        self._items: list[Delivery | Gap] = []
        self._decoded = 0
        """Their bytes."""
        self._mean = 0.0

    def __len__(self) -> int:
        return len(self._items) + len(self._records)

    @property
    def start(self) -> int:
        """Where the reader must begin: at the last applied record."""
        mark = self.mark
        return self.next_offset if mark is None else mark.offset

    @property
    def mark(self) -> Mark | None:
        """What identifies the last applied record that the log can still be asked for."""
        return self._applied.mark if self._applied else self._mark

    def read_under(self, leader_epoch: int) -> None:
        """The last record that was offered was written under this leader.

        A new leader may have another log, also where it holds what comes next: what isn't applied is read
        again, from the last applied record on. (Old records under leaders that are long gone cost the same.)
        """
        if leader_epoch not in self._leader_epochs:
            self._leader_epochs.add(leader_epoch)
            if len(self._leader_epochs) > 1:
                self.look_again()

    def look_again(self) -> None:
        """Forget what isn't applied and have the reader go back, to see whether this is still the log.

        Not while a record is being offered: what follows it would pass for a hole.
        """
        self._items.clear()
        self._decoded = 0
        self._records.clear()
        self._holes.clear()
        self.proven = self.mark is None
        self._expected = self._seen = self.seek_to = self.start

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
        if offset > self._end:
            self._end, self.ended_at = offset, time.monotonic()
        if self.seek_to is not None:
            self._look(offset, offset)
        elif offset > self._expected:
            self._reaches(offset, offset)

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
        if count <= 0:
            return 0
        # Each record is let go of before the next is decoded. 5,000 at once, with their headers, don't fit in
        # the processor's cache, and what is made of them would lie scattered in between.
        pop, decode = self._records.popleft, self._decode
        items = [record if isinstance(record := pop(), Gap) else decode(record) for _ in range(count)]
        sizes = [len(item.packed) for item in items if type(item) is Delivery]
        if len(sizes) < count:  # there are gaps, or headers to be read again
            self._incomplete = self._incomplete or any(type(item) is Unread for item in items)
        size = sum(sizes)
        self._mean, self._decoded = size / count, self._decoded + size
        self._items += items
        return count

    @property
    def bytes(self) -> float:
        """How many bytes wait here; of what isn't decoded yet, by the mean of what was decoded last."""
        return self._decoded + self._mean * len(self._records)

    @property
    def portions(self) -> float:
        """How much waits here, by records or bytes: one portion is a batch of the default size."""
        return max(len(self) / PORTION, self.bytes / BATCH_BYTES_MAX)

    def take(self, size_max: int, bytes_max: int = BATCH_BYTES_MAX) -> Batch | None:
        """The next batch, of at most `size_max` records and gaps; it stays the next until `advance`.

        Of at most `bytes_max`, too, or of one record that is larger alone. Raises TopicReplaced where the log
        isn't the one that was applied up to here.
        """
        self.decode(size_max - len(self._items))
        self._complete_all()
        while self._items and first(self._items[0]) < self.next_offset:
            item = self._items.pop(0)
            self._decoded -= _size([item])
            self._prove(item)
            self.decode(1)
            self._complete_all()
        items = self._items[:size_max]
        if self._decoded > bytes_max:
            sizes = accumulate(_size([item]) for item in items)
            items = items[: max(1, sum(size <= bytes_max for size in sizes))]
        if not items:
            return None
        deliveries = [item for item in items if isinstance(item, Delivery)]
        gaps = [item for item in items if isinstance(item, Gap)]
        return Batch(self.lane, self.next_offset, _next(items[-1]), deliveries, gaps)

    def _complete_all(self) -> None:
        """Complete what is unread. Not done while decoding, with the server waiting: it asks Kafka."""
        if self._incomplete:
            self._items = [
                self._complete(self.lane, item) if type(item) is Unread else item for item in self._items
            ]
            self._decoded, self._incomplete = _size(self._items), False

    def _prove(self, item: Delivery | Gap) -> None:
        """What lies below the next offset is the last applied record, and then nothing that could be read."""
        mark = self.mark
        assert mark is not None
        if isinstance(item, Delivery):
            require_same_record(self.lane, mark, item.mark if item.offset == mark.offset else None)
        elif item.first_offset <= mark.offset:
            require_same_record(self.lane, mark, None)
        elif item.next_offset > self.next_offset:
            self._items.insert(0, item._replace(first_offset=self.next_offset))
        self.proven = True

    def advance(self, next_offset: int) -> None:
        """Forget what lies below `next_offset`: it is applied."""
        count = bisect_left(self._items, next_offset, key=first)
        deliveries = (item for item in reversed(self._items[:count]) if isinstance(item, Delivery))
        self._applied = next(deliveries, self._applied)
        del self._items[:count]
        self._decoded = _size(self._items)  # what goes is mostly more, and in no cache any longer
        self.next_offset = next_offset


def first(item: Delivery | Gap) -> int:
    """The first offset that the item stands for."""
    return item.offset if isinstance(item, Delivery) else item.first_offset


def _size(items: list[Delivery | Gap]) -> int:
    return sum([len(item.packed) for item in items if type(item) is Delivery])


def _next(item: Delivery | Gap) -> int:
    return item.offset + 1 if isinstance(item, Delivery) else item.next_offset
