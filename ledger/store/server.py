"""The server itself: whether it keeps what it acknowledges, what it is, and what this role may do there."""

from datetime import datetime
from typing import NamedTuple

from ledger.errors import UnsafeSettings
from ledger.store.database import Connection, faults


class Server(NamedTuple):
    """A read-only standby, or the primary; and its clock."""

    is_standby: bool
    now: datetime


class Rights(NamedTuple):
    """Whether this role may write and read the ledger."""

    writes: bool
    reads: bool


DURABILITY = """
SELECT current_setting('synchronous_commit'), current_setting('fsync'), current_setting('full_page_writes')
"""
SERVER = "SELECT pg_is_in_recovery(), clock_timestamp()"
RIGHTS = """
SELECT has_table_privilege('ledger.event', 'INSERT')
       AND has_function_privilege('ledger.lock_head()', 'EXECUTE'),
       has_table_privilege('ledger.lane', 'SELECT')
"""


def require_durable(conn: Connection) -> None:
    """Raise UnsafeSettings if the server may forget what it acknowledged."""
    row = conn.execute(DURABILITY).fetchone()
    assert row is not None
    for name, value in zip(("synchronous_commit", "fsync", "full_page_writes"), row, strict=True):
        if value == "off":
            raise UnsafeSettings(
                f"{name} is off: an acknowledged commit could vanish in a crash",
                remedy=f"SET {name} = on for the server, the database and the role, then start again",
            )


def server(conn: Connection) -> Server:
    """What the server says about itself."""
    with faults():
        row = conn.execute(SERVER).fetchone()
    assert row is not None
    return Server(*row)


def rights(conn: Connection) -> Rights:
    """What this role may do. Raises SchemaMismatch where there is no ledger."""
    with faults():
        row = conn.execute(RIGHTS).fetchone()
    assert row is not None
    return Rights(*row)
