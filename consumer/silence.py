"""While the database says nothing: asks once what it waits for, and ends the wait where we are to end.

The server's own timeouts don't end every wait: a COMMIT waits for a lost standby for ever, and a lock that is
tried again and again is one wait to whoever looks at it.
"""

from collections.abc import Callable

from ledger.errors import Held, LedgerError, Unavailable
from ledger.store.connection import obstacle
from ledger.store.connection.database import Budgets, Connection, connect, faults

LOOK_AFTER_S = 1.5
"""Before the lock timeout, after which nobody waits any more."""
ENDING_MAX_S = 2.0
"""How long a silent database may hold up the end: less than is left for all of it."""
LOOKING = Budgets(connect_timeout_s=2, lock_timeout_ms=500, statement_timeout_ms=1_000)


class Silence:
    """Knows what one session waits for. Told about it by `Connection.on_silence`."""

    def __init__(
        self, conn: Connection, dsn: str, is_ending: Callable[[], bool], say: Callable[[Held], None]
    ) -> None:
        self.held: Held | None = None
        """What the last wait was for, if somebody else was to blame."""
        self._conn = conn
        self._dsn = dsn
        self._is_ending = is_ending
        self._say = say
        self._looked = False

    def __call__(self, silent_s: float) -> None:
        """Raises Held or Unavailable where it takes too long: the batch is undone or committed, as one."""
        if self._is_ending():
            if silent_s > ENDING_MAX_S:
                raise self.held or Unavailable(f"told to end; the database was silent for {silent_s:.0f} s")
        elif self.held and silent_s > (self._conn.silence_max_s or silent_s):
            raise self.held
        elif silent_s < LOOK_AFTER_S:
            self._looked = False
        elif not self._looked:
            self._looked = True
            self._look()

    def _look(self) -> None:
        try:
            with faults(), connect(self._dsn, purpose="look", budgets=LOOKING) as other:
                found = obstacle.obstacle(other, self._conn.info.backend_pid)
        except LedgerError:
            return  # then nobody can say
        self.held = Held(found.cause, remedy=found.remedy) if found else None
        if self.held:
            self._say(self.held)
