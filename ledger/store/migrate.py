"""Migrations: numbered SQL files, forward only, each checksummed, all in one transaction under one lock.

A crash leaves the old schema; there is no lock row to go stale. A released file is never edited: its
checksum is compared at every run.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from ledger.errors import SchemaMismatch
from ledger.store.database import Connection, transaction

ADVISORY_LOCK = 0x73746F636B6C6564  # "stockled"


@dataclass(frozen=True)
class Migration:
    """One file of `migrations/`."""

    number: int
    name: str
    statements: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file, in hex."""
        return hashlib.sha256(self.statements.encode()).hexdigest()


BOOTSTRAP = """
CREATE SCHEMA IF NOT EXISTS ledger;
CREATE TABLE IF NOT EXISTS ledger.migration (
    number integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now());
"""
LOCK = "SELECT pg_advisory_xact_lock(%s)"
EXISTS = "SELECT to_regclass('ledger.migration') IS NOT NULL"
APPLIED = "SELECT number, checksum FROM ledger.migration ORDER BY number"
RECORD = "INSERT INTO ledger.migration (number, name, checksum) VALUES (%s, %s, %s)"


@cache
def migrations() -> tuple[Migration, ...]:
    """This build's migrations, in order."""
    found = []
    for file in files("ledger.store").joinpath("migrations").iterdir():
        if file.name.endswith(".sql"):
            number = int(file.name[:4])
            found.append(Migration(number, file.name.removesuffix(".sql"), file.read_text("utf-8")))
    return tuple(sorted(found, key=lambda m: m.number))


def pending(conn: Connection) -> list[Migration]:
    """The migrations that this database lacks.

    Raises SchemaMismatch if it has one that this build doesn't know, or one with another text.
    """
    row = conn.execute(EXISTS).fetchone()
    applied: dict[int, str] = dict(conn.execute(APPLIED).fetchall()) if row and row[0] else {}
    known = {m.number: m for m in migrations()}
    if foreign := set(applied) - set(known):
        raise SchemaMismatch(
            f"the schema is at {max(foreign)}, this build knows up to {max(known)}",
            remedy="upgrade stockledger to the release that made this schema",
        )
    for number, checksum in applied.items():
        if known[number].checksum != checksum:
            raise SchemaMismatch(
                f"migration {known[number].name} isn't the one that was applied to this database",
                remedy="use the release that made this schema",
            )
    return [m for m in migrations() if m.number not in applied]


def migrate(conn: Connection) -> list[str]:
    """Bring the schema up to this build, and return the names of the migrations that were applied.

    Needs the database's owner. Raises SchemaMismatch as `pending` does.
    """
    with transaction(conn):
        conn.execute(LOCK, (ADVISORY_LOCK,))
        conn.execute(BOOTSTRAP)
        todo = pending(conn)
        for migration in todo:
            # from a file of this package, so it can't be anybody's input
            conn.execute(migration.statements.encode())
            conn.execute(RECORD, (migration.number, migration.name, migration.checksum))
    return [m.name for m in todo]


def require_current(conn: Connection) -> None:
    """Raise SchemaMismatch, naming the remedy, unless the schema is exactly this build's."""
    if missing := pending(conn):
        raise SchemaMismatch(
            f"the schema lacks {len(missing)} of this build's {len(migrations())} migrations",
            remedy="stockledger migrate",
        )
