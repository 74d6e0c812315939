"""Dead letters: the list, a record byte for byte, and sending again, which is looked at before it is done.

What is sent again is what was looked at: where the numbers are others by then, the preview is shown anew.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from gateway.door import Door, may
from gateway.operations import RecordPlace
from gateway.problem import Problem
from gateway.tokens import Right
from gateway.ui.pages import ROOT, page
from gateway.ui.visitor import form
from ledger.domain.delivery import Lane
from ledger.store.tables.dead_letter import LetterStatus

LETTERS_MAX = 100


def routes(door: Door) -> APIRouter:
    """The pages."""
    router = APIRouter()
    operations = [Depends(may(Right.OPERATE))]

    @router.get(f"{ROOT}dead-letters")
    async def listed(
        request: Request, status: LetterStatus | None = None, code: str | None = None, after: str = ""
    ) -> Response:
        place = _place(after) if after else None
        found = await door.ask(
            lambda: door.reads.operations.dead_letters(status, code or None, LETTERS_MAX, place)
        )
        return page(
            request, "letters.html", letters=found["dead_letters"], more=found["more"], status=status,
            statuses=list(LetterStatus), code=code or "", after=after,
        )  # fmt: skip

    @router.get(f"{ROOT}dead-letter")
    async def one(
        request: Request,
        topic: str,
        partition: Annotated[int, Query(ge=0, lt=2**31)],
        offset: Annotated[int, Query(ge=0, lt=2**63)],
    ) -> Response:
        found = await door.ask(lambda: door.reads.operations.dead_letter((Lane(topic, partition), offset)))
        if found is None:
            raise Problem(404, "there is no dead letter at this place", remedy=f"see {ROOT}dead-letters")
        return page(request, "letter.html", letter=found)

    @router.get(f"{ROOT}redrive", dependencies=operations)
    async def preview(request: Request, code: str = "", record: str = "") -> Response:
        return await _preview(door, request, code, record, changed=False)

    @router.post(f"{ROOT}redrive", dependencies=operations)
    async def redrive(request: Request) -> Response:
        given = await form(request)
        code, record = given.get("code", ""), given.get("record", "")
        seen = await _look(door, code, record, dry_run=True)
        if given.get("seen") != _numbers(seen):
            return await _preview(door, request, code, record, changed=True)
        done = await _look(door, code, record, dry_run=False)
        return page(request, "redrive.html", found=done, code=code, record=record, seen="", changed=False)

    return router


async def _preview(door: Door, request: Request, code: str, record: str, *, changed: bool) -> Response:
    found = await _look(door, code, record, dry_run=True)
    status = 409 if changed else 200
    return page(
        request, "redrive.html", status, found=found, code=code, record=record, seen=_numbers(found),
        changed=changed,
    )  # fmt: skip


async def _look(door: Door, code: str, record: str, *, dry_run: bool) -> dict[str, Any]:
    place = _place(record) if record else None
    return await door.ask(lambda: door.reads.operations.redrive(code or None, dry_run=dry_run, place=place))


def _numbers(found: Mapping[str, Any]) -> str:
    """What a preview showed, for the form that acts on it."""
    told = sorted((str(name), number) for name, number in found["prospects"].items())
    return " ".join([str(found["records"]), *(f"{name}={number}" for name, number in told)])


def _place(text: str) -> RecordPlace:
    """A record as it is shown: TOPIC[PARTITION]@OFFSET."""
    lane, _, offset = text.rpartition("@")
    topic, _, partition = lane.removesuffix("]").rpartition("[")
    if not (lane.endswith("]") and _is_number(partition, 10) and _is_number(offset, 18)):
        raise Problem.bad("record", "is no record's place")
    return Lane(topic, int(partition)), int(offset)


def _is_number(text: str, digits: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) < digits
