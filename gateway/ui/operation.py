"""What operators look at: lanes and their workers, how far projections are, settings and their origin."""

from typing import NamedTuple

from fastapi import APIRouter, Request, Response

from gateway.door import Door
from gateway.ui.pages import ROOT, page
from ledger.store.connection.database import Connection
from ledger.store.reads import ranges
from ledger.store.tables import projection_state
from ledger.store.tables.projection_state import Generation, GenerationProgress


class Standing(NamedTuple):
    """A generation, how far it is, and of one that is being built how much is left, if that is known.

    `left_s` is what the rest takes at the pace of the last rebuild.
    """

    generation: Generation
    progress: GenerationProgress
    done: float | None
    left_s: float | None


def routes(door: Door) -> APIRouter:
    """The pages."""
    router = APIRouter()

    @router.get(f"{ROOT}lanes")
    async def lanes(request: Request) -> Response:
        found = await door.ask(door.reads.operations.status)
        return page(request, "lanes.html", found=found)

    @router.get(f"{ROOT}projections")
    async def projections(request: Request) -> Response:
        return page(request, "projections.html", standings=await door.read(_standings))

    @router.get(f"{ROOT}settings")
    async def settings(request: Request) -> Response:
        found = await door.ask(door.reads.operations.settings)
        return page(request, "settings.html", settings=found)

    return router


def _standings(conn: Connection) -> list[Standing]:
    progress = projection_state.progress(conn)
    found = []
    for name in dict.fromkeys(each.name for each in progress):
        built = {each.generation: each for each in projection_state.generations(conn, name)}
        rate = next((each.rate for each in built.values() if each.status == "live"), None)
        found += [
            _standing(conn, built[each.generation], each, rate)
            for each in progress
            if each.name == name and each.generation in built
        ]
    return found


def _standing(
    conn: Connection, generation: Generation, progress: GenerationProgress, rate: float | None
) -> Standing:
    if generation.status != "building" or not generation.target:
        return Standing(generation, progress, None, None)
    missing = [*generation.missing(generation.target)]
    left = sum(each.upto - each.after for each in missing) / max(generation.shares, 1)
    events = sum(ranges.events_between(conn, each.after, each.upto) for each in missing)
    left_s = events / max(generation.shares, 1) / rate if rate else None
    return Standing(generation, progress, 1 - left / generation.target, left_s)
