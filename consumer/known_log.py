"""Is this the log that the ledger knows? Asked before anything that is read from it is believed.

A topic that was deleted and made again has another id. A log that lost its tail and grew again (an unclean
election, a damaged disk) keeps its id and holds other records at offsets that were applied already: so each
lane keeps what identifies its last applied record, its mark, and whoever reads the log compares.
"""

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from confluent_kafka import KafkaException, TopicPartition

from consumer import admin, clients, records
from consumer.admin import Marks, TopicFacts, Watermarks
from consumer.clients import PARTITIONS, RAW_READS, REQUEST_TIMEOUT_S, KafkaProperties
from consumer.raw_headers import RawReader
from ledger.domain.delivery import Delivery, Lane, Mark
from ledger.errors import LedgerError, RecordsLost, TopicMissing, TopicReplaced
from ledger.shell import command
from ledger.store.connection.database import Connection
from ledger.store.tables import identity, lane
from ledger.store.tables.lane import LaneRow

STAYS = "what is applied stays applied once, and commands go on in a topic of another name"


def elsewhere(name: str, partitions: int = PARTITIONS) -> str:
    """The one way on from a log that isn't the known one: a topic of a name that has no lanes yet."""
    stem, _, number = name.rpartition("-")
    following = (
        f"{stem}-{int(number) + 1}" if stem and re.fullmatch("[1-9][0-9]{0,8}", number) else f"{name}-2"
    )
    return f"stockledger migrate --topic {following} --partitions {partitions}"


def rows_of(rows: Iterable[LaneRow], name: str) -> list[LaneRow]:
    """The lanes that the ledger has in this topic."""
    return [row for row in rows if row.topic == name]


class LogComparison(NamedTuple):
    """How far topics' logs go, and of the lanes that aren't the log that was applied, why."""

    marks: Watermarks
    faults: dict[Lane, LedgerError]


class KnownLogs(NamedTuple):
    """What the ledger knows of its logs: its lanes in all topics, and the cluster (None: it never ran).

    Whoever has to know whether a topic is still the same asks here, and nowhere else: `inspect` and
    `lanes_of` by the topic's id, `compare` and `require_same` by what is in its logs.

    The topic in use is that of the last journal entry; others were left behind.
    """

    rows: Sequence[LaneRow]
    cluster_id: str | None
    in_use: str | None = None

    def inspect(self, kafka: KafkaProperties, name: str, timeout_s: float = REQUEST_TIMEOUT_S) -> TopicFacts:
        """The topic, which is the one that the ledger's lanes were begun with, if it has some there.

        Raises TopicReplaced where it was deleted or made again, TopicMissing where it never was,
        BrokerUnavailable or TopicUnfit.
        """
        try:
            facts = admin.inspect(kafka, name, timeout_s)
        except TopicMissing as missing:
            lanes = len(self.lanes(name))
            if lanes and admin.cluster_id(kafka, timeout_s) == self.cluster_id:
                raise deleted(name, lanes) from missing
            raise
        if facts.cluster_id == self.cluster_id:  # another cluster's topic is another one anyway
            self.lanes_of(facts)
        return facts

    def lanes(self, name: str) -> list[LaneRow]:
        """The lanes in topics of this name, whichever topic that is by now."""
        return rows_of(self.rows, name)

    def lanes_of(self, facts: TopicFacts) -> list[LaneRow]:
        """The lanes in this very topic. Raises TopicReplaced if they were begun with another of its name."""
        for row in (rows := self.lanes(facts.name)):
            require_same_topic(row.topic_id, facts)
        return rows

    def compare(self, kafka: KafkaProperties, topics: Iterable[TopicFacts]) -> LogComparison:
        """How far the topics' logs go now, and what is wrong with them. Raises what `look` raises."""
        marks = admin.watermarks(kafka, [own for facts in topics for own in facts.lanes])
        return LogComparison(marks, look(kafka, self.rows, marks.known))

    def require_same(self, kafka: KafkaProperties, topics: Iterable[TopicFacts]) -> Watermarks:
        """How far the topics' logs go, which are the ones that were applied. Raises what is wrong if not."""
        marks, faults = self.compare(kafka, topics)
        for fault in faults.values():
            raise fault
        return marks


def read(conn: Connection) -> KnownLogs:
    """What the ledger of this connection knows."""
    return KnownLogs(lane.read_all(conn), identity.read(conn)[1], identity.topic_in_use(conn))


def require_same_topic(begun_with: str, found: TopicFacts) -> None:
    """Raise TopicReplaced unless the topic has the id of the one that its lanes were begun with."""
    if found.topic_id != begun_with:
        raise TopicReplaced(
            f"the topic {found.name} was deleted and made again: its id was {begun_with}, now it is "
            f"{found.topic_id}; {STAYS}",
            remedy=elsewhere(found.name, found.partitions),
        )


def deleted(name: str, lanes: int) -> TopicReplaced:
    """The error for a topic that is gone. A new one of its name would be another log, and refused."""
    return TopicReplaced(
        f"the topic {name} was deleted, of which the ledger has {lanes} lanes; {STAYS}",
        remedy=elsewhere(name, lanes),
    )


