"""Questions to the database, one at a time: who asks meanwhile is answered together by the next one."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class _Round(Generic[T]):
    def __init__(self) -> None:
        self.goods_ids: set[str] = set()
        self.answer: Future[T] = Future()


class Turns(Generic[T]):
    """However many threads ask, `question` is asked once at a time, for all that were waiting by then.

    It is asked after each of them began to ask, so its answer is as new as their own would have been.
    """

    def __init__(self, question: Callable[[set[str]], T]) -> None:
        self._question = question
        self._turn = threading.Lock()
        self._joining = threading.Lock()
        self._next: _Round[T] = _Round()

    def ask(self, goods_ids: Iterable[str]) -> T:
        """The answer to a question about these, and maybe about more. Raises what the question raised."""
        with self._joining:
            ours = self._next
            ours.goods_ids.update(goods_ids)
        with self._turn:
            if not ours.answer.done():
                self._answer(ours)
        return ours.answer.result()

    def _answer(self, ours: _Round[T]) -> None:
        with self._joining:
            self._next = _Round()  # it is under way: nobody may join any more
        try:
            ours.answer.set_result(self._question(ours.goods_ids))
        except BaseException as fault:  # noqa: BLE001 (raised by `result`, to all who wait)
            ours.answer.set_exception(fault)
