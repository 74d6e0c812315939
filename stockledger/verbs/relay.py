"""`relay`: the journal to Kafka."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ledger.errors import LedgerError
from ledger.figures import counted
from stockledger.verb.call import Answer, Call, flag, verb
from stockledger.verb.exits import UsageError, interruption
from stockledger.verb.options import HttpOption, LogFormat

if TYPE_CHECKING:
    from ledger.domain.token import Token
    from ledger.store.reads.lag import JournalLag
    from producer.relay.told import RelayedStep

LATEST = "latest"


@verb(topic=True)
def relay(
    call: Call,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="PREFIX", help="Write to PREFIX-events and so on; else the command topic's name."
        ),
    ] = None,
    first: Annotated[
        str,
        typer.Option(
            "--from", metavar="PLACE", help="The first time, begin after this position or token; or: latest."
        ),
    ] = "0",
    until_caught_up: Annotated[
        bool, flag("--until-caught-up", "End once all that is in the journal now is published.")
    ] = False,
    http: HttpOption = None,
    log_format: Annotated[LogFormat, typer.Option(help="Of the logs on stderr.")] = LogFormat.AUTO,
) -> Answer:
    """Publish events, outcomes and stock to Kafka, in journal order, until stopped.

    Whoever reads committed records has each entry once, however often this is killed. Of several that write
    to the same topics, the last one works.
    """
    from consumer.log import complaints, logger
    from consumer.worker import rarely_collect_cycles
    from ledger import signals
    from ledger.telemetry.exporting import exported
    from producer.relay.outputs import Outputs
    from producer.relay.relay import Relay, RelayTerms
    from producer.relay.told import RelayLog
    from stockledger.meters import RelayMeter
    from stockledger.relay_topics import KafkaTopics
    from stockledger.watched import watched
    from stockledger.wiring import connections

    settings = call.settings(http=http)
    prefix = to or settings.only_topic("relay")
    lines = logger(log_format.value)
    log = _Log(lines)
    terms = RelayTerms(settings.kafka_properties(), Outputs.of(prefix), _place(first), until_caught_up)
    error: LedgerError | None = None
    rarely_collect_cycles()
    with (
        exported("stockledger-relay", complaints(lines)),
        signals.asked() as stop,
        watched(settings, log_format.value) as board,
    ):
        told: RelayLog = RelayMeter(log, board) if board else log
        work = Relay(connections(settings, "relay"), KafkaTopics(settings, prefix), terms, stop, told)
        try:
            signals.in_time(work.run, stop)
        except LedgerError as fault:
            error = fault
    error = error or interruption(stop, has_goal=until_caught_up)
    call.out.say(f"{counted(log.events, 'event')} and {counted(log.outcomes, 'outcome')} relayed")
    data = {"to": prefix, "events": log.events, "outcomes": log.outcomes, "token": log.token}
    return Answer(data, next="stockledger status", error=error)


def _place(text: str) -> int | str | None:
    """The position or token that is meant; None: where the journal ends."""
    from ledger.domain.moment import given_position

    if text == LATEST:
        return None
    try:
        return given_position(text)
    except ValueError as error:
        raise UsageError(f"--from: {error}", remedy="stockledger relay --help") from None


class _Log:
    """The relay's words as logs, like those of `run`; and how much was published."""

    status_interval_s = 10.0

    def __init__(self, log: Any) -> None:
        self._log = log
        self.events = self.outcomes = 0
        self._reported = 0, 0
        self.token: str | None = None

    def moved(self) -> None:
        return

    def ready(self, after: "Token") -> None:
        self.token = str(after)
        self._log.info("ready", after=self.token)

    def relayed(self, step: "RelayedStep") -> None:
        self.events, self.outcomes = self.events + step.events, self.outcomes + step.outcomes
        self.token = str(step.token)

    def status(self, at: "Token", lag: "JournalLag") -> None:
        events, outcomes = self._reported
        self._reported = self.events, self.outcomes
        self._log.info(
            "status", events=self.events - events, outcomes=self.outcomes - outcomes,
            position=at.position, lag=lag.entries,
        )  # fmt: skip

    def waiting(self, cause: LedgerError) -> None:
        self._log.warning("waiting", cause=cause.message, code=cause.code, next=cause.remedy)
