"""The truth in Postgres: which commands were applied, in which order, and what followed from them.

Floors, imports go down only:
    services   batch, verify, api        apply a batch, prove the ledger, answer questions
    storage    store                     one table, one module; the only floor with SQL
    core       domain, errors            what a purchase is and when it may happen; pure
    aside      failpoints                crash at a named point, for tests

Why every command takes effect exactly once, however often it is delivered and whoever crashes:
 1. A batch is consecutive records of one lane, applied in one transaction, all or nothing.
 2. The first statement moves the lane's stored offset by compare-and-set on (offset, epoch). Two owners
    can't both succeed: the second waits for the first one's commit, then matches no row.
 3. The offset is stored with the effect. A crash before the commit leaves both undone, one after it
    leaves both done; a reader always begins at the stored offset, never at Kafka's.
 4. So each record is applied by exactly one committed batch. Records that carry the same message key
    (a retry, a republication, another topic) meet the register of processed messages, whose primary
    key admits one row per key: its first outcome stands for all of them.
 5. The outcome is decided on stock rows that stay locked from before they are read until the commit,
    and on accounts that the head's catalogue counter guards: it is what a sequential run would decide.
 6. The journal's position is taken under the head's lock, held to the commit: order and proof in one.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ledger.api import Ledger

__all__ = ["Ledger"]


def __getattr__(name: str) -> Any:  # when it is asked for: modules below need nothing of the floor above
    if name == "Ledger":
        from ledger.api import Ledger

        return Ledger
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
