"""Is every recorded outcome the one that a sequential run gives? Commands, decided again in journal order.

Reads the records of each entry from Kafka, in the journal's order, lets the pure `decide` answer them over a
state of its own, and compares with what is recorded: outcome, reason, version and event of each message key,
the bytes of each dead letter, and how many deliveries of each entry were duplicates, conflicts and dead.
Writes nothing and stops at the first difference. It is bounded by the head as it was at the start, so it may
run beside the workers.

Memory: all goods and users, one page of deliveries, and what the Kafka client fetches ahead for each lane.
Message keys and purchases are not kept. Whose delivery came first is asked of the register, and is right if
that delivery is here and every other one of the key comes later; a purchase to be cancelled is asked of the
events before this page. By induction that is the replayed state: what was recorded up to here has been
compared already.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from ledger.domain.commands import MessageKey
from ledger.domain.decider import State, decide, evolve
from ledger.domain.delivery import Bad, Deliveries, Delivery, Lane, Record, Request
from ledger.domain.events import AnyEvent
from ledger.domain.goods import purchase_key
from ledger.domain.outcome import Outcome, Rejection
from ledger.domain.structs import CancelPurchaseStruct
from ledger.domain.upcast import load
from ledger.errors import NotProvable
from ledger.store.connection.database import Connection, faults
from ledger.store.reads import outcomes
from ledger.store.reads.outcomes import EntryWithGaps, RecordedEntries
from ledger.store.tables import dead_letter, journal
from ledger.store.tables.processed_message import Processed

PositionProgress = Callable[[int, int], None]
"""Told the position that was reached, and the one where it ends."""


@dataclass(frozen=True)
class DecisionDifference:
    """The first delivery or entry of which something else is recorded than a sequential run gives.

    No `key`: the whole entry is concerned, or a record that is no command.
    """

    position: int
    lane: Lane
    offset: int | None
    key: MessageKey | None
    expected: str
    recorded: str

    def __str__(self) -> str:
        record = "the entry" if self.offset is None else "the record"
        what = f"message {' '.join(self.key)}" if self.key else record
        where = f"{self.lane}@{self.offset}" if self.offset is not None else str(self.lane)
        words = f"a sequential run gives {self.expected}, recorded is {self.recorded}"
        return f"{what} at position {self.position} ({where}): {words}"


@dataclass
class Replayed:
    """How far it went, how many deliveries came to each outcome, and the first difference."""

    position: int = 0
    counts: Counter[Outcome] = field(default_factory=Counter)
    difference: DecisionDifference | None = None


class _Differs(Exception):
    def __init__(self, difference: DecisionDifference) -> None:
        super().__init__(str(difference))
        self.difference = difference


def redecide(
    conn: Connection,
    deliveries: Deliveries,
    last: int | None = None,
    on_progress: PositionProgress | None = None,
) -> Replayed:
    """Decide all commands again up to the position `last` (None: the end), and compare.

    The connection must be in autocommit. Raises NotProvable where Kafka no longer has a record that it takes.
    """
    done = Replayed()
    with faults():
        tip = journal.tip(conn).position
        end = tip if last is None else min(last, tip)
        records = _LaneReaders(deliveries, dict(journal.lane_ends(conn, end)))
    state = State()
    with records.open():
        while done.position < end:
            with faults():
                entries = outcomes.entries(conn, done.position + 1, end)
            page = {entry.position: records.of(entry) for entry in entries}
            with faults():
                known = outcomes.recorded(conn, entries, [d for found in page.values() for d in found])
            try:
                for entry in entries:
                    dead = _dead_letters(conn, entry)
                    done.counts += _Entry(entry, known, state, dead).take(page[entry.position])
                    done.position = entry.position
            except _Differs as found:
                done.difference = found.difference
                return done
            state.purchases.clear()  # the next page asks for those that it needs
            if on_progress:
                on_progress(done.position, end)
    return done


def _dead_letters(conn: Connection, entry: EntryWithGaps) -> dict[int, Record]:
    """Those of one entry, which was a batch: of a page, they might not fit."""
    if not entry.counts[Outcome.DEAD]:
        return {}
    with faults():
        return dead_letter.in_range(conn, entry.lane, entry.first_offset, entry.next_offset)


class _LaneReaders:
    """The records of all lanes, each lane read once from its front."""

    def __init__(self, deliveries: Deliveries, ends: dict[Lane, int]) -> None:
        self._deliveries = deliveries
        self._ends = ends
        self._streams: dict[Lane, Iterator[Delivery]] = {}
        self._ahead: dict[Lane, Delivery | None] = {}

    @contextmanager
    def open(self) -> Iterator[None]:
        """Close every reader at the end, whatever happens."""
        with ExitStack() as stack:
            stack.callback(lambda: [getattr(stream, "close", bool)() for stream in self._streams.values()])
            yield

    def of(self, entry: EntryWithGaps) -> list[Delivery]:
        """The entry's records, without those that it skipped. Raises NotProvable if some are gone."""
        lane, found = entry.lane, []
        if lane not in self._streams:
            self._streams[lane] = self._deliveries(lane, entry.first_offset, self._ends[lane])
            self._ahead[lane] = next(self._streams[lane], None)
        while (ahead := self._ahead[lane]) and ahead.offset < entry.next_offset:
            if not any(first <= ahead.offset < following for first, following in entry.gaps):
                found.append(ahead)
            self._ahead[lane] = next(self._streams[lane], None)
        expected = entry.next_offset - entry.first_offset - entry.skipped
        if len(found) != expected:
            self._refuse(entry, found, expected)
        return found

    def _refuse(self, entry: EntryWithGaps, found: list[Delivery], expected: int) -> None:
        ahead = self._ahead[entry.lane]
        first = found[0] if found else ahead
        kept = f"its first record now is at offset {first.offset}" if first else "it has none any more"
        raise NotProvable(
            f"{entry.lane}: position {entry.position} took {expected} records from offset "
            f"{entry.first_offset} on, of which Kafka still has {len(found)}; {kept}. "
            "From here on nothing can be proved; what comes before agrees",
            remedy="retention.ms=-1 keeps a topic for ever; stockledger verify needs no records",
        )


