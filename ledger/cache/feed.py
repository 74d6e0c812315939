"""A feed from Postgres: a session with short budgets, which gives up a server that says nothing."""

import threading

from ledger.errors import Unavailable
from ledger.store.connection.database import Budgets, Connection, connect, faults
from ledger.store.tables import stock_delta
from ledger.store.tables.stock_delta import Page, Poll

BUDGETS = Budgets(connect_timeout_s=2, lock_timeout_ms=1_000, statement_timeout_ms=5_000)
SILENCE_MAX_S = 2.0
"""A half open connection never says that it is: so long after a question it is given up for another one."""


class PostgresFeed:
    """What `stock_delta` says, on one connection that ends soon after `stopping` is set."""

    def __init__(self, dsn: str, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._conn: Connection = connect(dsn, purpose="cache", budgets=BUDGETS)
        self._conn.silence_max_s = SILENCE_MAX_S
        self._conn.on_silence = self._on_silence

    def close(self) -> None:
        """End the session."""
        self._conn.close()

    def poll(self, checkpoint: int, most: int) -> Poll:
        """See `stock_delta.poll`. Raises the ledger's faults, as `page` does."""
        with faults():
            return stock_delta.poll(self._conn, checkpoint, most)

    def page(self, after: str, rows: int) -> Page:
        """See `stock_delta.page`."""
        with faults():
            return stock_delta.page(self._conn, after, rows)

    def _on_silence(self, silent_s: float) -> None:
        if self._stopping.is_set():
            raise Unavailable("the feeder was told to stop", remedy="start it again")
