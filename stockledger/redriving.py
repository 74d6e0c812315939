"""Which dead letters are worth sending again, and sending them: acknowledged first, marked afterwards.

A crash between the two leaves a letter parked that is in the topic already. Sending it once more is harmless:
its command counts once.
"""

from collections.abc import Sequence
from enum import StrEnum

from consumer import topic
from consumer.assignment import preflight
from ledger.api import Ledger
from ledger.domain.delivery import Bad
from ledger.domain.envelope import decode
from ledger.errors import LedgerError
from ledger.store import lane
from ledger.store.dead_letter import DeadLetter, Status
from producer.redrive import Redriver
from stockledger.settings import Settings
from stockledger.wiring import database

CHUNK = 500


class Prospect(StrEnum):
    """What would become of a letter that is sent again now."""

    VALID = "valid"
    KNOWN = "known"
    DEAD = "dead"


def prospect(book: Ledger, letter: DeadLetter) -> Prospect:
    """Judge the record as this version would, and see whether its id is taken by now."""
    content = decode(letter.record.headers, letter.record.value)
    if isinstance(content, Bad):
        return Prospect.DEAD
    return Prospect.KNOWN if book.outcome(content.key.id, content.key.source) else Prospect.VALID


def redrive(
    settings: Settings, book: Ledger, letters: Sequence[DeadLetter]
) -> tuple[list[DeadLetter], LedgerError | None]:
    """Send the letters; returns those that are marked as redriven, and what kept the others from it.

    Raises before anything is sent where the broker isn't the one that the ledger was begun on, or the topic
    was made again: the records would end up where nobody looks for them.
    """
    _require_same_log(settings, sorted({letter.lane.topic for letter in letters}))
    redriver = Redriver(settings.kafka_properties())
    done: list[DeadLetter] = []
    for start in range(0, len(letters), CHUNK):
        acknowledged, fault = redriver.send(letters[start : start + CHUNK])
        for letter in acknowledged:
            book.mark(letter, Status.REDRIVEN)
            done.append(letter)
        if fault:
            return done, fault
    return done, None


def _require_same_log(settings: Settings, topics: Sequence[str]) -> None:
    kafka = settings.kafka_properties()
    with database(settings, "dlq") as conn:
        for name in topics:
            facts = topic.inspect(kafka, name)
            preflight(conn, facts, settings.group)
            for row in lane.read_all(conn):
                if row.topic == name:
                    topic.require_same_topic(name, row.topic_id, facts.topic_id)
