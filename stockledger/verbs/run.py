"""`run`: apply what is in the topic."""

import signal
from enum import StrEnum
from typing import Annotated

import typer

from ledger.errors import AGAIN
from ledger.figures import count
from stockledger.verb.call import Answer, Call, flag, verb
from stockledger.verb.exits import Interrupted
from stockledger.verb.options import HttpOption, LogFormat


class Start(StrEnum):
    """Where to begin in a topic that the ledger has never read."""

    EARLIEST = "earliest"
    LATEST = "latest"


@verb(topics=True, group=True)
def run(
    call: Call,
    workers: Annotated[
        int, typer.Option(min=1, max=64, metavar="N", help="Processes; partitions are shared out.")
    ] = 1,
    until_caught_up: Annotated[
        bool, flag("--until-caught-up", "End once all that is in these topics now is applied.")
    ] = False,
    start: Annotated[Start | None, typer.Option(help="Where to begin in a topic first met.")] = None,
    batch: Annotated[
        int, typer.Option(min=1, max=100_000, metavar="N", help="The most commands in one transaction.")
    ] = 5000,
    http: HttpOption = None,
    log_format: Annotated[LogFormat, typer.Option(help="Of the logs on stderr.")] = LogFormat.AUTO,
) -> Answer:
    """Apply the topics' commands, until stopped.

    Any number of these may run side by side, each on its own topics; each command counts once.
    """
    from consumer import supervisor
    from ledger.domain.outcome import Outcome
    from stockledger.watched import watched
    from stockledger.wiring import worker_settings

    chosen = call.settings(http=http)
    settings = worker_settings(
        chosen,
        start=start and start.value,
        until_caught_up=until_caught_up,
        batch_size_max=batch,
    )
    with watched(chosen, log_format.value) as board:
        totals = supervisor.run(settings, workers, log_format.value, board)
    outcomes = {outcome.value: totals.counts[outcome] for outcome in Outcome}
    words = [f"{word} {count(number)}" for word, number in outcomes.items()]
    call.out.say(*words, f"in {totals.seconds:.1f} s")
    data: dict[str, object] = {"deliveries": outcomes, "seconds": round(totals.seconds, 3)}
    if until_caught_up:
        data |= {"caught_up": totals.caught_up, "lag": totals.lag}
        if totals.signal and not totals.caught_up:
            left = "how much is left isn't known" if totals.lag is None else f"{count(totals.lag)} left"
            early = Interrupted(f"told to end before the end was reached: {left}", remedy=AGAIN)
            return Answer(data, error=early)
    elif totals.signal == signal.SIGINT:
        return Answer(data, error=Interrupted("interrupted", remedy=AGAIN))
    follow = "stockledger dlq list" if totals.counts[Outcome.DEAD] else call.onward("status")
    return Answer(data, next=follow)
