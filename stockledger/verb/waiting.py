"""What a verb that goes on for long says while what it reads is away: once, and once when it is back."""

from ledger.errors import LedgerError
from stockledger.verb.output import Output


class Waiting:
    """Whether it is away, as it was told last."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._away = False

    def away(self, error: LedgerError, onward: str = "") -> None:
        """It can't be reached. `onward` says where the verb will go on."""
        if not self._away:
            self._out.note(
                "; ".join(filter(None, (f"waiting  {error.code}: {error.message}", onward))), "yellow"
            )
        self._away = True

    def back(self) -> None:
        """It answers."""
        if self._away:
            self._out.note("goes on: the database answers again")
        self._away = False
