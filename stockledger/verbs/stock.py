"""`stock`: how many pieces of the goods there are, or were."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ledger.figures import count
from ledger.shell import command
from stockledger.verb.call import Answer, Call, verb
from stockledger.verb.exits import NotFound, never_listed
from stockledger.verb.moment import AS_OF, PLACE, moment_of
from stockledger.verb.options import MinPosition, wait_for
from stockledger.verb.output import plain

if TYPE_CHECKING:
    from ledger.api import Ledger
    from ledger.store.reads.history import Moment


@verb()
def stock(
    call: Call,
    goods_id: Annotated[str | None, typer.Argument(help="The goods (default: a table of all).")] = None,
    min_position: MinPosition = None,
    as_of: Annotated[str | None, typer.Option(metavar=PLACE, help=AS_OF)] = None,
) -> Answer:
    """How many pieces of the goods there are, or were."""
    from stockledger.wiring import ledger

    with ledger(call.settings()) as book:
        wait_for(book, min_position)
        if as_of is not None or goods_id is None:
            return _as_of(call, book, goods_id, as_of)
        now = book.stock_now([goods_id])
        level = now.levels.get(goods_id)
        similar = None if level else book.similar_goods(goods_id)
    if level is None:
        raise never_listed(goods_id, similar)
    call.out.say(level.goods_id, f"{count(level.on_hand)} on hand", f"version {level.version}")
    return Answer(level._asdict() | _json(now.moment))


def _as_of(call: Call, book: "Ledger", goods_id: str | None, as_of: str | None) -> Answer:
    """The stock of the goods, or of all goods, as of a position, token or time (None: now)."""
    try:
        then = book.moment(None if as_of is None else moment_of(as_of))
    except ValueError as error:
        raise NotFound(str(error), remedy="stockledger status") from error
    words = f"as of position {then.position}" + (f", {_utc(then)}" if then.recorded_at else "")
    data = _json(then)
    if goods_id is None:
        levels = book.stock_levels(as_of=then.token)
        call.out.table(("GOODS", "ON HAND", "VERSION"), [(g, count(n), v) for g, n, v in levels])
        call.out.note(f"{count(len(levels))} goods {words}")
        return Answer(data | {"goods": [level._asdict() for level in levels]})
    level = book.stock(goods_id, as_of=then.token)
    if level is None:
        raise NotFound(f"the goods {goods_id} were not listed {words}", remedy=command("why", goods_id))
    call.out.say(level.goods_id, f"{count(level.on_hand)} on hand", f"version {level.version}", words)
    return Answer(level._asdict() | data)


def _json(then: "Moment") -> dict[str, Any]:
    return {
        "token": then.token,
        "as_of": {"position": then.position, "recorded_at": then.recorded_at},
    }


def _utc(then: "Moment") -> str:
    return f"recorded {plain(then.recorded_at)}"
