"""The doctor on relays: whether each can go on, somebody lets it, and its topics keep what it published."""

from collections.abc import Iterator
from functools import partial

from ledger.shell import command
from producer.relay.outputs import Outputs
from stockledger.doctor import kafka
from stockledger.doctor.finding import FAIL, OK, WARN, Finding, Findings, attempt
from stockledger.relay_topics import KafkaTopics
from stockledger.reports import relays
from stockledger.reports.relays import RelayStatus
from stockledger.settings import Settings
from stockledger.wiring import ledger

ANOTHER = "relay to topics of another name, and tell the readers: stockledger relay --to"


def examine(settings: Settings) -> Iterator[Finding]:
    """A finding or more for each relay of this ledger."""
    for found, sessions in (yield from attempt("relay", partial(_found, settings))) or []:
        yield from _relay(settings, found, sessions)


def _found(settings: Settings) -> list[tuple[RelayStatus, int]]:
    """The relays, and how many are connected."""
    with ledger(settings) as book:
        status = book.status(counts=False)
        found = relays.find(book, settings.kafka_properties(), status.source)
        return [(each, status.sessions.get("relay", 0)) for each in found]


def _relay(settings: Settings, relay: RelayStatus, sessions: int) -> Findings[None]:
    topics = yield from attempt("relay", KafkaTopics(settings, relay.to).inspect)
    if topics is None:
        return
    if relay.why is not None:
        yield Finding(FAIL, "relay", str(relay), ANOTHER)
    elif relay.lag and not sessions:
        yield Finding(WARN, "relay", f"{relay}, and no relay is connected", command("relay --to", relay.to))
    else:
        yield Finding(OK, "relay", str(relay))
    outputs = Outputs.of(relay.to)
    for name in (outputs.events, outputs.outcomes):
        kept = kafka.retention(topics[name], "what readers have missed by then is nowhere else in Kafka")
        yield kept._replace(found=f"{name}: {kept.found}")
