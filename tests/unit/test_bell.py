"""Waiting in an event loop for other threads: woken once for many, in time, and by nothing that is gone."""

import asyncio
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from gateway.bell import Bell

MANY = 500
PATIENCE_S = 60


def futures(number: int) -> list[Future[None]]:
    return [Future() for _ in range(number)]


def finish(some: list[Future[None]]) -> None:
    for each in some:
        each.set_result(None)


def test_one_wake_serves_all_that_is_done_by_then(monkeypatch):
    """A thread finishes 500 futures while the loop is at work: it is woken once, and all go on."""
    wakes = 0

    async def main() -> None:
        nonlocal wakes
        bell, waited_for, loop = Bell(), futures(MANY), asyncio.get_running_loop()
        tasks = [asyncio.create_task(bell.wait(each, PATIENCE_S)) for each in waited_for]
        await asyncio.sleep(0)
        wake = loop.call_soon_threadsafe

        def counting(*args: Any, **options: Any) -> asyncio.Handle:
            nonlocal wakes
            wakes += 1
            return wake(*args, **options)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counting)
        thread = threading.Thread(target=finish, args=(waited_for,))
        thread.start()
        thread.join()  # the loop stands still meanwhile
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert wakes == 1


def test_whoever_waits_goes_on_whatever_the_threads_do():
    """Four threads finish futures as they like: nobody is forgotten between one wake and the next."""

    async def main() -> None:
        bell = Bell()
        for _ in range(20):
            waited_for = futures(MANY)
            threads = [threading.Thread(target=finish, args=(waited_for[n::4],)) for n in range(4)]
            tasks = [asyncio.create_task(bell.wait(each, PATIENCE_S)) for each in waited_for]
            for thread in threads:
                thread.start()
            await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S / 2)

    asyncio.run(main())


def test_a_wait_is_over_after_its_time_and_its_future_is_as_it_was():
    """Neither cancelled nor watched: what comes of it later wakes nobody, also once the loop is closed."""
    future: Future[None] = Future()
    asyncio.run(Bell().wait(future, 0.01))
    assert not future.done()
    future.set_result(None)


def test_what_is_done_is_not_waited_for():
    """Such a wait doesn't suspend."""
    future: Future[None] = Future()
    future.set_result(None)
    with pytest.raises(StopIteration):
        Bell().wait(future, PATIENCE_S).send(None)


def test_the_end_is_for_all_who_wait_and_all_who_come():
    """Whoever waits goes on at once, and so does whoever would begin to."""

    async def main() -> None:
        bell = Bell()
        tasks = [asyncio.create_task(bell.wait(each, PATIENCE_S)) for each in futures(3)]
        gone = asyncio.create_task(bell.wait(Future(), PATIENCE_S))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        bell.end()
        await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S / 2)
        await asyncio.wait_for(bell.wait(Future(), PATIENCE_S), PATIENCE_S / 2)

    asyncio.run(main())
