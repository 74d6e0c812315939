"""Stock over HTTP: from the cache of this process, never older than it says; or as it was at a moment.

A read from the cache asks nobody. Whoever has a token of a purchase of his own sends it, and is answered once
the cache has come so far; in the meantime he holds no thread.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from gateway.asked import wait_s
from gateway.bodies import StockBody, StockListBody
from gateway.described import AGE, POSITION, STOCK, STOCKS
from gateway.door import Door, may
from gateway.problem import JSON, Problem, written
from gateway.tokens import Right
from ledger.cache.bands import Band
from ledger.cache.view import Snapshot
from ledger.domain.moment import given_position, moment_of
from ledger.domain.token import AnyPosition
from ledger.store.tables.stock import StockLevel

CATCH_UP_S = 1.0
"""How long the cache may take to come to a position that the ledger has."""
GOODS_MAX = 1000
MinPositionHeader = Annotated[
    str | None,
    Header(alias="Stockledger-Min-Position", description="A token, or a position: not before it is reached."),
]
AsOf = Annotated[
    str | None,
    Query(description="As it was: a position, a token, a time such as 2010-12-01T10:00:00Z, or a date."),
]


def routes(door: Door) -> APIRouter:
    """The endpoints."""
    router = APIRouter(dependencies=[Depends(may(Right.READ))])

    @router.get("/v1/stock/{goods_id:any}", responses=STOCK, summary="The stock of an item")
    async def stock(
        request: Request, goods_id: str, as_of: AsOf = None, min_position: MinPositionHeader = None
    ) -> Response:
        """From a cache, with its `Age`; with `as_of`, as it was then."""
        if as_of is not None:
            return await _then(door, goods_id, as_of)
        found = await _now(door, [goods_id], min_position, wait_s(request))
        if (level := found[goods_id]) is None:
            raise never_listed(goods_id)
        body = StockBody(**level._asdict(), token=found.token)
        return _answer(body.model_dump(), found.token, found.age_s)

    @router.get("/v1/stock", responses=STOCKS, summary="The stock of several items, all of one position")
    async def stocks(
        request: Request,
        goods_id: Annotated[
            list[str] | None, Query(max_length=GOODS_MAX, description="The items; repeatable.")
        ] = None,
        band: Annotated[Band | None, Query(description="All goods of this band instead.")] = None,
        after: Annotated[str, Query(description="Of a band, those with ids after this one.")] = "",
        limit: Annotated[int, Query(ge=1, le=GOODS_MAX, description="Of a band, so many at most.")] = 100,
        min_position: MinPositionHeader = None,
    ) -> Response:
        """Those of the given ids, or of a band: `sold_out`, `low` (below `serve --low-below`), `ample`."""
        if (band is None) == (not goods_id):
            raise Problem.bad("goods_id", "give either goods_id or band")
        if band is None:
            found = await _now(door, goods_id or [], min_position, wait_s(request))
            return _several(found, [each for each in found.values() if each], more=False)
        await _reached(door, min_position, wait_s(request))

        def look() -> tuple[Snapshot[StockLevel], list[str]]:
            found = door.reads.cache.in_band(band)
            return found, sorted(each for each in found if each > after)

        of_band, ids = await door.ask(look)
        return _several(of_band, [of_band[each] for each in ids[:limit]], more=len(ids) > limit)

    return router


async def _now(
    door: Door, goods_ids: Sequence[str], min_position: str | None, timeout_s: float
) -> Snapshot[StockLevel | None]:
    """What the cache has, once it has come so far."""
    cache = door.reads.cache
    at_least = await _reached(door, min_position, timeout_s)
    if at_least is None:
        return cache.get_many(goods_ids)  # it does no I/O, because it may not ask the database
    return await door.ask(lambda: cache.get_many(goods_ids, at_least, CATCH_UP_S))


async def _reached(door: Door, min_position: str | None, timeout_s: float) -> AnyPosition | None:
    """The position that is asked for, once the ledger has it, in the history that the token is of."""
    if min_position is None:
        return None
    try:
        at_least = given_position(min_position)
    except ValueError as error:
        raise Problem.bad("Stockledger-Min-Position", str(error)) from None
    await door.till.reached(at_least, timeout_s, door.wait)
    return at_least


async def _then(door: Door, goods_id: str, as_of: str) -> Response:
    ledger = door.reads.ledger
    try:
        at = moment_of(as_of)
        then = await door.ask(lambda: ledger.moment(at))
    except ValueError as error:
        raise Problem.bad("as_of", str(error)) from None
    level = await door.ask(lambda: ledger.stock(goods_id, as_of=then.token))
    if level is None:
        raise never_listed(goods_id)
    return _answer(StockBody(**level._asdict(), token=then.token).model_dump(), then.token, None)


def never_listed(goods_id: str) -> Problem:
    """The goods aren't there."""
    return Problem(
        404, "goods of this id were not listed", remedy="ids are compared byte for byte", goods_id=goods_id
    )


def _several(found: Snapshot[Any], levels: Sequence[StockLevel], *, more: bool) -> Response:
    body = StockListBody(token=found.token, levels=[level._asdict() for level in levels], more=more)
    return _answer(body.model_dump(), found.token, found.age_s)


def _answer(body: Mapping[str, Any], token: str, age_s: float | None) -> Response:
    age = {} if age_s is None else {AGE: str(math.ceil(age_s))}
    return Response(written(body), 200, {POSITION: token, **age}, JSON)
