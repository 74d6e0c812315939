"""`outcome`: what became of a command, of many that can be described, or of each delivery of one."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ledger.figures import count, counted
from ledger.shell import command
from stockledger.verb.call import Answer, Call, flag, verb
from stockledger.verb.exits import NotFound, UsageError
from stockledger.verb.moment import PLACE, moment_of
from stockledger.verb.options import MinPosition, wait_for

if TYPE_CHECKING:
    from ledger.answers import RecordedOutcome
    from ledger.api import Ledger
    from ledger.store.tables.conflict import Conflict
    from ledger.store.tables.dead_letter import DeadLetter
    from stockledger.reports.deliveries import Seen

SHOWN_MAX = 10_000


@verb(topics=True)
def outcome(
    call: Call,
    id_: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="The command's id, or SOURCE/ID as it is shown.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Of this source alone.")] = None,
    like: Annotated[
        str | None, typer.Option(metavar="PREFIX", help="Of all ids that begin so, by id.")
    ] = None,
    user: Annotated[
        str | None, typer.Option(metavar="USER_ID", help="What this user did, in order: applied commands.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar=PLACE, help="Recorded after that position, or then or later.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar=PLACE, help="Recorded up to that position, or before then.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=SHOWN_MAX, metavar="N", help="The first N of many.")] = 100,
    deliveries: Annotated[
        bool, flag("--deliveries", "Each delivery of the id, also repeats; reads the topic.")
    ] = False,
    min_position: MinPosition = None,
) -> Answer:
    """What became of a command: applied or rejected, for good.

    Or of many: of ids that begin alike (--like ORDER-42), of a user, or of a time (--since, --until).
    """
    from stockledger.reports.dead_letters import naming
    from stockledger.wiring import ledger

    several = any(each is not None for each in (like, user, since, until))
    if (id_ is None) != several or (several and deliveries) or (like is not None and user is not None):
        raise UsageError(
            "it takes an ID, or --like or --user, --since and --until; --deliveries goes with an ID",
            remedy="stockledger outcome --help",
        )
    with ledger(call.settings()) as book:
        wait_for(book, min_position)
        if id_ is None:
            return _several(call, book, like, user, source, since, until, limit)
        found, id_ = _of_id(book, id_, source)
        letters = [] if found and not deliveries else naming(book, id_)
        if not found and not letters:
            return _none(call, id_)
        if deliveries:
            return _deliveries(call, book, id_, found, letters)
        return _one(call, book, found, letters)


def _of_id(book: "Ledger", id_: str, source: str | None) -> "tuple[list[RecordedOutcome], str]":
    """The outcomes, and the id: what is shown as SOURCE/ID is read back, whichever has slashes of its own."""
    found = book.outcome(id_, source)
    parts = id_.split("/")
    for number in range(1, len(parts)):
        named, rest = "/".join(parts[:number]), "/".join(parts[number:])
        if not found and source in (None, named) and (found := book.outcome(rest, named)):
            return found, rest
    return found, id_


def _none(call: Call, id_: str) -> Answer:
    raise NotFound(
        f"no command with the id {id_} was applied or rejected, and no dead letter names it",
        remedy=command("outcome --like", id_[: max(len(id_) // 2, 1)]),
    )


def _several(
    call: Call, book: "Ledger", like: str | None, user: str | None, source: str | None, since: str | None,
    until: str | None, limit: int,
) -> Answer:  # fmt: skip
    bounds = [None if text is None else moment_of(text) for text in (since, until)]
    try:
        found = book.search(
            like=like, user=user, source=source, since=bounds[0], until=bounds[1], limit=limit + 1
        )
    except ValueError as error:
        raise NotFound(str(error), remedy="stockledger status") from error
    shown = found[:limit]
    header = ("OUTCOME", "COMMAND", "RESULT", "DELIVERY", "POSITION", "RECORDED")
    call.out.table(header, [_cells(each) for each in shown])
    more = len(found) > limit
    note = (
        f"{counted(len(shown), 'command')}{f' and more: --limit {min(2 * limit, SHOWN_MAX)}' if more else ''}"
    )
    call.out.note(note, "dim")
    data = {"outcomes": [_json(each) for each in shown], "more": more}
    if user is None:
        return Answer(data)
    lag = book.lag("user_events")
    if lag:
        call.out.note(f"{counted(lag, 'position')} at the journal's end aren't followed yet", "yellow")
    return Answer(
        data | {"lag": lag}, next="stockledger project user_events --until-caught-up" if lag else ""
    )


def _one(call: Call, book: "Ledger", found: "list[RecordedOutcome]", letters: "list[DeadLetter]") -> Answer:
    from stockledger.reports.dead_letters import status_of, summary

    for each in found:
        call.out.say(*_cells(each))
        for conflict in each.conflicts:
            call.out.say("conflict", f"the same id with another payload at {conflict.lane}@{conflict.offset}")
    for letter in letters:
        call.out.say(
            "dead", status_of(book, letter), f"{letter.lane}@{letter.offset}", letter.code, letter.detail
        )
    follow = command("dlq show", f"{letters[0].lane}@{letters[0].offset}") if letters else ""
    data = {"outcomes": [_json(each) for each in found], "dead_letters": [summary(each) for each in letters]}
    return Answer(data, next=follow)


def _deliveries(
    call: Call, book: "Ledger", id_: str, found: "list[RecordedOutcome]", letters: "list[DeadLetter]"
) -> Answer:
    from stockledger.reports.deliveries import every, known

    with call.out.progress() as advance:
        seen, error = every(call.settings(), id_, known(book, id_, found, letters), advance)
    header = ("DELIVERY", "BECAME", "COMMAND", "PUBLISHED", "IN KAFKA", "DETAIL")
    call.out.table(header, [_delivery_cells(each, id_) for each in seen])
    call.out.note(
        f"{counted(len(seen), 'delivery') if len(seen) == 1 else f'{count(len(seen))} deliveries'}", "dim"
    )
    data = {
        "outcomes": [_json(each) for each in found],
        "history": [each.as_json() for each in seen],
    }
    return Answer(data, error=error)


def _cells(found: "RecordedOutcome") -> list[object]:
    result = found.reason.value if found.reason else f"{found.stream} version {found.version}"
    place = f"{found.lane}@{found.offset}"
    return [
        found.outcome.value,
        f"{found.source}/{found.id}",
        result,
        place,
        found.position,
        found.recorded_at,
    ]


def _delivery_cells(seen: "Seen", id_: str) -> list[object]:
    key = f"{seen.source or '?'}/{id_}"
    kept = "yes" if seen.in_kafka else "no"
    return [f"{seen.lane}@{seen.offset}", seen.what, key, seen.published_at, kept, seen.detail]


def _json(found: "RecordedOutcome") -> dict[str, Any]:
    return {
        "source": found.source, "id": found.id, "outcome": found.outcome, "reason": found.reason,
        "topic": found.lane.topic, "partition": found.lane.partition, "offset": found.offset,
        "position": found.position, "token": found.token, "recorded_at": found.recorded_at,
        "stream": found.stream, "version": found.version, "fingerprint": found.fingerprint.hex(),
        "conflicts": [_conflict_json(conflict) for conflict in found.conflicts],
    }  # fmt: skip


def _conflict_json(found: "Conflict") -> dict[str, Any]:
    return {
        "topic": found.lane.topic, "partition": found.lane.partition, "offset": found.offset,
        "first_fingerprint": found.first_fingerprint.hex(),
        "second_fingerprint": found.second_fingerprint.hex(),
        "position": found.position, "recorded_at": found.recorded_at,
    }  # fmt: skip
