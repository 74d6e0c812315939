"""What happened: one box to look for anything, a command's whole life, and what a user bought."""

import asyncio
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from gateway.door import Door
from gateway.problem import Problem
from gateway.ui.pages import ROOT, page
from ledger.answers import RecordedOutcome
from ledger.domain.commands import is_key_part
from ledger.history import pages
from ledger.history.pages import PurchasePage
from ledger.store.connection.database import Connection
from ledger.store.reads import history
from ledger.store.reads.history import StoredEvent
from ledger.store.tables import journal
from ledger.store.tables.journal import StoredEntry

ALIKE_MAX = 20
BOUGHT_MAX = 50
KAFKA_WAIT_S = 10.0
END = (2**63 - 1, 0)
"""After every place."""
Id = Annotated[str, Query(max_length=512)]


class Looked:
    """What there is of a text: commands with this id, or with ids that begin so, an item, a user."""

    def __init__(self, door: Door, text: str) -> None:
        ledger, operations = door.reads.ledger, door.reads.operations
        self.commands = ledger.outcome(text) if is_key_part(text) else []
        alike = ledger.search(like=text, limit=ALIKE_MAX) if is_key_part(text) else []
        self.alike = [each for each in alike if each.id != text]
        self.letters = operations.letters_of(text)
        self.item = ledger.stock(text)
        self.similar = None if self.item else ledger.similar_goods(text)
        self.did = ledger.search(user=text, limit=ALIKE_MAX)
        self.lag = ledger.lag("user_events")

    @property
    def only(self) -> str | None:
        """The one page that can be meant."""
        is_command = bool(self.commands or self.letters)
        if self.alike or [is_command, self.item is not None, bool(self.did)].count(True) != 1:
            return None
        return "command" if is_command else "item" if self.item else "user"


def routes(door: Door) -> APIRouter:
    """The pages."""
    router = APIRouter()
    kafka = asyncio.Semaphore(1)

    @router.get(f"{ROOT}find")
    async def find(request: Request, q: Id = "") -> Response:
        text = q.strip()
        if not text:
            return page(request, "find.html", found=None)
        found = await door.ask(lambda: Looked(door, text))
        if found.only:
            return RedirectResponse(f"{ROOT}{found.only}?{urlencode({'id': text})}", 303)
        return page(request, "find.html", q=text, found=found)

    @router.get(f"{ROOT}command")
    async def command(request: Request, id: Id, deliveries: str = "") -> Response:
        found = await door.ask(lambda: door.reads.ledger.outcome(id))
        letters = await door.ask(lambda: door.reads.operations.letters_of(id))
        if not found and not letters:
            raise Problem(
                404, f"nothing was decided of the command {id}",
                remedy="it was never sent, or no worker has come to it yet: ask again later",
            )  # fmt: skip
        lives = await door.read(lambda conn: [_life(conn, each) for each in found])
        history = None
        if deliveries == "every":
            async with kafka:  # one search of the topic at a time
                history = await door.ask(lambda: door.reads.operations.deliveries(id, KAFKA_WAIT_S))
        return page(request, "command.html", q=id, id=id, lives=lives, letters=letters, every=history)

    @router.get(f"{ROOT}user")
    async def user(request: Request, id: Id, before: str = "") -> Response:
        place = _place(before) if before else END
        found = await door.read(lambda conn: _bought(conn, id, place))
        lag = await door.ask(lambda: door.reads.ledger.lag("user_events"))
        older, bought = ".".join(map(str, found.next or ())), found.purchases
        return page(request, "user.html", q=id, id=id, bought=bought, older=older, lag=lag, before=before)

    return router


def _life(conn: Connection, found: RecordedOutcome) -> dict[str, Any]:
    """The outcome with its journal entry and its event."""
    [entry] = journal.rows(conn, found.position, found.position)
    return {"outcome": found, "entry": _entry(entry), "event": _event(conn, found)}


def _entry(entry: StoredEntry) -> dict[str, Any]:
    return entry._asdict() | {"counts": entry.counts, "hash": entry.hash.hex()}


def _event(conn: Connection, found: RecordedOutcome) -> StoredEvent | None:
    if found.stream is None or found.version is None:
        return None
    return next(iter(history.of_stream(conn, found.stream, found.version - 1, found.position, 1)), None)


def _bought(conn: Connection, user_id: str, before: tuple[int, int]) -> PurchasePage:
    return pages.latest_of_user(conn, user_id, before, BOUGHT_MAX)


def _place(text: str) -> tuple[int, int]:
    position, _, ordinal = text.partition(".")
    if not (position.isascii() and position.isdigit() and ordinal.isascii() and ordinal.isdigit()):
        raise Problem.bad("before", "is no place")
    return min(int(position), END[0]), min(int(ordinal), 2**31 - 1)
