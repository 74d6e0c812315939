"""A host's cache together with its feeder, which is a process of its own: `stockledger cache --into DIR`."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ledger.cache.host_cache import START_WAIT_S, HostCache

MEMORY = Path("/dev/shm")
ENDS_WITHIN_S = 60


class Hosted(HostCache):
    """Made as a StockCache is; the folder is its own, and goes with it."""

    def __init__(
        self,
        dsn: str,
        *,
        poll_s: float = 0.01,
        share: tuple[int, int] | None = None,
        partition: str | None = None,
        low_below: int | None = None,
        **options: Any,
    ) -> None:
        self._above = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.folder = self._above / "stock"
        super().__init__(self.folder, dsn=dsn, **options)
        self._words = ["--dsn", dsn, "--into", str(self.folder), "--poll", str(poll_s)]
        if share:
            self._words += ["--share", "{}/{}".format(*share)]
        if partition in ("value", "mixed"):
            self._words += ["--low-below", str(low_below or 10)]
        self._feeders: list[subprocess.Popen[bytes]] = []

    def feed(self) -> None:
        """Start a feeder of this folder."""
        self._feeders.append(subprocess.Popen([sys.executable, "-m", "stockledger", "cache", *self._words]))

    def kill_feeder(self) -> None:
        """SIGKILL to the newest one."""
        self._feeders[-1].kill()
        self._feeders.pop().wait()

    def first_ends(self) -> int:
        """Wait for the oldest one's end; its exit code."""
        return self._feeders.pop(0).wait(ENDS_WITHIN_S)

    def start(self, timeout_s: float = START_WAIT_S) -> None:
        """With a feeder, if there was none yet."""
        if not self._ended or self.folder.exists():
            super().start(timeout_s)
            return
        self.feed()
        try:
            super().start(timeout_s)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Its feeders end with it."""
        super().close()
        for feeder in self._feeders:
            feeder.terminate()
            feeder.wait(ENDS_WITHIN_S)
        shutil.rmtree(self._above, ignore_errors=True)
