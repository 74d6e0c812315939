"""How things stand, over HTTP: the ledger, its projections, its dead letters, and sending these again.

What Kafka has to say about it is asked by `Operations`.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel

from gateway.asked import Limit, require_media
from gateway.described import LETTERS, PROJECTIONS, REDRIVEN, STATUS, taken
from gateway.door import Door, may
from gateway.operations import Operations
from gateway.problem import JSON, written
from gateway.reports import LettersBody, ProjectionsBody, RedriveBody, StatusBody
from gateway.tokens import Right
from ledger.store.tables import projection_state
from ledger.store.tables.dead_letter import LetterStatus


def routes(door: Door) -> APIRouter:
    """The endpoints."""
    router = APIRouter()
    reads = [Depends(may(Right.READ))]

    def operations() -> Operations:
        return door.reads.operations

    @router.get("/v1/status", dependencies=reads, responses=STATUS, summary="How things stand")
    async def status() -> Response:
        """The journal's end, the lanes and their lag, and how many there are of what."""
        return _answer(StatusBody, await door.ask(operations().status))

    @router.get(
        "/v1/projections", dependencies=reads, responses=PROJECTIONS, summary="How far the projections are"
    )
    async def projections() -> Response:
        """Each generation, with its position and its lag."""
        found = await door.read(projection_state.progress)
        return _answer(ProjectionsBody, {"projections": found})

    @router.get(
        "/v1/dead-letters", dependencies=reads, responses=LETTERS, summary="Records that are no command"
    )
    async def dead_letters(
        status: Annotated[LetterStatus | None, Query(description="Those with this status; else all.")] = None,
        code: Annotated[str | None, Query(description="Those with this code.")] = None,
        limit: Limit = 100,
    ) -> Response:
        """Lane by lane in offset order, without their values: `stockledger dlq show` has those."""
        return _answer(LettersBody, await door.ask(lambda: operations().dead_letters(status, code, limit)))

    @router.post(
        "/v1/dead-letters/redrive",
        dependencies=[Depends(may(Right.OPERATE))],
        responses=REDRIVEN,
        openapi_extra=taken([], **{JSON: {"schema": {"type": "object"}, "example": {}}}),
        summary="Send dead letters again",
    )
    async def redrive(
        request: Request,
        dry_run: Annotated[bool, Query(description="Only say what would become of them.")] = True,
        code: Annotated[
            str | None, Query(description="Those with this code; else all that are parked.")
        ] = None,
    ) -> Response:
        """Byte for byte, each to its lane. What is still no valid command stays parked."""
        require_media(request, JSON)  # the body says nothing; but a form of a web page can't send this type
        return _answer(RedriveBody, await door.ask(lambda: operations().redrive(code, dry_run=dry_run)))

    return router


def _answer(model: type[BaseModel], body: dict[str, Any]) -> Response:
    return Response(written(model.model_validate(body).model_dump(mode="json")), media_type=JSON)
