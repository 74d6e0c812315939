"""Goods: a page of them at a time, and an item's timeline with its stock as of any version."""

import heapq
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from gateway.door import Door
from gateway.problem import Problem
from gateway.stock import never_listed
from gateway.ui import chart
from gateway.ui.lookup import Id
from gateway.ui.pages import ROOT, page
from ledger.cache.bands import BANDS, Band
from ledger.domain.goods import goods_stream
from ledger.domain.moment import moment_of
from ledger.store.reads import history
from ledger.store.reads.ranges import ORDINAL_MAX
from ledger.store.tables import stock
from ledger.store.tables.stock import StockLevel

ITEMS_MAX, CHANGES_MAX = 100, 100


def routes(door: Door) -> APIRouter:
    """The pages."""
    router = APIRouter()

    def in_band(band: Band, after: str) -> list[StockLevel]:
        found = door.reads.cache.in_band(band)
        return [
            found[each] for each in heapq.nsmallest(ITEMS_MAX + 1, (each for each in found if each > after))
        ]

    @router.get(f"{ROOT}items")
    async def items(request: Request, after: Id = "", band: Band | None = None) -> Response:
        if band:
            found = await door.ask(lambda: in_band(band, after))
        else:
            found = await door.read(lambda conn: stock.listed(conn, after, ITEMS_MAX + 1))
        more = found[ITEMS_MAX - 1].goods_id if len(found) > ITEMS_MAX else None
        shown = found[:ITEMS_MAX]
        return page(request, "items.html", levels=shown, more=more, band=band, bands=BANDS, after=after)

    @router.get(f"{ROOT}item")
    async def item(
        request: Request,
        id: Id,
        version: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
        as_of: str = "",
    ) -> Response:
        if as_of.strip():
            version = await _version(door, id, as_of.strip())
        balance, changes = await door.ask(lambda: door.reads.ledger.why(id, CHANGES_MAX, version=version))
        if balance.on_hand is None and not balance.events:
            raise never_listed(id)
        last = balance.last_version or 0
        shown = last if version is None else min(version, last)
        return page(
            request, "item.html", q=id, id=id, balance=balance, changes=changes, line=chart.steps(changes),
            width=chart.WIDTH, height=chart.HEIGHT, last=last, version=shown, is_past=shown < last,
            as_of=as_of,
        )  # fmt: skip

    return router


async def _version(door: Door, goods_id: str, as_of: str) -> int:
    """The version of the goods as of a position, a token or a time."""
    try:
        at = moment_of(as_of)
        then = await door.ask(lambda: door.reads.ledger.moment(at))
    except ValueError as error:
        raise Problem.bad("as_of", str(error)) from None
    stream = goods_stream(goods_id)
    return await door.read(lambda conn: history.version_at(conn, stream, then.position, ORDINAL_MAX))
