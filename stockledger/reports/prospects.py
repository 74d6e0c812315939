"""Which dead letters are worth sending again, and sending them: acknowledged first, marked afterwards.

A crash between the two leaves a letter parked that is in the topic already. Sending it once more is harmless:
its command counts once.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum

from consumer import known_log
from consumer.assignment import preflight
from ledger.api import Ledger
from ledger.domain.delivery import Bad
from ledger.domain.envelope import decode
from ledger.errors import LedgerError
from ledger.store.tables import identity
from ledger.store.tables.dead_letter import DeadLetter, Heading, LetterStatus
from producer.redrive import Redriver, is_sendable
from stockledger.settings import Settings
from stockledger.wiring import database

CHUNK = 500
CHUNK_BYTES = 8_000_000


class Prospect(StrEnum):
    """What would become of a letter that is sent again now."""

    VALID = "valid"
    KNOWN = "known"
    DEAD = "dead"
    UNSENDABLE = "unsendable"

    @property
    def stays(self) -> bool:
        """Whether it isn't sent, and so stays parked."""
        return self in (Prospect.DEAD, Prospect.UNSENDABLE)


def prospect(book: Ledger, letter: Heading | DeadLetter) -> Prospect:
    """Judge the record as this version would, and see whether its id is taken by now."""
    found = book.dead_letter(letter.lane, letter.offset)
    content = decode(found.record.headers, found.record.value) if found else None
    if found is None or isinstance(content, Bad | None):
        return Prospect.DEAD
    if not is_sendable(found.record):
        return Prospect.UNSENDABLE
    return Prospect.KNOWN if book.outcome(content.key.id, content.key.source) else Prospect.VALID


def sorted_out(
    book: Ledger, letters: Sequence[Heading | DeadLetter]
) -> tuple[list[Prospect], list[Heading | DeadLetter]]:
    """The prospect of each letter, and the letters that are worth sending."""
    seen = [prospect(book, letter) for letter in letters]
    return seen, [letter for letter, each in zip(letters, seen, strict=True) if not each.stays]


def redrive(
    settings: Settings, book: Ledger, letters: Sequence[Heading | DeadLetter]
) -> tuple[list[DeadLetter], LedgerError | None]:
    """Send the letters; returns those that are marked as redriven, and what kept the others from it.

    Raises before anything is sent where the broker isn't the one that the ledger was begun on, or the topic
    was made again: the records would end up where nobody looks for them.
    """
    _require_same_log(settings, sorted({letter.lane.topic for letter in letters}))
    redriver = Redriver(settings.kafka_properties())
    done: list[DeadLetter] = []
    for chunk in _chunks(book, letters):
        acknowledged, fault = redriver.send(chunk)
        for letter in acknowledged:
            book.mark(letter, LetterStatus.REDRIVEN)
            done.append(letter)
        if fault:
            return done, fault
    return done, None


def _chunks(book: Ledger, letters: Sequence[Heading | DeadLetter]) -> Iterator[list[DeadLetter]]:
    """The letters with their records, as many at a time as fit."""
    chunk: list[DeadLetter] = []
    size = 0
    for letter in letters:
        if found := book.dead_letter(letter.lane, letter.offset):
            chunk.append(found)
            size += len(found.record.packed())
        if len(chunk) == CHUNK or size > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _require_same_log(settings: Settings, topics: Sequence[str]) -> None:
    kafka = settings.kafka_properties()
    with database(settings, "dlq") as conn:
        found = preflight(conn, kafka, topics)
        for facts in found:
            identity.claim(conn, settings.group, facts.cluster_id)
        known_log.read(conn).require_same(kafka, found)