class _Entry:
    """One entry, decided again."""

    def __init__(
        self, entry: EntryWithGaps, known: RecordedEntries, state: State, dead: dict[int, Record]
    ) -> None:
        self._entry = entry
        self._known = known
        self._state = state
        self._dead = dead

    def take(self, found: list[Delivery]) -> Counter[Outcome]:
        """How many of the deliveries come to each outcome. Raises _Differs at the first difference."""
        purchases = {
            purchase_key(d.content.command, d.content.key)
            for d in found
            if isinstance(d.content, Request) and isinstance(d.content.command, CancelPurchaseStruct)
        }
        for key in purchases - self._state.purchases.keys():
            if bought := self._known.purchases.get(key):
                self._state.purchases[key] = bought
        counts = Counter(self._outcome(delivery) for delivery in found)
        if {o: counts[o] for o in Outcome} != self._entry.counts:
            told, gives = (
                ", ".join(f"{number} {outcome}" for outcome, number in numbers.items())
                for numbers in (self._entry.counts, {o: counts[o] for o in Outcome})
            )
            raise _Differs(self._difference(None, None, gives, told))
        return counts

    def _outcome(self, delivery: Delivery) -> Outcome:
        content, offset = delivery.content, delivery.offset
        if offset in self._dead:
            if self._dead[offset] != delivery.record:
                same, other = "dead, byte for byte", "dead, with other bytes"
                raise _Differs(self._difference(offset, None, same, other))
            return Outcome.DEAD  # also one that this version could read: what was parked stays parked
        if isinstance(content, Bad):
            raise _Differs(self._difference(offset, None, f"dead ({content.code})", "no dead letter"))
        first = self._known.register.get(content.key)
        if first is None:
            raise _Differs(self._difference(offset, content.key, "an outcome", "nothing: not registered"))
        place = self._known.positions.get(first.entry, 0), first.offset
        here = self._entry.position, offset
        if place == here:
            return self._first_time(offset, content, first)
        if not place[0] > 0 or place > here:
            told = f"a first delivery at position {place[0]}, offset {place[1]}"
            raise _Differs(self._difference(offset, content.key, "the first delivery here", told))
        return Outcome.DUPLICATE if first.fingerprint == content.fingerprint else Outcome.CONFLICT

    def _first_time(self, offset: int, request: Request, first: Processed) -> Outcome:
        decision = decide(self._state, request)
        expected, told = self._words(request.key, decision), _told(first)
        if expected != told:
            raise _Differs(self._difference(offset, request.key, expected, told))
        if first.fingerprint != request.fingerprint:
            told = f"fingerprint {first.fingerprint.hex()}"
            raise _Differs(
                self._difference(offset, request.key, f"fingerprint {request.fingerprint.hex()}", told)
            )
        if isinstance(decision, Rejection):
            return Outcome.REJECTED
        self._compare_event(offset, request.key, decision)
        return Outcome.APPLIED

    def _words(self, key: MessageKey, decision: AnyEvent | Rejection) -> str:
        """The decision as `_told` would say it; an event is taken into the state."""
        if isinstance(decision, Rejection):
            return f"rejected {decision.reason}"
        return f"applied as version {evolve(self._state, key, decision).version}"

    def _compare_event(self, offset: int, key: MessageKey, decided: AnyEvent) -> None:
        stored = self._known.events.get((self._entry.position, key))
        if stored is None:
            raise _Differs(self._difference(offset, key, f"the event {decided!r}", "no event"))
        try:
            same = load(*stored) == decided
        except ValueError:
            same = False
        if not same:
            raise _Differs(self._difference(offset, key, f"the event {decided!r}", " ".join(stored)))

    def _difference(
        self, offset: int | None, key: MessageKey | None, expected: str, told: str
    ) -> DecisionDifference:
        return DecisionDifference(self._entry.position, self._entry.lane, offset, key, expected, told)


def _told(first: Processed) -> str:
    return f"rejected {first.reason}" if first.reason else f"applied as version {first.version}"
