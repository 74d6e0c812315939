"""Commands over HTTP: one purchase, one command or many of them, and what became of one.

A command's id is its idempotency key, and the ledger's register its only memory. A "no" is an answer with
status 200. What a request can't be told it isn't: each error says whether the command may be in the topic.
"""

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request, Response

from gateway.asked import idempotency_key, one_command, one_purchase, require_media, wait_s
from gateway.bodies import OutcomeBody, PendingBody
from gateway.described import (
    COMMAND_BODY,
    DECIDED,
    DECIDED_EACH,
    FOUND,
    KEY,
    LINES_BODY,
    PREFER,
    PURCHASE_BODY,
    taken,
)
from gateway.door import Door, may
from gateway.problem import JSON, MEDIA_TYPE, Problem, written
from gateway.sender import REPEAT, Order
from gateway.till import Reply
from gateway.tokens import Caller, Right
from ledger.answers import RecordedOutcome
from ledger.domain.commands import AnyCommand, MessageKey
from ledger.domain.outcome import Outcome
from ledger.errors import LedgerError

LINES = "application/x-ndjson"
LOCATION = "/v1/commands/"
DIGITS_SHOWN = 8


class HttpAnswer(NamedTuple):
    """An answer before it is written."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]


def routes(door: Door) -> APIRouter:
    """The endpoints."""
    router = APIRouter()

    @router.post(
        "/v1/purchases",
        responses=DECIDED,
        openapi_extra=taken([KEY, PREFER], **{JSON: PURCHASE_BODY}),
        summary="Buy",
    )
    async def purchase(request: Request, caller: Annotated[Caller, Depends(may(Right.BUY))]) -> Response:
        """Publishes the purchase under its key, waits for the outcome, and answers with it.

        The same key with the same body has the same answer, whenever it is sent, and to whichever gateway.
        """
        require_media(request, JSON)
        key = MessageKey(caller.source, idempotency_key(request))
        command = one_purchase(await request.body())
        [told] = await answered(door, [Order(key, command)], wait_s(request))
        return response(told)

    @router.post(
        "/v1/commands",
        responses=DECIDED_EACH,
        openapi_extra=taken([PREFER], **{JSON: COMMAND_BODY, LINES: LINES_BODY}),
        summary="Send any commands",
    )
    async def commands(
        request: Request, caller: Annotated[Caller, Depends(may(Right.BUY, Right.OPERATE))]
    ) -> Response:
        """A JSON line of `stockledger publish`, or many. What isn't a purchase takes the right `operate`.

        Of many lines, if one isn't a command, none is published. They are published in their order; commands
        of different users and goods may still be decided in another one.
        """
        media = require_media(request, JSON, LINES)
        body = await request.body()
        lines = body.split(b"\n") if media == LINES else [body]
        orders = [
            one_command(line, number, caller)
            for number, line in enumerate(lines, 1)
            if line.strip() or media == JSON
        ]
        if not orders:
            raise Problem.bad("", "the body has no line")
        told = await answered(door, orders, wait_s(request))
        if media == JSON:
            return response(told[0])
        return Response(b"".join(written(line(each)) for each in told), media_type=LINES)

    @router.get("/v1/commands/{id:any}", responses=FOUND, summary="What became of a command")
    async def outcome(
        id: str,
        caller: Annotated[Caller, Depends(may(Right.BUY, Right.READ))],
        source: Annotated[str | None, Query(description="Whose command it is; else the token's own.")] = None,
    ) -> Response:
        """Of one's own source; to ask for others takes the right `read`."""
        key = MessageKey(caller.source if source is None else source, id)
        if key.source != caller.source and Right.READ not in caller.rights:
            raise Problem(
                403, "to ask for commands of another source takes the right read", remedy="leave source out"
            )
        [found] = await door.till.known([key], door.wait)
        if isinstance(found, LedgerError):
            raise Problem.of(found)
        if found is None:
            raise Problem(
                404, "not decided yet, or never sent", remedy=REPEAT, retryable=True, source=key.source, id=id
            )
        return response(HttpAnswer(200, body_of(found), {}))

    return router


async def answered(door: Door, orders: Sequence[Order], timeout_s: float) -> list[HttpAnswer]:
    """What became of each order, in their order."""
    door.waits.require(len(orders))
    with door.waits.taken(len(orders)):
        replies = await door.till.answers(orders, timeout_s, door.wait)
    return [told(reply, door.till.topic, order.command) for reply, order in zip(replies, orders, strict=True)]


def told(reply: Reply, topic: str, command: AnyCommand) -> HttpAnswer:
    """The answer as HTTP has it."""
    source, id = reply.key
    if found := reply.outcome:
        if found.outcome is Outcome.CONFLICT:
            return _refused(conflict(found))
        return HttpAnswer(200, body_of(found), {"Idempotent-Replayed": "true"} if reply.replayed else {})
    if reply.error:
        return _refused(Problem.of(reply.error, source=source, id=id))
    assert reply.receipt
    headers = {"Location": LOCATION + quote(id, safe=""), "Retry-After": "1"}
    return HttpAnswer(202, PendingBody.of(reply.receipt, topic).model_dump(mode="json"), headers)


def conflict(found: RecordedOutcome) -> Problem:
    """The key was first used for something else."""
    first, asked = (each.hex()[:DIGITS_SHOWN] for each in (found.fingerprint, found.asked or b""))
    return Problem(
        422,
        f"the key {found.id} was first used for another payload: its fingerprint begins with {first}, this "
        f"one's with {asked}; this one isn't applied and never will be",
        remedy="make a new key for what is a new command",
        source=found.source,
        id=found.id,
        first_fingerprint=first,
        fingerprint=asked,
    )


def _refused(problem: Problem) -> HttpAnswer:
    return HttpAnswer(problem.status, problem.told(), problem.headers)


def body_of(found: RecordedOutcome) -> dict[str, Any]:
    """The outcome's body."""
    return OutcomeBody.of(found).model_dump(mode="json")


def line(told: HttpAnswer) -> dict[str, Any]:
    """One answer of many: the body that a request of its own would have been told, and its status."""
    replayed = {"replayed": True} if "Idempotent-Replayed" in told.headers else {}
    return {"status": told.status} | told.body | replayed


def response(told: HttpAnswer) -> Response:
    """The response."""
    media = MEDIA_TYPE if told.status >= 400 else JSON
    return Response(written(told.body), told.status, told.headers, media)
