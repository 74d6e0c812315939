"""`replay`: the events of a range again, or the decisions."""

from datetime import datetime
from functools import partial
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ledger.errors import LedgerError, Unavailable
from ledger.figures import count, counted
from stockledger.verb.call import Answer, Call, flag, verb
from stockledger.verb.exits import Interrupted, Mismatch, OutputFailed, UsageError
from stockledger.verb.moment import PLACE, POSITION, given_position, moment_of, time_of

if TYPE_CHECKING:
    from ledger.history.decisions import Replayed
    from ledger.history.events import Window

STDOUT = "-"


@verb()
def replay(
    call: Call,
    first: Annotated[str | None, typer.Option("--from", metavar=POSITION, help="First.")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar=POSITION, help="Last.")] = None,
    stream: Annotated[str | None, typer.Option(help="Of this stream alone.")] = None,
    goods: Annotated[str | None, typer.Option(metavar="ID", help="Of these goods alone.")] = None,
    user: Annotated[str | None, typer.Option(metavar="ID", help="Of this user alone.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Such as GoodsPurchased.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar=PLACE, help="Recorded after that position, or then or later.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Recorded before then.")] = None,
    follow: Annotated[bool, flag("--follow", "Go on with what comes, until Ctrl-C.")] = False,
    into: Annotated[str, typer.Option(metavar="FILE", help="A new file, or - for stdout.")] = STDOUT,
    commands: Annotated[bool, flag("--commands", "The commands of the topic instead; with --check.")] = False,
    check: Annotated[bool, flag("--check", "Decide them again and compare the outcomes.")] = False,
) -> Answer:
    """Write events as CloudEvents, one JSON line each; reads only.

    With --commands --check: prove that the outcomes are those of one command after the other. A TIME is a
    date (its 00:00 UTC) or RFC 3339.
    """
    from ledger.domain.goods import goods_stream
    from ledger.store.reads.history import Wanted

    if commands or check:
        if not (commands and check):
            raise UsageError("--commands and --check go together", remedy="stockledger replay --help")
        if (
            follow
            or into != STDOUT
            or any(o is not None for o in (first, stream, goods, user, type_, since, until))
        ):
            raise UsageError(
                "--commands --check begins at the beginning: only --to goes with it",
                remedy="stockledger replay --commands --check",
            )
        return _check_commands(call, last)
    if goods is not None and stream is not None:
        raise UsageError("--goods and --stream both name a stream", remedy="give one of them")
    if call.out.json and into == STDOUT:
        raise UsageError(
            "--json prints one object, --into - prints events",
            remedy="leave --json out, or name a file with --into",
        )
    within = _window(first, last, since, until)
    wanted = Wanted(stream if goods is None else goods_stream(goods), user, type_)
    same = {"--to": last, "--stream": wanted.stream, "--user": user, "--type": type_, "--until": until}
    return _write(call, into, within, wanted, same, follow=follow)


def _window(first: str | None, last: str | None, since: str | None, until: str | None) -> "Window":
    from ledger.domain.token import position_of
    from ledger.history.events import Window

    after = 0 if since is None else moment_of(since)
    begin = 1 if first is None else given_position(first)
    end = None if last is None else given_position(last)
    following = 1 if isinstance(after, datetime) else position_of(after) + 1
    return Window(
        max(1, position_of(begin), following),
        None if end is None else position_of(end),
        after if isinstance(after, datetime) else None,
        time_of(until) if until else None,
        tuple(at for at in (begin, end, after) if isinstance(at, str)),
    )


def _write(call: Call, into: str, within: Any, wanted: Any, same: dict[str, Any], *, follow: bool) -> Answer:
    from stockledger.reports.event_lines import Written, write_events
    from stockledger.verb.waiting import Waiting
    from stockledger.wiring import ledger_database

    done, error = Written(next_position=within.first), cast("LedgerError | None", None)
    connect = partial(ledger_database, call.settings(), "replay")
    try:
        write_events(connect, into, within, wanted, done, Waiting(call.out) if follow else None)
    except (Unavailable, OutputFailed) as fault:
        error = fault
    written = f"{counted(done.events, 'event')}{'' if into == STDOUT else f' into {into}'}"
    data = {"events": done.events, "next_position": done.next_position, "into": into}
    onward = _onward(into, same, done.next_position, follow=follow)
    if done.interrupted:
        error = Interrupted(f"interrupted; {written}", remedy=onward)
    elif error and done.events:
        error.message += f"; {written}, whole lines only"
        error.remedy = onward
    if error or done.unread:
        return Answer(data, error=error)
    if into != STDOUT:
        call.out.say(written)
    call.out.note(f"{counted(done.events, 'event')}; what comes later: --from {done.next_position}", "dim")
    return Answer(data)


def _onward(into: str, same: dict[str, Any], first: int, *, follow: bool) -> str:
    """The command that goes on there, into another file, with all that the first one asked for."""
    options = {"--from": first, **same, "--into": None if into == STDOUT else f"{into}.from-{first}"}
    words = [f"{name} {quote(str(value))}" for name, value in options.items() if value is not None]
    return " ".join(["stockledger replay", *words, *(["--follow"] if follow else [])])


def _check_commands(call: Call, last: str | None) -> Answer:
    from consumer import known_log
    from ledger.history.decisions import redecide
    from ledger.store.reads import history
    from stockledger.wiring import ledger_database

    end, settings = None if last is None else given_position(last), call.settings()
    kafka = {"queued.max.messages.kbytes": "4096", **settings.kafka_properties()}  # a reader for each lane
    with ledger_database(settings, "replay") as conn, call.out.progress() as advance:
        upto = None if end is None else history.proven(conn, end)
        records = known_log.KnownRecords(kafka, known_log.read(conn))
        done = redecide(conn, records, upto, lambda at, end: advance("commands", at, end))
    return _compared(call, done)


def _compared(call: Call, done: "Replayed") -> Answer:
    from ledger.domain.outcome import Outcome

    outcomes = {outcome.value: done.counts[outcome] for outcome in Outcome}
    records = sum(outcomes.values())
    data: dict[str, Any] = {"position": done.position, "records": records, "deliveries": outcomes}
    call.out.say(f"{counted(records, 'record')} up to position {done.position}",
                 *(f"{word} {count(number)}" for word, number in outcomes.items()))  # fmt: skip
    found = done.difference
    if found is None:
        call.out.say("agrees: every outcome, reason, version and event is what a sequential run gives")
        return Answer(data | {"agrees": True})
    first = {
        "position": found.position, "topic": found.lane.topic, "partition": found.lane.partition,
        "offset": found.offset, "source": found.key and found.key.source, "id": found.key and found.key.id,
        "expected": found.expected, "recorded": found.recorded,
    }  # fmt: skip
    remedy = "stop the workers, keep database and topic as they are, and report it; stockledger verify"
    return Answer(data | {"agrees": False, "difference": first}, error=Mismatch(str(found), remedy=remedy))
