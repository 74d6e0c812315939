"""`why`: where the stock of the goods comes from."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ledger.errors import LedgerError
from ledger.figures import count, counted
from stockledger.verb.call import Answer, Call, verb
from stockledger.verb.exits import Mismatch, never_listed

if TYPE_CHECKING:
    from ledger.store.reads.balance import Balance, Change

EVENTS_MAX = 1_000_000


@verb()
def why(
    call: Call,
    goods_id: Annotated[str, typer.Argument(help="The goods.")],
    limit: Annotated[int, typer.Option(min=1, max=EVENTS_MAX, metavar="N", help="The last N events.")] = 100,
) -> Answer:
    """The events that made the goods' stock.

    Each with the command that caused it, and the delivery that brought it.
    """
    from stockledger.wiring import ledger

    with ledger(call.settings()) as book:
        balance, changes = book.why(goods_id, limit)
        unknown = not balance.events and balance.on_hand is None
        similar = book.similar_goods(goods_id) if unknown else None
    if unknown:
        raise never_listed(goods_id, similar)
    if earlier := balance.events - len(changes):
        call.out.note(f"{counted(earlier, 'earlier event')}: --limit {balance.events} shows them")
    header = ("POSITION", "RECORDED", "TYPE", "DELTA", "ON HAND", "REQUEST", "DELIVERY", "USER")
    call.out.table(header, [_row(change) for change in changes])
    agrees = (balance.on_hand, balance.version) == (balance.sum, balance.last_version)
    data = {
        "goods_id": goods_id, "on_hand": balance.on_hand, "version": balance.version, "sum": balance.sum,
        "events": balance.events, "agrees": agrees, "changes": [_json(change) for change in changes],
    }  # fmt: skip
    return (
        _balance(call, goods_id, balance, data) if agrees else Answer(data, error=_differs(goods_id, balance))
    )


def _balance(call: Call, goods_id: str, balance: "Balance", data: dict[str, Any]) -> Answer:
    events = counted(balance.events, "event")
    call.out.say(goods_id, f"{count(balance.sum)} on hand", f"equals the sum of {events}")
    return Answer(data)


def _differs(goods_id: str, balance: "Balance") -> LedgerError:
    says = "has no row"
    if balance.on_hand is not None:
        says = f"says {count(balance.on_hand)} at version {balance.version}"
    words = f"{counted(balance.events, 'event')} say {count(balance.sum)} at version {balance.last_version}"
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
