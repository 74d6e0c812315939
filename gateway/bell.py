"""Waiting in an event loop for what other threads do: they wake it once for all that is done by then.

`asyncio.wrap_future` wakes it for each future, by a write to a pipe, and at each the thread gives up the
interpreter's lock. `asyncio.wait` looks through all who wait for the same end whenever one of them goes.
"""

import asyncio
from collections import deque
from concurrent.futures import Future
from typing import Any


class Bell:
    """For one event loop. Whoever waits by it holds no thread."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()
        self._done: deque[asyncio.Future[None]] = deque()
        """Those whose wait is over, as the threads that ended it say."""
        self._is_rung = False
        self._is_over = False

    async def wait(self, future: Future[Any], timeout_s: float) -> None:
        """Wait until the future is done, at most so many seconds, or until `end`. It isn't cancelled."""
        if future.done() or self._is_over:
            return
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.add(turn)
        timer = loop.call_later(max(timeout_s, 0), _wake, turn)
        future.add_done_callback(lambda _: self._ring(loop, turn))
        try:
            await turn
        finally:
            timer.cancel()
            self._waiting.discard(turn)

    def end(self) -> None:
        """From the loop's thread: nobody waits any longer."""
        self._is_over = True
        for turn in self._waiting:
            _wake(turn)

    def _ring(self, loop: asyncio.AbstractEventLoop, turn: asyncio.Future[None]) -> None:
        self._done.append(turn)
        if not self._is_rung and not loop.is_closed():
            self._is_rung = True
            loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        self._is_rung = False  # first: what is done from here on rings again
        while self._done:
            _wake(self._done.popleft())


def _wake(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
