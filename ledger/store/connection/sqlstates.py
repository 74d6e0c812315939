"""What a database error means: the ledger's fault for each of the driver's.

SQLSTATE alone decides, with a constraint's name where one state has several meanings; never a text.
"""

import re

import psycopg

from ledger.errors import (
    AGAIN,
    DOCTOR,
    Contended,
    Contradiction,
    Defect,
    IncompleteCopy,
    LedgerError,
    Park,
    ReadOnly,
    SchemaMismatch,
    Stop,
    Unavailable,
    UnsafeSettings,
)

# What an SQLSTATE means. Source: PostgreSQL 18, appendix A. Those of class LG are the ledger's own: functions
# of the schema raise them (`migrations/0001_ledger.sql`), and nobody is ever shown one.
UNIQUE_VIOLATION = "23505"
COPYING = re.compile(r"COPY (\w+), line ")  # what follows may quote a row
CONTENDED = {UNIQUE_VIOLATION, "40001", "40P01", "55P03", "57014", "LG001", "LG002"}
UNAVAILABLE_CLASSES = {"08", "53", "57", "58"}
UNAVAILABLE = {"25P03", "25P04"}  # idle or transaction timeout closed the session
READ_ONLY = "25006"
RENUMBER = "SELECT pg_catalog.setval('ledger.entry_number', pg_catalog.max(entry)) FROM ledger.journal;"
SCHEMA_MISSING = {"3F000", "42P01", "42703", "42883"}
CHECK_VIOLATION = "23514"
RECORD_CHECKS = {"stock_bounds"}
"""The CHECKs that one record can violate; any other one is a defect of this program.

They are all that a record can be guilty of in the database. Its text is printable UTF-8 and its numbers are
bounded before it gets here: a value that doesn't fit is the fault of a table, a setting or this program, and
every record after it would be parked, too.
"""


def fault(error: psycopg.Error) -> LedgerError:
    """The ledger's fault for a driver's error; unknown ones are defects, which stop."""
    state = error.sqlstate
    diagnostics = error.diag
    text = _sentence(error)
    if state is None:
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return Unavailable(f"the connection to the database was lost: {text}", remedy=AGAIN)
        return Defect(f"the driver refused: {text}")
    if state == UNIQUE_VIOLATION and diagnostics.constraint_name == "journal_entry_key":
        # No race: a sequence never gives a number twice, unless it was copied without its state.
        return IncompleteCopy("the sequence ledger.entry_number gave a number again", remedy=RENUMBER)
    if state in CONTENDED:
        return Contended(text, sqlstate=state, constraint=diagnostics.constraint_name or "")
    if state[:2] in UNAVAILABLE_CLASSES or state in UNAVAILABLE:
        return Unavailable(f"the database said {state}: {text}", remedy=AGAIN)
    if state == READ_ONLY:
        return ReadOnly(f"the database takes no writes: {text}", remedy=DOCTOR)
    if state == CHECK_VIOLATION and diagnostics.constraint_name in RECORD_CHECKS:
        return Park(text, reason=f"sqlstate_{state}")
    if state == "LG003":
        return UnsafeSettings(
            "synchronous_commit is off: an acknowledged commit could vanish in a crash",
            remedy="ALTER ROLE CURRENT_USER SET synchronous_commit = on;",
        )
    if state == "LG005":
        return Contradiction(text, remedy="stockledger verify")
    if state in SCHEMA_MISSING:
        return SchemaMismatch(
            f"the schema isn't the one this build needs: {text}", remedy="stockledger migrate"
        )
    if state == "42501":
        return Stop(f"no right to do this: {text}", remedy=DOCTOR)
    return Defect(f"unexpected SQLSTATE {state}{_place(diagnostics)}: {text}")


def _place(diagnostics: psycopg.errors.Diagnostic) -> str:
    """The table, constraint or column that the server names; of a COPY its table."""
    named = (diagnostics.table_name, diagnostics.column_name, diagnostics.constraint_name)
    copied = COPYING.match(diagnostics.context or "")
    found = [name for name in (copied and copied[1], *named) if name]
    return f" ({', '.join(found)})" if found else ""


def driver_error(error: BaseException) -> tuple[str, str, str]:
    """The SQLSTATE, the constraint's name and the server's words that a fault was made of; empty if none."""
    cause = error if isinstance(error, psycopg.Error) else error.__cause__
    if not isinstance(cause, psycopg.Error):
        return "", "", ""
    return cause.sqlstate or "", cause.diag.constraint_name or "", _sentence(cause)


def _sentence(error: psycopg.Error) -> str:
    # The primary message only: DETAIL can quote a row, and rows are nobody's business in a log.
    text = error.diag.message_primary or str(error)
    return " ".join(text.split())
