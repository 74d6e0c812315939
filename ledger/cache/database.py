"""What a cache asks the database itself: an item that it lacks, one that it may not serve, an old token."""

import threading

from ledger.cache.feed import BUDGETS
from ledger.cache.turns import Turns
from ledger.domain.token import AnyPosition
from ledger.store.connection.lending import Lender
from ledger.store.reads import history
from ledger.store.reads.history import StockNow


class Database:
    """One connection, made when it is first needed. Threads take turns, and share what they ask for."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._making = threading.Lock()
        self._lender: Lender | None = None
        self._turns = Turns(self.live)

    def ask(self, goods_ids: list[str]) -> StockNow:
        """The stock of these, and maybe of more, read after the call began. Raises what a `Ledger` does."""
        return self._turns.ask(goods_ids)

    def live(self, goods_ids: set[str]) -> StockNow:
        """The stock of these goods and the position that it is of: one snapshot."""
        # What can't be an id can't be sent either: it was never listed.
        asked = [goods_id for goods_id in goods_ids if goods_id.isprintable()]
        return self._lent().ask(lambda conn: history.live(conn, asked))

    def require_reached(self, at: AnyPosition) -> None:
        """Raise HistoryChanged for a token of another history, TimeoutError for a place yet to come."""
        try:
            self._lent().ask(lambda conn: history.moment(conn, at))
        except ValueError as error:
            raise TimeoutError(str(error)) from None

    def close(self) -> None:
        """End the connection."""
        if self._lender:
            self._lender.close()

    def _lent(self) -> Lender:
        with self._making:
            self._lender = self._lender or Lender(self._dsn, "cache", BUDGETS)
            return self._lender
