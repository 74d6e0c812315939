"""`publish`: commands from a file into the topic."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ledger.errors import LedgerError
from ledger.figures import count, counted
from producer.partition_by import PARTITIONS_MAX, HotBy, PartitionBy
from stockledger.verb.call import Answer, Call, flag, verb
from stockledger.verb.exits import Interrupted, SomeFailed
from stockledger.verb.options import per_second

if TYPE_CHECKING:
    from producer.jsonl import BadLine
    from producer.publish import Published
    from producer.publisher import Publisher
    from producer.tally import Tally
    from stockledger.settings import Settings

BAD_SHOWN_MAX = 20
DRY_RUN_TIMEOUT_S = 5.0
"""How long a dry run waits for a broker to say how many partitions there are."""


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
    partition_by: Annotated[
        PartitionBy | None, typer.Option(help="Whose commands stay in order on one lane.")
    ] = None,
    hot_goods: Annotated[
        list[str] | None,
        typer.Option(metavar="GOODS", help="Of mixed: these are hot, hottest first; repeatable."),
    ] = None,
    hot_by: Annotated[
        HotBy | None, typer.Option(help="Of mixed: partitions of their own, or several by user.")
    ] = None,
    hot_partitions: Annotated[
        int | None,
        typer.Option(
            min=1, max=PARTITIONS_MAX, metavar="N", help="Of mixed: for all isolated, or each spread."
        ),
    ] = None,
) -> Answer:
    """Publish commands from a file of JSON lines.

    Nothing is sent before every line was judged. Running the same again is safe: ids are kept. A dry run also
    says which partitions the commands would go to, where a broker answers.
    """
    from ledger.telemetry.exporting import exported
    from producer.progress import InputProgress
    from producer.publish import publish_lines
    from stockledger.wiring import publisher, require_known_topic

    bad = _BadLines(call)
    settings = call.settings(
        source=source,
        partition_by=partition_by,
        hot_goods=hot_goods,
        hot_by=hot_by,
        hot_partitions=hot_partitions,
    )
    topic = settings.only_topic("publish", file)
    if not dry_run:
        require_known_topic(settings, topic)
    with (
        exported("stockledger-publish", call.out.note),
        publisher(settings, topic, connects=not dry_run) as to,
        call.out.progress() as advance,
    ):

        def progress(now: InputProgress) -> None:
            left = now.bytes_total / now.bytes_done if now.bytes_done else 1
            advance(now.phase, now.lines, round(now.lines * left))  # of how many is an estimate until the end

        unknown = _find_partitions(to, settings) if dry_run else ""
        try:
            done = publish_lines(
                to, file, ids=ids, bad_file=bad_file or rejected, skip_bad=skip_bad, dry_run=dry_run,
                rate=rate, progress=progress, on_bad=bad.note,
            )  # fmt: skip
        except LedgerError as error:
            account = _account(to.tally)
            return Answer(account | {"bad": bad.count, "bad_lines": bad.shown}, error=error)
    return (
        _planned(call, done, bad, settings.partition_by, unknown) if dry_run else _published(call, done, bad)
    )


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


def _find_partitions(to: "Publisher", settings: "Settings") -> str:
    """Ask the broker, if there is one; returns why it isn't known which partition a command would go to."""
    from ledger.errors import BrokerUnavailable, TopicUnfit
    from producer.client import KAFKAS, PARTITIONER

    if not settings.kafka:
        return "no broker is named"
    if settings.kafka.get(PARTITIONER, KAFKAS[0]) not in KAFKAS:
        return f"{PARTITIONER} isn't Kafka's own"
    try:
        to.connect(DRY_RUN_TIMEOUT_S)
    except (BrokerUnavailable, TopicUnfit) as error:
        return error.message
    return ""


def _planned(call: Call, done: "Published", bad: _BadLines, by: PartitionBy, unknown: str) -> Answer:
    good = done.lines - done.bad
    call.out.say(f"would publish {counted(good, 'command')} to {done.topic}; {counted(done.bad, 'bad line')}")
    assert done.plans
    lanes = sorted({at for plan in done.plans.values() for at in plan.lanes})
    if lanes:
        header = ("PARTITION", *(f"BY {by.upper()}" for by in done.plans))
        rows = [(at, *(count(plan.lanes[at]) for plan in done.plans.values())) for at in lanes]
        call.out.table(header, rows)
    plan = {
        "partition_by": by,
        "unknown": unknown,
        "ways": [
            {
                "partition_by": way,
                "lanes": [{"partition": at, "commands": n} for at, n in sorted(plan.lanes.items())],
                "commands": [each._asdict() for each in plan.first],
            }
            for way, plan in done.plans.items()
        ],
    }
    return Answer(_data(done, bad) | {"dry_run": True, "plan": plan}, error=_shortfall(done))


def _published(call: Call, done: "Published", bad: _BadLines) -> Answer:
    where = f"{done.topic} ({counted(done.partitions, 'partition')})"
    call.out.say(f"published {counted(done.published, 'command')} to {where} in {done.seconds:.1f} s")
    if done.ids:
        call.out.note(f"{count(done.ids_made)} ids made, kept in {done.ids}")
    if done.bad_file:
        call.out.note(f"{count(done.bad)} bad lines set aside in {done.bad_file}", "yellow")
    return Answer(_data(done, bad), next=call.onward("run --until-caught-up"), error=_shortfall(done))


def _data(done: "Published", bad: _BadLines) -> dict[str, object]:
    return {
        "dry_run": False, "topic": done.topic, "partitions": done.partitions, "lines": done.lines,
        "published": done.published, **_account(done.tally), "bad": done.bad, "bad_lines": bad.shown,
        "ids_made": done.ids_made, "ids": done.ids, "bad_file": done.bad_file,
        "seconds": round(done.seconds, 3),
    }  # fmt: skip


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
