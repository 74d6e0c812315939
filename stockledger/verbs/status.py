"""`status`: how far the ledger is, lane by lane, and what waits."""

import time
from collections.abc import Callable, Sequence
from shlex import quote
from typing import TYPE_CHECKING, Annotated

from ledger.errors import Unavailable
from ledger.figures import count
from ledger.shell import command
from stockledger.verb.call import Answer, Call, flag, verb
from stockledger.verb.exits import UsageError
from stockledger.verb.waiting import Waiting

if TYPE_CHECKING:
    from ledger.store.reads.recent import GoodsLanes, SeveralLanes
    from stockledger.reports.status import Status

WATCH_INTERVAL_S = 2.0


@verb(topics=True)
def status(
    call: Call,
    watch: Annotated[bool, flag("--watch", "Show it again every two seconds, until Ctrl-C.")] = False,
) -> Answer:
    """How far the ledger is, lane by lane, and what waits; in all topics that it has read, too.

    `-` is what isn't known: the ledger has not met the lane, or no broker answers.
    """
    from ledger import codec
    from stockledger.reports.status import read
    from stockledger.wiring import ledger

    if watch and call.out.json:
        raise UsageError("--watch and --json don't go together", remedy="stockledger status --json")
    settings = call.settings()
    with ledger(settings) as book:
        if watch:
            return _watch(call, lambda: read(book, settings))
        found = read(book, settings)
    _show(call, found)
    follow = _follow_up(call, found, settings.topics)
    data = found.as_json() | {"codec": codec.named(settings.codec).name}
    return Answer(data, next=follow, error=found.fault)


def _watch(call: Call, look: "Callable[[], Status]") -> Answer:
    waiting = Waiting(call.out)
    with call.out.screen() as clear:
        try:
            while True:
                try:
                    found = look()
                except Unavailable as error:
                    waiting.away(error)
                    time.sleep(WATCH_INTERVAL_S)
                    continue
                clear()
                waiting.back()
                _show(call, found)
                if found.fault:
                    call.out.error(found.fault)
                time.sleep(WATCH_INTERVAL_S)
        except KeyboardInterrupt:  # the way to end it, so no failure
            return Answer()


def _show(call: Call, found: "Status") -> None:
    call.out.say(f"position {found.ledger.position}", f"lag {_lag(found.lag)}")
    call.out.say(*(f"{word} {count(number)}" for word, number in found.ledger.deliveries.items()))
    if found.ledger.rejected:
        call.out.say("rejected:", *(f"{word} {count(n)}" for word, n in found.ledger.rejected.items()))
    if any(found.ledger.dead_letters.values()):
        call.out.say(
            "dead letters:", *(f"{word} {count(n)}" for word, n in found.ledger.dead_letters.items())
        )
    if found.lanes:
        rows = [
            (each.lane, each.next_offset, each.log_end_offset, _lag(each.lag), each.last_moved_at, each.owner)
            for each in found.lanes
        ]
        call.out.table(("LANE", "STORED", "END", "LAG", "LAST MOVED", "LAST OWNER"), rows)
    unknown: dict[str, list[str]] = {}
    for lane in found.lanes:
        if lane.why:
            unknown.setdefault(lane.why, []).append(str(lane.lane))
    for why, lanes in unknown.items():
        call.out.say("-", ", ".join(lanes), why)
    for warning in (*found.hidden, *found.still):
        call.out.say("warn", warning)
    if several := found.ledger.several_lanes.examples:
        _say_several(call, found.ledger.several_lanes, several[0])
    for relay in found.relays:
        call.out.say(*([] if relay.why is None else ["warn"]), relay)
    if found.ledger.sessions:
        call.out.say("connected:", *(f"{purpose} {count(n)}" for purpose, n in found.ledger.sessions.items()))
    if found.ledger.projections:
        about = [
            (
                each.name,
                each.generation,
                each.status,
                each.position,
                count(each.lag),
                f"{each.lag_seconds:.1f}",
            )
            for each in found.ledger.projections
        ]
        call.out.table(("PROJECTION", "GENERATION", "STATUS", "POSITION", "LAG", "SECONDS"), about)


def _say_several(call: Call, found: "SeveralLanes", first: "GoodsLanes") -> None:
    lanes = ", ".join(map(str, first.lanes))
    call.out.say(
        f"{count(found.goods)} of {count(found.of)} goods came by several lanes lately",
        f"{first.goods_id} by {lanes}",
    )


def _lag(records: int | None) -> str:
    return "-" if records is None else count(records)


def _follow_up(call: Call, found: "Status", named: Sequence[str]) -> str:
    if found.still:
        return _run(call, {each.lane.topic for each in found.still}, named)
    if found.ledger.dead_letters.get("parked"):  # type: ignore[call-overload]
        return "stockledger dlq list"
    return _run(call, {each.lane.topic for each in found.lanes if each.lag}, named) if found.lag else ""


def _run(call: Call, topics: set[str], named: Sequence[str]) -> str:
    """The command line that applies these topics, which may be others than those that are named."""
    if topics <= {*named}:
        return call.onward("run")
    return command("run" + "".join(f" --topic {quote(topic)}" for topic in sorted(topics)))
