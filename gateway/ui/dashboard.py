"""All pages of the dashboard, and who may see them: whoever may read."""

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from gateway.door import Door, may
from gateway.tokens import Right
from gateway.ui import items, letters, lookup, operation, overview, visitor
from gateway.ui.pages import ROOT


def routes(door: Door) -> APIRouter:
    """The pages."""

    async def named(request: Request) -> None:
        request.state.environment = door.reads.operations.environment()

    router = APIRouter(include_in_schema=False, dependencies=[Depends(named), Depends(visitor.from_here)])
    router.include_router(visitor.routes(door))
    for pages in (overview, lookup, items, operation, letters):
        router.include_router(pages.routes(door), dependencies=[Depends(may(Right.READ))])

    @router.get(ROOT.rstrip("/"))
    async def root() -> Response:
        return RedirectResponse(ROOT)

    return router
