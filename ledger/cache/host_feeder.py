"""Keeps a host's folder until it is told to stop, and tells its readers why it isn't up to date."""

import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Protocol

from ledger.cache.feed import PostgresFeed
from ledger.cache.feeder import Feeder
from ledger.cache.files import About
from ledger.cache.host_sink import HostSink
from ledger.errors import CacheTaken, LedgerError, Retry, Unavailable

LOOK_INTERVAL_S = 0.1
AGAIN_S = 1.0
NOTE_INTERVAL_S = 1.0


class FeederLog(Protocol):
    """Who hears how it goes. Who inherits hears only what it defines."""

    def waiting(self, trouble: str, cause: LedgerError | None) -> None:
        """The folder isn't up to date any more."""
        return

    def loaded(self, position: int, loads: int) -> None:
        """The folder is up to date: first of all, or again."""
        return

    def looked(self, sink: HostSink) -> None:
        """Its loop goes on, and this is the folder."""
        return


def keep(
    dsn: str,
    folder: Path,
    about: About,
    stop: threading.Event,
    told: FeederLog,
    *,
    poll_s: float = 0.01,
    until_loaded: bool = False,
) -> None:
    """Keep the folder until `stop` is set, or until it is loaded.

    Raises BadSettings for a folder of another ledger or purpose, CacheTaken once another feeder has it.
    """
    about = about._replace(origin=_origin(dsn, stop, told))
    if stop.is_set():
        return
    with closing(HostSink(folder, about)) as sink:
        ended: list[BaseException] = []
        feeder = Feeder(lambda gone: PostgresFeed(dsn, gone), sink, poll_s=poll_s, on_end=ended.append)
        feeder.start()
        try:
            _watch(feeder, sink, ended, stop, told, until_loaded=until_loaded)
        finally:
            feeder.close()


def _origin(dsn: str, stop: threading.Event, told: FeederLog) -> str | None:
    """The journal's hash at position 1, which tells ledgers apart; waits for a database that is away."""
    while not stop.is_set():
        try:
            with closing(PostgresFeed(dsn, stop)) as feed:
                proof = feed.poll(1, 0).proof
        except Retry as error:
            told.waiting(error.message, error)
            stop.wait(AGAIN_S)
        else:
            return proof.hex() if proof else None
    return None


def _watch(
    feeder: Feeder, sink: HostSink, ended: list[BaseException], stop: threading.Event, told: FeederLog,
    *, until_loaded: bool,
) -> None:  # fmt: skip
    said: str | None = None
    due = time.monotonic()
    while not stop.is_set() and not ended:
        trouble, error = feeder.trouble, feeder.error
        told.looked(sink)
        if trouble != said or time.monotonic() >= due:
            due = time.monotonic() + NOTE_INTERVAL_S
            with suppress(Unavailable):  # a full folder takes no notes either
                sink.note(trouble, error.code if error else None, time.monotonic())
        if trouble != said:
            said = trouble
            if trouble:
                told.waiting(trouble, error)
            elif point := sink.mark():
                told.loaded(point.position, feeder.loads)
        if until_loaded and not trouble:
            return
        stop.wait(LOOK_INTERVAL_S)
    if ended:
        raise CacheTaken(f"{ended[0]}", remedy="leave the folder to the newer one, or give another")
