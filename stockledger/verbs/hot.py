"""`hot`: which goods the lanes are busy with, and what it would change to isolate them."""

from typing import TYPE_CHECKING, Annotated

import typer

from ledger.figures import count, counted
from stockledger.verb.call import Answer, Call, verb
from stockledger.verb.exits import NotFound

if TYPE_CHECKING:
    from stockledger.reports.hot import Heat

RECORDS_MAX = 1_000_000
GOODS_MAX = 1_000


@verb(topic=True)
def hot(
    call: Call,
    records: Annotated[
        int, typer.Option(min=1, max=RECORDS_MAX, metavar="N", help="Of the newest entries with N records.")
    ] = 20_000,
    limit: Annotated[int, typer.Option(min=1, max=GOODS_MAX, metavar="N", help="The first N goods.")] = 10,
) -> Answer:
    """Which goods the lanes are busy with, and what it would change to isolate them.

    Reads the newest entries' records in Kafka, because refused purchases and repeats take time too.
    Hot is what alone takes as much as a lane's fair part.
    """
    from stockledger.reports.hot import as_json, look
    from stockledger.wiring import ledger

    settings = call.settings()
    topic = settings.only_topic("hot")
    with call.out.progress() as advance:
        heat = look(settings, topic, records, advance)
    if heat is None:
        raise NotFound(
            f"nothing of {topic} was applied lately that Kafka still has",
            remedy=call.onward("run --until-caught-up"),
        )
    with ledger(settings) as book:
        listed = book.stock_now(settings.hot_goods).levels
    unlisted = [goods_id for goods_id in settings.hot_goods if goods_id not in listed]
    _show(call, heat, limit)
    for goods_id in unlisted:
        call.out.note(f"the goods {goods_id} are on the list of hot goods, and were never listed", "yellow")
    return Answer(as_json(heat, limit, unlisted))


def _show(call: Call, heat: "Heat", limit: int) -> None:
    entries = sum(each.entries for each in heat.ranges)
    on = f"on {counted(heat.partitions, 'partition')}"
    call.out.say(counted(heat.total, "record"), f"of the newest {count(entries)} entries", on)
    if heat.missing:
        call.out.note(
            f"{count(heat.missing)} offsets hold no record: gone from Kafka, or a transaction's mark"
        )
    rows = [
        (id, count(lanes.total()), _percent(lanes.total() / heat.total), " ".join(map(str, sorted(lanes))))
        for id, lanes in heat.goods(limit)
    ]
    call.out.table(("GOODS", "RECORDS", "SHARE", "PARTITIONS"), rows)
    at, busiest = heat.busiest
    goods = heat.hot(limit)
    call.out.say(
        "now:", f"the busiest partition {at} has {_percent(busiest)}",
        f"{_percent(heat.waiting(goods))} wait beside hot goods",
    )  # fmt: skip
    isolated = heat.isolated(goods)
    if isolated is None:
        call.out.say("no goods are hot" if not goods else "one partition: there is nothing to set aside")
        return
    call.out.say(
        "isolated:", f"the busiest partition has {_percent(isolated.busiest)}",
        f"{_percent(0)} wait beside hot goods", f"{_percent(isolated.moved)} come by another partition",
    )  # fmt: skip
    call.out.say(isolated.setting)


def _percent(part: float) -> str:
    return f"{part * 100:.1f} %"
