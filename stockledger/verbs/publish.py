"""`publish`: commands from a file into the topic."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ledger.errors import LedgerError
from ledger.figures import count, counted
from stockledger.verb.call import Answer, Call, flag, verb
from stockledger.verb.exits import Interrupted, SomeFailed
from stockledger.verb.options import per_second

if TYPE_CHECKING:
    from producer.jsonl import BadLine
    from producer.publish import Published
    from producer.tally import Tally

BAD_SHOWN_MAX = 20


@verb(topic=True)
def publish(
    call: Call,
    file: Annotated[Path, typer.Argument(help="JSON lines, or - for standard input.")],
    source: Annotated[str | None, typer.Option(help="Of lines that name none.")] = None,
    skip_bad: Annotated[bool, flag("--skip-bad", "Set bad lines aside, publish the others.")] = False,
    bad_file: Annotated[
        Path | None,
        typer.Option("--bad", metavar="FILE", help="Where --skip-bad puts them (default: NAME.bad.jsonl)."),
    ] = None,
    rejected: Annotated[Path | None, typer.Option(hidden=True, help="What --bad was called.")] = None,
    dry_run: Annotated[bool, flag("--dry-run", "Judge every line, publish nothing.")] = False,
    rate: Annotated[
        float | None, typer.Option(parser=per_second, metavar="N", help="At most so many commands a second.")
    ] = None,
    ids: Annotated[
        Path | None, typer.Option(help="Keeps the ids of lines without one (default: FILE.ids).")
    ] = None,
) -> Answer:
    """Publish commands from a file of JSON lines.

    Nothing is sent before every line was judged. Running the same again is safe: ids are kept.
    """
    from producer.progress import InputProgress
    from producer.publish import publish_lines
    from stockledger.wiring import publisher, require_known_topic

    bad, settings = _BadLines(call), call.settings(source=source)
    if not dry_run:
        require_known_topic(settings)
    with (
        publisher(settings, connects=not dry_run) as to,
        call.out.progress() as advance,
    ):

        def progress(now: InputProgress) -> None:
            left = now.bytes_total / now.bytes_done if now.bytes_done else 1
            advance(now.phase, now.lines, round(now.lines * left))  # of how many is an estimate until the end

        try:
            done = publish_lines(
                to, file, ids=ids, bad_file=bad_file or rejected, skip_bad=skip_bad, dry_run=dry_run,
                rate=rate, progress=progress, on_bad=bad.note,
            )  # fmt: skip
        except LedgerError as error:
            account = _account(to.tally)
            return Answer(account | {"bad": bad.count, "bad_lines": bad.shown}, error=error)
    return _published(call, done, bad, dry_run=dry_run)


class _BadLines:
    """The first bad lines go to stderr as they are found; there may be millions."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.count = 0
        self.shown: list[dict[str, object]] = []

    def note(self, line: "BadLine") -> None:
        self.count += 1
        if self.count <= BAD_SHOWN_MAX:
            self._call.out.note(str(line) + (f" ({line.remedy})" if line.remedy else ""), "yellow")
            self.shown.append(line._asdict())
        elif self.count == BAD_SHOWN_MAX + 1:
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
    if done.bad_file:
        call.out.note(f"{count(done.bad)} bad lines set aside in {done.bad_file}", "yellow")
    data = {
        "dry_run": dry_run, "topic": done.topic, "partitions": done.partitions, "lines": done.lines,
        "published": done.published, **_account(done.tally), "bad": done.bad, "bad_lines": bad.shown,
        "ids_made": done.ids_made, "ids": done.ids, "bad_file": done.bad_file,
        "seconds": round(done.seconds, 3),
    }  # fmt: skip
    return Answer(data, next="" if dry_run else call.onward("run --until-caught-up"), error=_shortfall(done))


def _account(tally: "Tally") -> dict[str, object]:
    """What became of what was sent, however the run ended."""
    return {"sent": sum(tally), **tally._asdict()}


def _shortfall(done: "Published") -> LedgerError | None:
    from producer.dispatch import RERUN

    if done.interrupted:
        left = f"interrupted: {count(done.published)} of {count(done.lines - done.bad)} are acknowledged"
        unknown = f", {count(done.unacknowledged)} may be in the topic or not" if done.unacknowledged else ""
        return Interrupted(left + unknown, remedy=RERUN)
    if done.bad:
        return SomeFailed(
            f"{count(done.bad)} of {count(done.lines)} lines are no commands", remedy="correct them"
        )
    return None
