"""Asking: `status`, `outcome`, `stock`, `verify`. None of them changes anything."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stockledger.call import Answer, Call, flag, verb
from stockledger.exits import NotFound, NotYet, UsageError
from stockledger.moment import AS_OF
from stockledger.output import count

if TYPE_CHECKING:
    from ledger.api import Ledger, RecordedOutcome
    from ledger.store.conflict import Conflict
    from stockledger.status import Status

WATCH_INTERVAL_S = 2.0
WAIT_TIMEOUT_S = 10.0
MinPosition = Annotated[
    int | None, typer.Option(min=0, metavar="N", help="Wait until the journal has this position.")
]


def percent(text: str) -> float:
    """`0.5`, `10` or `10%`. Raises what typer shows as a usage error."""
    try:
        found = float(str(text).removesuffix("%"))
    except ValueError:
        found = 0.0
    if not 0 < found <= 100:
        raise typer.BadParameter(f"{text} is no percentage above 0 and up to 100")
    return found


@verb()
def status(
    call: Call,
    watch: Annotated[bool, flag("--watch", "Show it again every two seconds, until Ctrl-C.")] = False,
) -> Answer:
    """How far the ledger is, lane by lane, and what waits.

    `-` is what isn't known: the ledger has not met the lane, or no broker answers.
    """
    from stockledger.status import read
    from stockledger.wiring import ledger

    if watch and call.out.json:
        raise UsageError("--watch and --json don't go together", remedy="run `status --json` again and again")
    settings = call.settings()
    with ledger(settings) as book:
        if watch:
            return _watch(call, lambda: read(book, settings))
        found = read(book, settings)
    _show(call, found)
    return Answer(found.as_json(), next=_follow_up(found), error=found.fault)


def _watch(call: Call, look: "Callable[[], Status]") -> Answer:
    with call.out.screen() as clear:
        try:
            while True:
                found = look()
                clear()
                _show(call, found)
                if found.fault:
                    call.out.error(found.fault)
                time.sleep(WATCH_INTERVAL_S)
        except KeyboardInterrupt:  # the way to end it, so no failure
            return Answer()


def _show(call: Call, found: "Status") -> None:
    call.out.say(
        f"position {count(found.ledger.position)}", f"lag {'-' if found.lag is None else count(found.lag)}"
    )
    call.out.say(*(f"{word} {count(number)}" for word, number in found.ledger.deliveries.items()))
    if found.ledger.rejected:
        call.out.say("rejected:", *(f"{word} {count(n)}" for word, n in found.ledger.rejected.items()))
    if any(found.ledger.dead_letters.values()):
        call.out.say(
            "dead letters:", *(f"{word} {count(n)}" for word, n in found.ledger.dead_letters.items())
        )
    if found.lanes:
        rows = [
            (lane.lane, lane.next_offset, lane.log_end_offset, lane.lag, lane.owner) for lane in found.lanes
        ]
        call.out.table(("LANE", "STORED", "END", "LAG", "LAST OWNER"), rows)
    if found.ledger.projections:
        about = [
            (each.name, each.generation, each.status, each.position, each.lag, f"{each.lag_seconds:.1f}")
            for each in found.ledger.projections
        ]
        call.out.table(("PROJECTION", "GENERATION", "STATUS", "POSITION", "LAG", "SECONDS"), about)


def _wait(book: "Ledger", min_position: int | None) -> None:
    """Read your own write: not before the journal has come so far."""
    if min_position is None:
        return
    try:
        book.wait_for_position(min_position, WAIT_TIMEOUT_S)
    except TimeoutError as error:
        raise NotYet(f"{error}", remedy="stockledger status") from error


def _follow_up(found: "Status") -> str:
    if found.ledger.dead_letters.get("parked"):  # type: ignore[call-overload]
        return "stockledger dlq list"
    return "stockledger run" if found.lag else ""


@verb()
def outcome(
    call: Call,
    id_: Annotated[str, typer.Argument(metavar="ID", help="The command's id.")],
    source: Annotated[str | None, typer.Option(help="Of this source alone.")] = None,
    min_position: MinPosition = None,
) -> Answer:
    """What became of a command: applied or rejected, for good."""
    from stockledger.wiring import ledger

    with ledger(call.settings()) as book:
        _wait(book, min_position)
        found = book.outcome(id_, source)
    if not found:
        raise NotFound(
            f"no command with the id {id_} was applied or rejected",
            remedy="`stockledger status` tells whether all is applied, `stockledger dlq list` what can't be",
        )
    for each in found:
        call.out.say(*_outcome_cells(each))
        for conflict in each.conflicts:
            call.out.say("conflict", f"the same id with another payload at {conflict.lane}@{conflict.offset}")
    return Answer({"outcomes": [_outcome_json(each) for each in found]})


def _outcome_cells(found: "RecordedOutcome") -> list[object]:
    result = found.reason.value if found.reason else f"{found.stream} version {found.version}"
    key, place = f"{found.source} {found.id}", f"{found.lane}@{found.offset}"
    return [found.outcome.value, result, key, place, f"position {found.position}", found.recorded_at]


def _outcome_json(found: "RecordedOutcome") -> dict[str, Any]:
    return {
        "source": found.source, "id": found.id, "outcome": found.outcome, "reason": found.reason,
        "topic": found.lane.topic, "partition": found.lane.partition, "offset": found.offset,
        "position": found.position, "recorded_at": found.recorded_at, "stream": found.stream,
        "version": found.version, "conflicts": [_conflict_json(conflict) for conflict in found.conflicts],
    }  # fmt: skip


def _conflict_json(found: "Conflict") -> dict[str, Any]:
    return {
        "topic": found.lane.topic, "partition": found.lane.partition, "offset": found.offset,
        "first_fingerprint": found.first_fingerprint.hex(),
        "second_fingerprint": found.second_fingerprint.hex(),
        "position": found.position, "recorded_at": found.recorded_at,
    }  # fmt: skip


@verb()
def stock(
    call: Call,
    goods_id: Annotated[str | None, typer.Argument(help="The goods (default: a table of all).")] = None,
    min_position: MinPosition = None,
    as_of: Annotated[str | None, typer.Option(metavar="POSITION|TIME", help=AS_OF)] = None,
) -> Answer:
    """How many pieces of the goods there are, or were."""
    from stockledger.past import stock_as_of
    from stockledger.wiring import ledger

    with ledger(call.settings()) as book:
        _wait(book, min_position)
        if as_of is not None or goods_id is None:
            return stock_as_of(call, book, goods_id, as_of)
        level = book.stock(goods_id)
    if level is None:
        raise NotFound(f"the goods {goods_id} were never listed", remedy="publish a ListGoods for them")
    call.out.say(level.goods_id, f"{count(level.on_hand)} on hand", f"version {level.version}")
    return Answer(level._asdict())


@verb()
def verify(
    call: Call,
    topic: Annotated[bool, flag("--topic", "Compare with Kafka's records too, one by one.")] = False,
    since: Annotated[
        int, typer.Option(min=0, metavar="POSITION", help="Only what lies behind it, and what that touched.")
    ] = 0,
    sample: Annotated[
        float | None,
        typer.Option(parser=percent, metavar="PERCENT", help="Only so much of it, chosen at random."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Choose as the run with this seed did.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Connections side by side (default: one a CPU, 4 at most)."),
    ] = None,
    anchor: Annotated[
        Path | None, typer.Option(metavar="FILE", help="If all is well, write the head's hash here.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="FILE", help="History up to this anchor must be unchanged.")
    ] = None,
) -> Answer:
    """Prove that the ledger is what it promises, rule by rule.

    Reads only, beside running workers. Keep anchors where the database's owner can't write.
    """
    from stockledger.proof import Wish, prove

    return prove(call, Wish(topic, since, sample, seed, jobs, anchor, against))
