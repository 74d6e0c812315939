"""The past: `why`, `replay`. Neither of them changes anything."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ledger.errors import LedgerError
from stockledger.call import Answer, Call, flag, verb
from stockledger.exits import Interrupted, Mismatch, NotFound, UsageError
from stockledger.output import count, counted

if TYPE_CHECKING:
    from ledger.redecide import Replayed
    from ledger.store.balance import Account, Change
    from ledger.store.database import Connection
    from stockledger.settings import Settings

STDOUT = "-"


@verb()
def why(
    call: Call,
    goods_id: Annotated[str, typer.Argument(help="The goods.")],
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="The last N events.")] = 100,
) -> Answer:
    """The events behind the goods' stock.

    Each with the command that caused it, and the delivery that brought it.
    """
    from stockledger.wiring import ledger

    with ledger(call.settings()) as book:
        account, changes = book.why(goods_id, limit)
    if not account.events and account.on_hand is None:
        raise NotFound(f"the goods {goods_id} were never listed", remedy="publish a ListGoods for them")
    if earlier := account.events - len(changes):
        call.out.note(f"{counted(earlier, 'earlier event')}: --limit {account.events} shows them")
    header = ("POSITION", "RECORDED", "TYPE", "DELTA", "ON HAND", "REQUEST", "DELIVERY", "USER")
    call.out.table(header, [_row(change) for change in changes])
    agrees = (account.on_hand, account.version) == (account.sum, account.last_version)
    data = {
        "goods_id": goods_id, "on_hand": account.on_hand, "version": account.version, "sum": account.sum,
        "events": account.events, "agrees": agrees, "changes": [_json(change) for change in changes],
    }  # fmt: skip
    return (
        _balance(call, goods_id, account, data) if agrees else Answer(data, error=_differs(goods_id, account))
    )


def _balance(call: Call, goods_id: str, account: "Account", data: dict[str, Any]) -> Answer:
    events = counted(account.events, "event")
    call.out.say(goods_id, f"{count(account.sum)} on hand", f"equals the sum of {events}")
    return Answer(data)


def _differs(goods_id: str, account: "Account") -> LedgerError:
    says = "has no row" if account.on_hand is None else f"says {account.on_hand} at version {account.version}"
    words = f"{counted(account.events, 'event')} say {account.sum} at version {account.last_version}"
    return Mismatch(f"goods {goods_id}: the stock {says}, its {words}", remedy="stockledger verify")


def _row(change: "Change") -> list[object]:
    delivery = (
        None if change.lane is None else f"{change.lane}@{'?' if change.offset is None else change.offset}"
    )
    return [
        change.position, change.recorded_at, change.type, f"{change.delta:+}", count(change.on_hand),
        f"{change.key.source}/{change.key.id}", delivery, change.user_id,
    ]  # fmt: skip


def _json(change: "Change") -> dict[str, Any]:
    place = {"topic": change.lane and change.lane.topic, "partition": change.lane and change.lane.partition}
    return {
        "position": change.position, "recorded_at": change.recorded_at, "version": change.version,
        "type": change.type, "delta": change.delta, "on_hand": change.on_hand, "user_id": change.user_id,
        "source": change.key.source, "id": change.key.id, **place, "offset": change.offset,
    }  # fmt: skip


@verb()
def replay(
    call: Call,
    first: Annotated[int | None, typer.Option("--from", min=0, metavar="POSITION", help="First.")] = None,
    last: Annotated[int | None, typer.Option("--to", min=0, metavar="POSITION", help="Last.")] = None,
    stream: Annotated[str | None, typer.Option(help="Of this stream alone.")] = None,
    goods: Annotated[str | None, typer.Option(metavar="ID", help="Of these goods alone.")] = None,
    user: Annotated[str | None, typer.Option(metavar="ID", help="Of this user alone.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Such as GoodsPurchased.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Recorded then or later.")] = None,
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
    from ledger.domain.goods import stream as stream_of
    from ledger.replay import Range
    from ledger.store.history import Wanted
    from stockledger.moment import time_of

    if commands or check:
        if not (commands and check):
            raise UsageError("--commands and --check go together", remedy="stockledger replay --help")
        if (
            follow
            or into != STDOUT
            or any(o is not None for o in (first, stream, goods, user, type_, since, until))
        ):
            raise UsageError("--commands --check begins at the beginning: only --to goes with it")
        return _check_commands(call, last)
    if goods is not None and stream is not None:
        raise UsageError("--goods and --stream both name a stream", remedy="give one of them")
    if call.out.json and into == STDOUT:
        raise UsageError(
            "--json prints one object, --into - prints events",
            remedy="leave --json out, or name a file with --into",
        )
    within = Range(max(first or 1, 1), last, since and time_of(since), until and time_of(until))  # type: ignore[arg-type]
    wanted = Wanted(stream if goods is None else stream_of(goods), user, type_)
    return _write(call, into, within, wanted, follow=follow)


def _write(call: Call, into: str, within: Any, wanted: Any, *, follow: bool) -> Answer:
    from stockledger.past import write_events
    from stockledger.wiring import ledger_database

    with ledger_database(call.settings(), "replay") as conn:
        done = write_events(conn, into, within, wanted, follow=follow)
    data = {"events": done.events, "next_position": done.next_position, "into": into}
    if into != STDOUT:
        call.out.say(f"{counted(done.events, 'event')} into {into}")
    onward = f"stockledger replay --from {done.next_position}"
    if done.interrupted:
        return Answer(
            data, error=Interrupted(f"interrupted after {counted(done.events, 'event')}", remedy=onward)
        )
    call.out.note(f"{counted(done.events, 'event')}; what comes later: --from {done.next_position}", "dim")
    return Answer(data)


def _check_commands(call: Call, last: int | None) -> Answer:
    from consumer.topic import deliveries
    from ledger.redecide import redecide
    from stockledger.wiring import ledger_database

    settings = call.settings()
    kafka = {"queued.max.messages.kbytes": "4096", **settings.kafka_properties()}  # a reader for each lane
    with ledger_database(settings, "replay") as conn, call.out.progress() as advance:
        _require_same_topics(conn, settings)
        done = redecide(conn, partial(deliveries, kafka), last, lambda at, end: advance("commands", at, end))
    return _compared(call, done)


def _require_same_topics(conn: "Connection", settings: "Settings") -> None:
    from consumer import topic
    from ledger.store import lane

    begun = {row.topic: row.topic_id for row in lane.read_all(conn)}
    for name, topic_id in begun.items():
        topic.require_same_topic(name, topic_id, topic.inspect(settings.kafka_properties(), name).topic_id)


def _compared(call: Call, done: "Replayed") -> Answer:
    from ledger.domain.outcome import Outcome

    outcomes = {outcome.value: done.counts[outcome] for outcome in Outcome}
    records = sum(outcomes.values())
    data: dict[str, Any] = {"position": done.position, "records": records, "outcomes": outcomes}
    call.out.say(f"{counted(records, 'record')} up to position {count(done.position)}",
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
