"""Moving commands: `publish` puts them into the topic, `run` applies them."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ledger.errors import LedgerError
from stockledger.call import Answer, Call, flag, verb
from stockledger.exits import Interrupted, SomeFailed
from stockledger.output import count, counted

if TYPE_CHECKING:
    from producer.jsonl import BadLine
    from producer.publish import Published

BAD_SHOWN_MAX = 20


class Start(StrEnum):
    """Where to begin in a topic that the ledger has never read."""

    EARLIEST = "earliest"
    LATEST = "latest"


class LogFormat(StrEnum):
    """How logs look on stderr; `auto` is `console` on a terminal, else `json`."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


@verb()
def publish(
    call: Call,
    file: Annotated[Path, typer.Argument(help="JSON lines, or - for standard input.")],
    source: Annotated[str | None, typer.Option(help="Of lines that name none.")] = None,
    skip_bad: Annotated[bool, flag("--skip-bad", "Set bad lines aside, publish the others.")] = False,
    rejected: Annotated[Path | None, typer.Option(help="Where --skip-bad puts them.")] = None,
    dry_run: Annotated[bool, flag("--dry-run", "Judge every line, publish nothing.")] = False,
    rate: Annotated[
        float | None, typer.Option(metavar="N", help="At most so many commands a second.")
    ] = None,
    ids: Annotated[
        Path | None, typer.Option(help="Keeps the ids of lines without one (default: FILE.ids).")
    ] = None,
) -> Answer:
    """Publish commands from a file of JSON lines.

    Nothing is sent before every line was judged. Running the same again is safe: ids are kept.
    """
    from producer.lines import BadInput
    from producer.progress import Progress
    from producer.publish import publish_lines
    from stockledger.wiring import publisher

    bad = _BadLines(call)
    with (
        publisher(call.settings(source=source), connects=not dry_run) as to,
        call.out.progress() as advance,
    ):

        def progress(now: Progress) -> None:
            left = now.bytes_total / now.bytes_done if now.bytes_done else 1
            advance(now.phase, now.lines, round(now.lines * left))  # of how many is an estimate until the end

        try:
            done = publish_lines(
                to, file, ids=ids, rejected=rejected, skip_bad=skip_bad, dry_run=dry_run, rate=rate,
                progress=progress, on_bad=bad.note,
            )  # fmt: skip
        except BadInput as error:
            return Answer({"bad_lines": bad.shown}, error=error)
    return _published(call, done, bad, dry_run=dry_run)


class _BadLines:
    """The first bad lines go to stderr as they are found; there may be millions."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._count = 0
        self.shown: list[dict[str, object]] = []

    def note(self, line: "BadLine") -> None:
        self._count += 1
        if self._count <= BAD_SHOWN_MAX:
            self._call.out.note(str(line) + (f" ({line.remedy})" if line.remedy else ""), "yellow")
            self.shown.append(line._asdict())
        elif self._count == BAD_SHOWN_MAX + 1:
            self._call.out.note("... and more", "yellow")


def _published(call: Call, done: "Published", bad: _BadLines, *, dry_run: bool) -> Answer:
    good = done.lines - done.bad
    if dry_run:
        call.out.say(
            f"would publish {counted(good, 'command')} to {done.topic}; {counted(done.bad, 'bad line')}"
        )
    else:
        where = f"{done.topic} ({counted(done.partitions, 'partition')})"
        call.out.say(f"published {counted(done.published, 'command')} to {where} in {done.seconds:.1f} s")
    if done.ids and not dry_run:
        call.out.note(f"{count(done.ids_made)} ids made, kept in {done.ids}")
    if done.rejected:
        call.out.note(f"{count(done.bad)} bad lines set aside in {done.rejected}", "yellow")
    data = {
        "dry_run": dry_run, "topic": done.topic, "partitions": done.partitions, "lines": done.lines,
        "published": done.published, "unacknowledged": done.unacknowledged, "bad": done.bad,
        "bad_lines": bad.shown, "ids_made": done.ids_made, "ids": done.ids, "rejected": done.rejected,
        "seconds": round(done.seconds, 3),
    }  # fmt: skip
    return Answer(data, next="" if dry_run else "stockledger run --until-caught-up", error=_shortfall(done))


def _shortfall(done: "Published") -> LedgerError | None:
    if done.interrupted:
        left = f"interrupted: {count(done.published)} of {count(done.lines - done.bad)} are acknowledged"
        unknown = f", {count(done.unacknowledged)} may be in the topic or not" if done.unacknowledged else ""
        return Interrupted(
            left + unknown, remedy="run the same again: what is in the topic has no second effect"
        )
    if done.bad:
        return SomeFailed(
            f"{count(done.bad)} of {count(done.lines)} lines are no commands", remedy="correct them"
        )
    return None


@verb()
def run(
    call: Call,
    group: Annotated[str | None, typer.Option(help="The consumer group, one for the ledger's life.")] = None,
    topic: Annotated[str | None, typer.Option(help="The command topic.")] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=64, metavar="N", help="Processes; partitions are shared out.")
    ] = 1,
    until_caught_up: Annotated[
        bool, flag("--until-caught-up", "End once all that is in the topic now is applied.")
    ] = False,
    start: Annotated[Start | None, typer.Option(help="Where to begin in a topic first met.")] = None,
    batch: Annotated[
        int, typer.Option(min=1, max=100_000, metavar="N", help="The most commands in one transaction.")
    ] = 5000,
    log_format: Annotated[LogFormat, typer.Option(help="Of the logs on stderr.")] = LogFormat.AUTO,
) -> Answer:
    """Apply the topic's commands, until stopped.

    Any number of these may run side by side; each command counts once.
    """
    from consumer import supervisor
    from ledger.domain.outcome import Outcome
    from stockledger.wiring import worker_settings

    settings = worker_settings(
        call.settings(group=group, topic=topic),
        start=start and start.value,
        until_caught_up=until_caught_up,
        batch_size_max=batch,
    )
    totals = supervisor.run(settings, workers, log_format.value)
    outcomes = {outcome.value: totals.counts[outcome] for outcome in Outcome}
    words = [f"{word} {count(number)}" for word, number in outcomes.items()]
    call.out.say(*words, f"in {totals.seconds:.1f} s")
    follow = "stockledger dlq list" if totals.counts[Outcome.DEAD] else "stockledger status"
    return Answer({"outcomes": outcomes, "seconds": round(totals.seconds, 3)}, next=follow)
