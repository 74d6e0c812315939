"""What the demo says while it is at work."""

import threading
from collections.abc import Callable
from typing import Self

from ledger import signals

SILENCE_S = 2.0
"""How long the demo is silent before it says what it is at."""


class Voice:
    """What the demo says; never silent for long. A context manager.

    Raises KeyboardInterrupt out of whoever speaks after `stop` was set.
    """

    def __init__(self, tell: Callable[[str], None], stop: signals.Asked) -> None:
        self._tell = tell
        self._stop = stop
        self._doing = ""
        self._over = threading.Event()
        self._spoken = threading.Event()
        self._pulse = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self._pulse.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._hush()

    def _hush(self) -> None:
        self._over.set()
        self._spoken.set()
        self._pulse.join()

    def note(self, text: str, then: str) -> None:
        """Something has happened; until the next one the demo is at `then`."""
        self.at(then)
        self._spoken.set()
        self._tell(text)

    def at(self, doing: str) -> None:
        """What the demo is at, said only if it takes long."""
        if self._stop.is_set():
            raise KeyboardInterrupt
        self._doing = doing

    def rest(self) -> None:
        """Say no more, and return once `stop` is set."""
        self._hush()
        self._stop.wait()

    def _beat(self) -> None:
        while not self._over.is_set():
            if self._spoken.wait(SILENCE_S):
                self._spoken.clear()
            else:
                self._tell(f"  ... {self._doing}")
