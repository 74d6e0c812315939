"""Records that Kafka deleted before they were read: `gap list`, `gap accept`."""

import os
import pwd
import socket
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ledger.errors import LedgerError
from ledger.figures import count, counted
from ledger.shell import command
from stockledger.verb.call import Answer, Call, flag, verb
from stockledger.verb.exits import NotFound

if TYPE_CHECKING:
    from consumer.gaps import PendingGap
    from ledger.store.tables.gap import RecordedGap
    from stockledger.settings import Settings

PARTITION_MAX = 2**31 - 1

app = typer.Typer(help="Offsets that were never applied: list them, accept a loss.", no_args_is_help=True)


@app.command("list")
@verb(topics=True)
def list_(call: Call) -> Answer:
    """The gaps on record, and those that wait for somebody to accept them."""
    from stockledger.wiring import ledger

    settings = call.settings()
    with ledger(settings) as book:
        recorded = book.gaps()
    waiting, fault = _waiting(settings)
    lost = [
        (
            gap.lane,
            gap.first_offset,
            gap.next_offset,
            count(gap.next_offset - gap.first_offset),
            "records_deleted",
            "waiting",
            "",
        )
        for gap in waiting
    ]
    rows = [
        (each.lane, each.gap.first_offset, each.gap.next_offset,
         count(each.gap.next_offset - each.gap.first_offset), each.gap.cause, each.gap.accepted_by,
         each.recorded_at)
        for each in recorded
    ]  # fmt: skip
    call.out.table(("LANE", "FIRST", "NEXT", "RECORDS", "CAUSE", "ACCEPTED BY", "SINCE"), [*rows, *lost])
    first = waiting[0].lane if waiting else None
    follow = command(f"gap accept {first.partition} --topic", first.topic) if first else ""
    data = {"gaps": [_recorded_json(each) for each in recorded], "waiting": [_json(each) for each in waiting]}
    return Answer(data, next=follow, error=fault)


@app.command()
@verb(topic=True)
def accept(
    call: Call,
    partition: Annotated[
        int,
        typer.Argument(metavar="PARTITION", min=0, max=PARTITION_MAX, help="Whose lost records to accept."),
    ],
    by: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who accepts it (default: this user).")
    ] = None,
    yes: Annotated[bool, flag("--yes", "Do it; without this, only say what would be done.")] = False,
) -> Answer:
    """Go on without records that Kafka doesn't have any more.

    The loss is recorded in the journal, with who accepted it. A worker that still holds the lane is fenced.
    """
    from consumer import gaps
    from stockledger.wiring import ledger_database

    settings = call.settings()
    topic = settings.only_topic("gap accept", partition)
    who = by or f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"
    with ledger_database(settings, "gap") as conn:
        found = [
            g for g in gaps.pending(conn, settings.kafka_properties(), topic) if g.lane.partition == partition
        ]
        if not found:
            raise NotFound(
                f"{topic}[{partition}] has no gap that waits",
                remedy=call.onward("gap list"),
            )
        gap = found[0]
        size = gap.next_offset - gap.first_offset
        what = f"{counted(size, 'record')} of {gap.lane}, offsets {gap.first_offset} to {gap.next_offset - 1}"
        data = {"dry_run": not yes, "gap": _json(gap), "accepted_by": who}
        if not yes:
            call.out.say(f"would go on without {what}, accepted by {who}")
            return Answer(data, next=call.onward("gap accept --yes", partition))
        position = gaps.accept(conn, gap, who)
    call.out.say(f"goes on without {what}, accepted by {who}, recorded at position {position}")
    return Answer(data | {"position": position}, next=call.onward("run"))


def _waiting(settings: "Settings") -> "tuple[list[PendingGap], LedgerError | None]":
    """The gaps of all topics that wait, and why one's aren't known where they aren't."""
    from consumer import gaps
    from stockledger.wiring import database

    found: list[PendingGap] = []
    fault = None
    for topic in settings.topics:
        try:
            with database(settings, "gap") as conn:
                found += gaps.pending(conn, settings.kafka_properties(), topic)
        except LedgerError as error:
            fault = fault or error
    return found, fault


def _json(gap: "PendingGap") -> dict[str, Any]:
    return {
        "topic": gap.lane.topic, "partition": gap.lane.partition,
        "first_offset": gap.first_offset, "next_offset": gap.next_offset,
    }  # fmt: skip


def _recorded_json(found: "RecordedGap") -> dict[str, Any]:
    place = {"topic": found.lane.topic, "partition": found.lane.partition}
    return {**place, **found.gap._asdict(), "position": found.position, "recorded_at": found.recorded_at}
