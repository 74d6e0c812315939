"""The past over HTTP, in pages: events as CloudEvents, of all or of an item, and what a user bought.

A page names the place from which the next one goes on. What is committed never changes, so whoever follows
`next` to its end has everything once.
"""

import re
from collections.abc import Callable
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from gateway import streams
from gateway.asked import Limit
from gateway.described import EVENTS, POSITION, PURCHASES
from gateway.door import Door, may
from gateway.problem import JSON, Problem, written
from gateway.reports import PurchasesBody
from gateway.streams import AT_A_TIME, Following
from gateway.tokens import Right
from ledger.domain.moment import given_position
from ledger.domain.token import AnyPosition
from ledger.history import events, pages
from ledger.history.pages import EventPage
from ledger.store.connection.database import Connection
from ledger.store.reads.history import StoredEvent

LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", description="The last event that was received: go on after it.")
]
PLACE = re.compile(r"([0-9]{1,18})\.([0-9]{1,9})")


def routes(door: Door) -> APIRouter:
    """The endpoints."""
    router = APIRouter(dependencies=[Depends(may(Right.READ))])

    async def page(
        read: Callable[[Connection], EventPage], path: str, place: Callable[[StoredEvent], str], limit: int
    ) -> Response:
        found = await door.read(read)
        lines = [events.cloud_event(each, found.source).strip() for each in found.events]
        onward = written(_onward(path, place(found.events[-1]), limit) if found.more else None).strip()
        text = f'{{"events":[{",".join(lines)}],"token":"{found.token}","next":{onward.decode()}}}\n'
        return Response(text, 200, {POSITION: found.token}, JSON)

    @router.get("/v1/events", responses=EVENTS, summary="All events, in journal order")
    async def journal(
        request: Request,
        after: Annotated[
            str, Query(description="Those after this: an event's id, a position (all of it), or a token.")
        ] = "0",
        limit: Limit = 100,
        last_event_id: LastEventId = None,
    ) -> Response:
        """CloudEvents; the `id` of each is its place, `<position>.<ordinal>`.

        With `Accept: text/event-stream` it goes on with what comes. `Last-Event-ID` says where.
        """
        position, ordinal = _beginning(last_event_id or after)
        if streams.wanted(request):
            return await streams.stream(door, _of_journal(position, ordinal))
        return await page(
            lambda conn: pages.of_journal(conn, position, ordinal, limit),
            "/v1/events",
            lambda last: f"{last.position}.{last.ordinal}",
            limit,
        )

    @router.get("/v1/goods/{goods_id:any}/events", responses=EVENTS, summary="The events of an item")
    async def goods(
        request: Request,
        goods_id: str,
        after: Annotated[int, Query(ge=0, lt=2**63, description="Those after this version.")] = 0,
        limit: Limit = 100,
        last_event_id: LastEventId = None,
    ) -> Response:
        """In their order, each with its version. There are none of goods that were never listed.

        With `Accept: text/event-stream` it goes on with what comes. `Last-Event-ID` says where.
        """
        if last_event_id is not None:
            if (place := _place(last_event_id)) is None:
                raise Problem.bad("Last-Event-ID", "is no event's id")
            after = await door.read(lambda conn: pages.version_at(conn, goods_id, place))
        if streams.wanted(request):
            return await streams.stream(door, _of_goods(goods_id, after))
        return await page(
            lambda conn: pages.of_goods(conn, goods_id, after, limit),
            f"/v1/goods/{quote(goods_id, safe='')}/events",
            lambda last: str(last.version),
            limit,
        )

    @router.get("/v1/users/{user_id:any}/purchases", responses=PURCHASES, summary="What a user bought")
    async def purchases(
        user_id: str,
        after: Annotated[str, Query(description="Those after this place: from `next`.")] = "0.0",
        limit: Limit = 100,
    ) -> Response:
        """In journal order, as far as the projection `user_events` has come: `lag` is what it lacks."""
        if (place := _place(after)) is None:
            raise Problem.bad("after", "is no place")
        found = await door.read(lambda conn: pages.of_user(conn, user_id, place, limit))
        path = f"/v1/users/{quote(user_id, safe='')}/purchases"
        body = PurchasesBody.model_validate(
            {
                "purchases": [each._asdict() for each in found.purchases],
                "next": _onward(path, f"{found.next[0]}.{found.next[1]}", limit) if found.next else None,
                "lag": await door.ask(lambda: door.reads.ledger.lag("user_events")),
            }
        )
        return Response(written(body.model_dump(mode="json")), media_type=JSON)

    return router


def _of_journal(position: AnyPosition, ordinal: int | None) -> Following:
    """All events after this place."""
    return Following(
        lambda conn, known: pages.of_journal(conn, position, ordinal, AT_A_TIME, known),
        lambda last: _of_journal(last.position, last.ordinal),
        lambda end: _of_journal(end, None),
    )


def _of_goods(goods_id: str, version: int) -> Following:
    """The events of the goods after this version."""
    return Following(
        lambda conn, known: pages.of_goods(conn, goods_id, version, AT_A_TIME, known),
        lambda last: _of_goods(goods_id, last.version),
        lambda end: _of_goods(goods_id, version),
    )


def _place(text: str) -> tuple[int, int] | None:
    """The position and the ordinal of an event, which are its id; None: it is no event's."""
    found = PLACE.fullmatch(text)
    return (int(found[1]), int(found[2])) if found else None


def _beginning(after: str) -> tuple[AnyPosition, int | None]:
    """The place that is meant: of an event, or all of a position."""
    if place := _place(after):
        return place
    try:
        return given_position(after), None
    except ValueError as error:
        raise Problem.bad("after", str(error)) from None


def _onward(path: str, after: str, limit: int) -> str:
    return f"{path}?after={after}&limit={limit}"
