"""The two streams of a verb where they end: nobody reads any more, or the disk is full.

Where nobody reads the rest is dropped, and the verb ends as it would have ended.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from rich.console import Console

from stockledger.verb.exits import OutputFailed


class Stdout(Console):
    """Where results go: who stops reading ends nothing, a disk that is full ends the verb."""

    @contextmanager
    def guarded(self, stream: Any) -> Iterator[None]:
        """What the stream doesn't take is dropped from here on. Raises OutputFailed but for a closed pipe."""
        try:
            yield
        except BrokenPipeError:
            self.quiet = True
            drop(stream)
        except OSError as error:
            self.quiet = True
            drop(stream)
            raise OutputFailed(
                f"the result can't be written: {error.strerror}; what was done stays done",
                remedy="make room where it goes, and run the same again",
            ) from error

    def _check_buffer(self) -> None:
        with self.guarded(self.file):
            if self.quiet:
                self._buffer.clear()
            else:
                self._write_buffer()


class Stderr(Stdout):
    """Beside the result: what it doesn't take is nobody's loss."""

    def _check_buffer(self) -> None:
        with suppress(OutputFailed):
            super()._check_buffer()


def drop(stream: TextIO) -> None:
    """What is still to be written to the stream goes nowhere, and fails no more: not at exit either."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
