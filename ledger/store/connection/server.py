"""The server itself: whether it keeps what it acknowledges, what it is, and what this role may do there."""

from datetime import datetime
from typing import NamedTuple

from ledger.errors import IncompleteCopy, ReadOnly, UnsafeSettings
from ledger.store.connection.database import Connection, faults
from ledger.store.connection.sqlstates import RENUMBER

CLOCK_SKEW_MAX_S = 1.0
AHEAD_MEANS = "the last entry's time lies in the future of Postgres's clock, and new ones carry it until then"


class Rights(NamedTuple):
    """Whether this role may write and read the ledger."""

    writes: bool
    reads: bool


DURABILITY = """
SELECT current_setting('synchronous_commit'), current_setting('fsync'), current_setting('full_page_writes')
"""
SIZE = "SELECT pg_database_size(current_database())"
NOW = "SELECT clock_timestamp()"
WRITABLE = """
SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', source,
       format('ALTER DATABASE %I', current_database()), format('ALTER ROLE %I', session_user),
       format('IN DATABASE %I', current_database())
FROM pg_settings WHERE name = 'default_transaction_read_only'
"""
ENTRIES = """
SELECT coalesce(pg_sequence_last_value('ledger.entry_number'), 0), max(entry)
FROM ledger.journal WHERE has_sequence_privilege('ledger.entry_number', 'USAGE')
"""
AHEAD = """
SELECT extract(epoch FROM recorded_at - clock_timestamp())::double precision
FROM ledger.journal_entries ORDER BY position DESC LIMIT 1
"""
RIGHTS = """
SELECT has_table_privilege('ledger.event', 'INSERT')
       AND has_function_privilege('ledger.lock_head()', 'EXECUTE'),
       has_table_privilege('ledger.lane', 'SELECT')
"""


REMEDIES = {
    "synchronous_commit": "ALTER ROLE CURRENT_USER SET synchronous_commit = on;",
    "fsync": "ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf();",
    "full_page_writes": "ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf();",
}


def require_durable(conn: Connection) -> None:
    """Raise UnsafeSettings if the server may forget what it acknowledged."""
    row = conn.execute(DURABILITY).fetchone()
    assert row is not None
    for name, value in zip(("synchronous_commit", "fsync", "full_page_writes"), row, strict=True):
        if value == "off":
            raise UnsafeSettings(
                f"{name} is off: an acknowledged commit could vanish in a crash",
                remedy=REMEDIES[name],
            )


def require_writable(conn: Connection) -> None:
    """Raise ReadOnly for a standby, or where transactions are read-only unless they say otherwise."""
    with faults():
        row = conn.execute(WRITABLE).fetchone()
    assert row is not None
    standby, read_only, source, database, role, within = row
    if standby:
        raise ReadOnly(
            "this server is a standby: it takes no writes", remedy="name the primary in the DSN or in PGHOST"
        )
    reset = "RESET default_transaction_read_only;"
    remedies = {
        "database": f"{database} {reset}",
        "user": f"{role} {reset}",
        "database user": f"{role} {within} {reset}",
        "client": "leave default_transaction_read_only out of PGOPTIONS and of the DSN's options",
    }
    if read_only:
        raise ReadOnly(
            f"the database takes no writes: default_transaction_read_only is on (set for the {source})",
            remedy=remedies.get(source, f"ALTER SYSTEM {reset} SELECT pg_catalog.pg_reload_conf();"),
        )


def require_whole(conn: Connection) -> None:
    """Raise IncompleteCopy if the next entry's number was given to an entry of the journal already.

    Logical replication copies no sequences, and a dump of some tables hasn't the others' either.
    """
    with faults():
        row = conn.execute(ENTRIES).fetchone()
    assert row is not None
    given, used = row
    if used is not None and given < used:
        raise IncompleteCopy(
            f"the sequence ledger.entry_number stands at {given}, but the journal has entries up to {used}: "
            "this database is a copy without the sequence",
            remedy=RENUMBER,
        )


def ahead_s(conn: Connection) -> float:
    """How far the journal's last time lies in the future of the server's clock, in seconds; 0 if it doesn't.

    No entry is recorded before its predecessor: all of them carry that time until the clock gets there.
    """
    with faults():
        row = conn.execute(AHEAD).fetchone()
    return float(row[0]) if row and row[0] > CLOCK_SKEW_MAX_S else 0.0


def database_bytes(conn: Connection) -> int:
    """How much this database takes on its server's disk."""
    (row,) = conn.execute(SIZE)
    return int(row[0])


def now(conn: Connection) -> datetime:
    """What time it is for the server."""
    with faults():
        row = conn.execute(NOW).fetchone()
    assert row is not None
    found: datetime = row[0]
    return found


def rights(conn: Connection) -> Rights:
    """What this role may do. Raises SchemaMismatch where there is no ledger."""
    with faults():
        row = conn.execute(RIGHTS).fetchone()
    assert row is not None
    return Rights(*row)
