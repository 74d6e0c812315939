"""What all endpoints share: the till, who may do what, how many wait, and how it all ends."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request

from gateway.bell import Bell
from gateway.measured import DoorMeter
from gateway.operations import Operations
from gateway.problem import Problem
from gateway.till import Till
from gateway.tokens import Caller, Callers, Right
from ledger.api import Ledger
from ledger.cache.stock_cache import StockCache
from ledger.domain.commands import MessageKey
from ledger.errors import LedgerError
from ledger.store.connection.database import Connection
from ledger.store.connection.lending import Lender

T = TypeVar("T")
THREADS = 4
PROBE = MessageKey("readyz", "readyz")


@dataclass(frozen=True)
class Reads:
    """What is asked: a cache, which asks nobody itself; the ledger; its past; and what operators ask."""

    cache: StockCache
    ledger: Ledger
    lender: Lender
    operations: Operations


class Room:
    """So many may be in it at once."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._taken = 0

    @property
    def taken_now(self) -> int:
        """How many are in it."""
        return self._taken

    def require(self, number: int) -> None:
        """Raise Problem where so many more can't come in; one alone always can."""
        if self._taken and self._taken + number > self._places:
            raise Problem(
                503,
                f"{self._taken} requests wait already, so this one isn't heard: nothing was published",
                remedy="send the same again later",
                retryable=True,
            )

    @contextmanager
    def taken(self, number: int = 1) -> Iterator[None]:
        """So many are in it."""
        self._taken += number
        try:
            yield
        finally:
            self._taken -= number


class Door:
    """One per process. `is_draining`: it was asked to end; what comes now had better go elsewhere."""

    def __init__(self, till: Till, reads: Reads, waiting_max: int, callers: Callers) -> None:
        self.till = till
        self.reads = reads
        self.callers = callers
        self.meter = DoorMeter()
        self.is_draining = False
        self.waits = Room(waiting_max)
        """For commands and questions that wait."""
        self.streams = Room(waiting_max)
        self._bell = Bell()
        self.wait = self._bell.wait
        """Waits in the event loop, at most until all waiting is over."""
        self._threads = ThreadPoolExecutor(THREADS, "stockledger-ask")

    async def ask(self, question: Callable[[], T], *, surely: bool = False) -> T:
        """The answer to what has to be asked in a thread; there are a few.

        Raises Problem where too many wait already, unless it must `surely` be asked.
        """
        if not surely:
            self.waits.require(1)
        with self.waits.taken():
            return await asyncio.get_running_loop().run_in_executor(self._threads, question)

    async def read(self, question: Callable[[Connection], T], *, surely: bool = False) -> T:
        """What the database answers on one of our connections; asked as by `ask`."""
        return await self.ask(lambda: self.reads.lender.ask(question), surely=surely)

    def end_waiting(self) -> None:
        """Whoever waits is told what is known by now."""
        self._bell.end()

    async def require_ready(self) -> None:
        """Raise Problem if it is to end, or Kafka or the database doesn't answer."""
        if self.is_draining:
            raise Problem(503, "it is ending", remedy="send what comes next elsewhere", retryable=True)
        [found] = await self.till.known([PROBE], self.wait)
        if fault := found if isinstance(found, LedgerError) else self.till.sender.trouble:
            raise Problem.of(fault)


def may(*rights: Right) -> Callable[[Request], Awaitable[Caller]]:
    """Who calls, who must have one of these rights."""

    async def caller(request: Request) -> Caller:
        found: Caller = request.state.caller
        if not found.rights & {*rights}:
            raise Problem(
                403, f"{found.name} may not do this: it takes the right {' or '.join(rights)}",
                remedy="use a token that has it",
            )  # fmt: skip
        return found

    return caller
