"""The feeder follows the journal with short statements and hands news of it to a sink, which readers read.

One thread, one connection, one statement a poll. Whatever happens to the connection, the sink keeps what it
has, its age grows, and it goes on from there once the journal's hash there is proved: nothing is flushed.
"""

import random
import threading
import time
from collections.abc import Callable
from contextlib import closing

from ledger.cache.loading import load
from ledger.cache.sink import ENTRIES_MAX, Ended, Feed, News, Point, Sink, goes_on, passed_by
from ledger.errors import LedgerError

BACKOFF_FIRST_S = 0.05
BACKOFF_LONGEST_S = 1.0


class Feeder:
    """Keeps a sink up to date from its own thread, over one connection at a time, until `close`.

    A fault of the ledger or of the connection is told in `trouble`, and tried again with growing pauses: the
    sink keeps what it has, and goes on from there once that is proved. Any other exception is a bug: it ends
    the thread, and `on_end` is told; so does a sink that takes nothing more (`Ended`).
    """

    def __init__(
        self,
        connect: Callable[[threading.Event], Feed],
        sink: Sink,
        *,
        poll_s: float = 0.01,
        clock: Callable[[], float] = time.monotonic,
        on_end: Callable[[BaseException], None] = lambda fault: None,
    ) -> None:
        self.trouble = "it hasn't reached the database yet"
        """Why the sink isn't up to date; empty while it is."""
        self.error: LedgerError | None = None
        """The fault that is tried again."""
        self.loads = 0
        self.resets = 0
        self._connect = connect
        self._sink = sink
        self._poll_s = poll_s
        self._clock = clock
        self._on_end = on_end
        self._pause_s = BACKOFF_FIRST_S
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stockledger-feeder", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """End the thread, and its connection; one that waits for a server ends soon after."""
        self._stopping.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._connected()
        except Ended as end:
            self.trouble = str(end)
            self._on_end(end)
        except BaseException as fault:  # noqa: BLE001 (told to whoever reads: nobody else would hear of it)
            self.trouble = f"its thread was ended by a bug: {fault!r}"
            self._on_end(fault)

    def _connected(self) -> None:
        try:
            with closing(self._connect(self._stopping)) as feed:
                while not self._stopping.is_set():
                    if not self.advance(feed):
                        self._stopping.wait(self._poll_s)
        except LedgerError as error:
            self.error, self.trouble = error, error.message
        # A thousand processes that lost the same server don't come back in the same moment.
        self._stopping.wait(self._pause_s * random.uniform(0.5, 1))
        self._pause_s = min(2 * self._pause_s, BACKOFF_LONGEST_S)

    def advance(self, feed: Feed) -> bool:
        """Ask once, and hand over what came. Whether there is more to ask for at once."""
        point = self._sink.mark()
        if point is None:
            return self._load(feed, None)
        # Before the question: what is committed while its answer travels isn't in it.
        asked_at = self._clock()
        poll = feed.poll(point.position, ENTRIES_MAX)
        self._well()
        if (continues := goes_on(poll, point)) is None:
            self.trouble = (
                f"the standby is at position {poll.tip.position}, and {point.position} was read before"
            )
            return False
        if not continues:
            return self._forget(point)
        if poll.horizon > point.position:
            self.trouble = f"changes after position {point.position} were pruned: it loads the stock anew"
            return self._load(feed, point)
        passed = passed_by(poll, point)
        at = passed[-1] if passed else point
        left = poll.tip.position - at.position
        levels = [level for entry in poll.entries for level in entry.levels]
        self._sink.take(News(levels, passed, at, None if left else asked_at, poll.standby))
        self.trouble = f"it catches up: {left} entries are left" if left else ""
        return bool(left)

    def _forget(self, point: Point) -> bool:
        self.resets += 1
        self.trouble = (
            f"the ledger's hash at position {point.position} isn't the one that was read: it was restored"
            " to an older state, or is another ledger; the stock is loaded anew"
        )
        self._sink.forget(self.trouble)
        return True

    def _load(self, feed: Feed, served: Point | None) -> bool:
        done = load(feed, self._sink, served, self._clock, lambda: self._stopping.wait(self._poll_s))
        self._well()
        if done:
            self.loads += 1
            self.trouble = ""
        elif served is None:
            self.trouble = "the ledger's history changed while it loaded the stock"
        return False

    def _well(self) -> None:
        self.error, self._pause_s = None, BACKOFF_FIRST_S
