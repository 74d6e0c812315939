"""What a projection is: a fold over ranges of the journal, the same one for following and for rebuilding.

Guaranteed to it: each range is applied once to each generation, beginning to end, in a transaction that also
moves the generation's checkpoint. It owns no transaction and moves no checkpoint itself.
"""

from typing import LiteralString, Protocol

from ledger.store.connection.database import Connection
from ledger.store.reads.ranges import Range


class Projection(Protocol):
    """A read model. Subclass it, give it a name, and register an instance or the class by entry point.

    Its rows live in one table, partitioned by generation, so its SQL is the same for all generations.
    """

    name: str
    """Stable; `ledger.<name>` is the view that readers use, of the live generation."""
    version: int = 1
    """Raise it when `apply` gives other rows than before: generations of other versions aren't followed."""
    table: str
    """The table `ledger.<table>`, which `ddl` makes; its first column is `generation`."""
    key: tuple[str, ...]
    """The primary key's columns after `generation`."""
    ddl: LiteralString
    """`CREATE TABLE ledger.<table> (...) PARTITION BY LIST (generation)`; "" if a migration did that."""
    keys: LiteralString | None = None
    """A query for the keys of the rows that a range touches, so that a swap compares those; None: it compares
    all rows under its lock, which is right for a table of a few thousand."""
    inline: bool = False
    """Written by the batches themselves while it is live. Only `stock` is."""
    additive: bool = False
    """Ranges may be applied in any order, side by side: `apply` adds, and locks rows in the key's order."""
    divisible: bool = False
    """Its rows fall into shares by their key: `apply` writes the rows of the range's share, and counts all of
    the range's events. So several connections may apply the same range, a share each."""

    def apply(self, conn: Connection, generation: int, events: Range) -> int:
        """Fold the range into the generation. Returns how many of its events were understood.

        The session looks in `pg_catalog` only: what lies elsewhere, an extension's function or operator too,
        is named with its schema.

        Events of a type that has no effect here count as understood, unknown types must not: the caller
        compares with what the journal says, and stops at the first event that isn't accounted for.
        """
        ...


def origin(projection: Projection) -> str:
    """Whose it is: the module and the class, as an entry point names them."""
    return f"{type(projection).__module__}:{type(projection).__qualname__}"
