"""How far a pass over an input is, told now and then."""

import time
from collections.abc import Callable
from typing import NamedTuple

PROGRESS_INTERVAL_S = 0.1


class InputProgress(NamedTuple):
    """How far a pass is: `check` or `publish`, in lines and in bytes of the input."""

    phase: str
    lines: int
    bytes_done: int
    bytes_total: int


class Meter:
    """Tells of one pass: whoever counts asks whether it is due, so that hardly ever a place is looked up."""

    def __init__(self, progress: Callable[[InputProgress], None], size: int, phase: str) -> None:
        self._progress, self._size, self._phase = progress, size, phase
        self._due = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the last telling is long enough ago."""
        return time.monotonic() >= self._due

    def tell(self, lines: int, bytes_done: int) -> None:
        """So many lines that aren't blank are done, up to this place in the input."""
        self._due = time.monotonic() + PROGRESS_INTERVAL_S
        self._progress(InputProgress(self._phase, lines, bytes_done, self._size))

    def end(self, lines: int) -> None:
        """The pass is over."""
        self.tell(lines, self._size)
