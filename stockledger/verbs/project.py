"""`project`: keep projections current."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ledger.errors import LedgerError
from ledger.figures import counted
from stockledger.verb.call import Answer, Call, flag, verb
from stockledger.verb.exits import UsageError, interruption
from stockledger.verb.options import HttpOption, LogFormat

if TYPE_CHECKING:
    from ledger.projections.projection import Projection
    from ledger.rebuilding.projector import Told
    from ledger.store.tables.projection_state import GenerationProgress


@verb()
def project(
    call: Call,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="The projections; else all.")
    ] = None,
    until_caught_up: Annotated[
        bool, flag("--until-caught-up", "End once all that is in the journal now is applied.")
    ] = False,
    drop: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Drop this one's generations, its table and its view, and end."),
    ] = None,
    http: HttpOption = None,
    log_format: Annotated[LogFormat, typer.Option(help="Of the logs on stderr.")] = LogFormat.AUTO,
) -> Answer:
    """Keep projections current, until stopped.

    Any number of these may run side by side; each event counts once.
    """
    from consumer.log import logger
    from ledger import signals
    from ledger.rebuilding.projector import Projector, Told
    from stockledger.meters import ProjectMeter
    from stockledger.watched import watched
    from stockledger.wiring import connections

    if drop is not None:
        return _drop(call, drop, also=bool(names) or until_caught_up)
    settings = call.settings(http=http)
    log = _Log(logger(log_format.value))
    error: LedgerError | None = None
    with signals.asked() as stop, watched(settings, log_format.value) as board:
        told: Told = ProjectMeter(log, board) if board else log
        projections = _chosen(names, log, told)
        projector = Projector(
            connections(settings, "project"),
            projections,
            stop=stop,
            until_caught_up=until_caught_up,
            told=told,
        )
        try:
            signals.in_time(projector.run, stop)
        except LedgerError as fault:
            error = fault
    error = error or interruption(stop, has_goal=until_caught_up)
    for projection in projections:
        call.out.say(projection.name, f"{counted(log.events[projection.name], 'event')} applied")
    data = {"applied": {projection.name: log.events[projection.name] for projection in projections}}
    return Answer(data, next="stockledger status", error=error or log.unusable)


def _chosen(names: list[str] | None, log: "_Log", told: "Told") -> "list[Projection]":
    """The projections that were named; else all, but for those whose package can't be used: they are told."""
    from ledger.projections.registry import find, installed

    if names:
        return [find(name) for name in dict.fromkeys(names)]
    projections, faults = installed()
    for fault in faults.values():
        told.fault(fault)
        log.unusable = log.unusable or fault
    return list(projections.values())


class _Log:
    """The projector's words as logs, like those of `run`; and how many events were applied, by projection."""

    status_interval_s = 10.0

    def __init__(self, log: Any) -> None:
        self._log = log
        self.events: Counter[str] = Counter()
        self._reported: Counter[str] = Counter()
        self.unusable: LedgerError | None = None

    def moved(self) -> None:
        return

    def ready(self, projections: Sequence[str]) -> None:
        self._log.info("ready", projections=list(projections))

    def applied(self, name: str, events: int) -> None:
        self.events[name] += events

    def waiting(self, cause: LedgerError, name: str = "") -> None:
        whose = {"projection": name} if name else {}
        self._log.warning("waiting", cause=cause.message, code=cause.code, next=cause.remedy, **whose)

    def back(self) -> None:
        self._log.info("goes on")

    def status(self, progress: "Sequence[GenerationProgress]") -> None:
        since = self.events - self._reported
        self._reported = self.events.copy()
        for each in progress:
            if each.status != "building":
                self._log.info(
                    "status", projection=each.name, generation=each.generation, generation_is=each.status,
                    applied=since[each.name], position=each.position, lag=each.lag,
                )  # fmt: skip

    def fault(self, fault: LedgerError) -> None:
        self._log.error("stopped", cause=fault.message, code=fault.code, next=fault.remedy)


def _drop(call: Call, name: str, *, also: bool) -> Answer:
    from ledger.rebuilding.retire import drop_projection
    from stockledger.wiring import connections

    if also:
        raise UsageError("--drop goes alone", remedy=f"stockledger project --drop {name}")
    with connections(call.settings(), "project")() as conn:
        dropped = drop_projection(conn, name)
    call.out.say(f"{name} was dropped: its view, its table and {counted(len(dropped), 'generation')}")
    return Answer({"projection": name, "dropped": dropped}, next="stockledger status")