def require_same_record(lane: Lane, mark: Mark, found: Mark | None) -> None:
    """Raise TopicReplaced unless `found` at the mark's offset is the record that was applied there."""
    if found is None or not same(mark, found):
        there = "no record" if found is None else f"another ({_words(found)})"
        raise TopicReplaced(
            f"{lane} isn't the log that was applied: at offset {mark.offset} the ledger has applied a record "
            f"({_words(mark)}), and the log holds {there}. It lost its end and grew again; {STAYS}",
            remedy=elsewhere(lane.topic),
        )


def same(mark: Mark, found: Mark) -> bool:
    """Whether the two are one record. What isn't known of one (-1) isn't compared."""
    numbers = zip(mark[1:3], found[1:3], strict=True)
    return mark.digest == found.digest and all(a == b or -1 in (a, b) for a, b in numbers)


def require_records(lane: Lane, next_offset: int, first: int, end: int) -> None:
    """Raise RecordsLost if Kafka doesn't have the lane's next record any more, or never had it."""
    if next_offset < first:
        raise RecordsLost(
            f"{first - next_offset} records of {lane} were deleted before they were read "
            f"(wanted offset {next_offset}, Kafka begins at {first})",
            remedy=command(f"gap accept {lane.partition} --topic", lane.topic),
        )
    if next_offset > end:
        raise RecordsLost(
            f"{lane} ends at offset {end}, but is applied up to {next_offset}: Kafka lost records; {STAYS}",
            remedy=elsewhere(lane.topic),
        )


class KnownRecords:
    """The records of the ledger's logs, for proofs: `deliveries`, of what is still the known log.

    Raises TopicReplaced at once if a log of the topic in use isn't it any more; in a topic that was left
    behind, records count as gone: nothing else can be said of them. Raises BrokerUnavailable or TopicUnfit.
    """

    def __init__(self, kafka: KafkaProperties, known: KnownLogs) -> None:
        self._kafka = kafka
        self.left_behind: dict[Lane, LedgerError] = {}
        """Lanes whose records aren't to be had any more, and why."""
        for name in sorted({row.topic for row in known.rows}):
            faults = _replaced(kafka, known, name)
            if name == known.in_use:
                for fault in faults.values():
                    raise fault
            self.left_behind |= faults

    def __call__(self, lane: Lane, first_offset: int, next_offset: int) -> Iterator[Delivery]:
        """The lane's committed records in [`first_offset`, `next_offset`), as far as they are to be had."""
        if lane in self.left_behind:
            return iter(())
        return records.deliveries(self._kafka, lane, first_offset, next_offset)


def _replaced(kafka: KafkaProperties, known: KnownLogs, name: str) -> dict[Lane, LedgerError]:
    """The lanes of the topic that aren't the known logs any more, and why. Deleted records are no reason."""
    rows = known.lanes(name)
    try:
        facts = known.inspect(kafka, name)
    except (TopicReplaced, TopicMissing) as fault:
        return {row.lane: fault for row in rows}
    marks, faults = known.compare(kafka, [facts])
    ends = {row.lane: row.next_offset for row in rows}
    return {
        own: fault
        for own, fault in faults.items()
        if not isinstance(fault, RecordsLost) or ends[own] > marks.known[own].end
    }


def look(
    kafka: KafkaProperties, rows: Iterable[LaneRow], marks: Mapping[Lane, Marks]
) -> dict[Lane, LedgerError]:
    """What is wrong with the logs of these lanes, as far as they answer in time.

    No word is no fault, and a lane without marks isn't looked at. Raises BrokerUnavailable or TopicUnfit.
    """
    faults: dict[Lane, LedgerError] = {}
    wanted: dict[Lane, Mark] = {}
    for row in rows:
        own, there = row.lane, marks.get(row.lane)
        if there is None:
            continue
        try:
            require_records(own, row.next_offset, there.first, there.end)
        except RecordsLost as lost:
            faults[own] = lost
            continue
        if row.mark and row.mark.offset >= there.first:  # else retention has removed the record
            wanted[own] = row.mark
    return faults | _compare(kafka, wanted)


def _compare(kafka: KafkaProperties, wanted: Mapping[Lane, Mark]) -> dict[Lane, LedgerError]:
    faults: dict[Lane, LedgerError] = {}
    if not wanted:
        return faults
    open_ = set(wanted)
    consumer, raw = clients.open_consumer(kafka, group=RAW_READS), RawReader(kafka)
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    try:
        consumer.assign([TopicPartition(*own, mark.offset) for own, mark in wanted.items()])
        while open_ and (left_s := deadline - time.monotonic()) > 0:
            message = consumer.poll(left_s)
            if message is None or message.partition() is None:
                continue
            own = Lane(str(message.topic()), message.partition() or 0)
            if own not in open_:
                continue
            open_.discard(own)
            if not message.error():
                found = raw.complete(own, records.delivery(message))
                faults |= _difference(own, wanted[own], found.mark)
    except KafkaException as error:
        raise clients.fault(error.args[0], "compare with the log") from error
    finally:
        raw.close()
        consumer.close()
    return faults


def _difference(lane: Lane, mark: Mark, found: Mark) -> dict[Lane, LedgerError]:
    try:
        require_same_record(lane, mark, found if found.offset == mark.offset else None)
    except TopicReplaced as replaced:
        return {lane: replaced}
    return {}


def _words(mark: Mark) -> str:
    made = datetime.fromtimestamp(mark.timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds")
    time = made if mark.timestamp_ms >= 0 else "unknown"
    return f"leader epoch {mark.leader_epoch}, time {time}, digest {mark.digest.hex()[:16]}"
