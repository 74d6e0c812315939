"""Migrations: numbered SQL files, forward only, each checksummed, all in one transaction under one lock.

A crash leaves the old schema; there is no lock row to go stale. A released file is never edited: its
checksum is compared at every run. What depends on the server or may be lost on a restore (roles, rights,
which triggers are on, functions, views) is compared at every run, too, and mended.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import psycopg
from psycopg import sql

from ledger.errors import Contended, Held, SchemaMismatch, Stop
from ledger.store.connection import obstacle
from ledger.store.connection.database import Connection, transaction
from ledger.store.connection.pinned import SEARCH_PATH
from ledger.store.connection.server import require_writable
from ledger.store.schema import comparison
from ledger.store.schema.comparison import SchemaDifference
from ledger.store.schema.rights import MIGRATE

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


class Migrated(NamedTuple):
    """The names of the migrations that were applied, what was mended, and what has to be by somebody else."""

    applied: list[str]
    mended: list[SchemaDifference]
    left: list[SchemaDifference]


BOOTSTRAP = """
CREATE SCHEMA IF NOT EXISTS ledger;
CREATE TABLE IF NOT EXISTS ledger.migration (
    number integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now());
"""
LOCK = "SELECT pg_advisory_xact_lock(%s)"
FOREIGN = """
SELECT coalesce(to_regclass('ledger.migration') IS NOT NULL, false),
       (SELECT count(*) FROM pg_attribute
        WHERE attrelid = to_regclass('ledger.migration') AND attname IN ('number', 'name', 'checksum')),
       (SELECT min(relname) FROM pg_class WHERE relnamespace = to_regnamespace('ledger'))
"""
MAY_CREATE = """
SELECT to_regnamespace('ledger') IS NOT NULL OR has_database_privilege(current_database(), 'CREATE'),
       quote_ident(current_database()), quote_ident(current_user)
"""
APPLIED = "SELECT number, checksum FROM ledger.migration ORDER BY number"
RECORD = "INSERT INTO ledger.migration (number, name, checksum) VALUES (%s, %s, %s)"
NOTED = sql.SQL("INSERT INTO ledger.migration (number, name, checksum) VALUES ({}, {}, {});\n\n")
ELSEWHERE = "use another database, or move it out of the way: ALTER SCHEMA ledger RENAME TO their_ledger"


@cache
def migrations() -> tuple[Migration, ...]:
    """This build's migrations, in order."""
    found = []
    for file in files("ledger.store.schema").joinpath("migrations").iterdir():
        if file.name.endswith(".sql"):
            number = int(file.name[:4])
            found.append(Migration(number, file.name.removesuffix(".sql"), file.read_text("utf-8")))
    return tuple(sorted(found, key=lambda m: m.number))


@cache
def roles() -> str:
    """The script that makes the ledger's roles, and gives them their rights."""
    return files("ledger.store.schema").joinpath("roles.sql").read_text("utf-8")


def script() -> Iterator[str]:
    """What `migrate` does to an empty database, as one transaction that a person may run."""
    yield f"BEGIN;\n{SEARCH_PATH};\n{BOOTSTRAP}\n"
    for migration in migrations():
        yield f"-- {migration.name}\n{migration.statements}\n"
        yield NOTED.format(migration.number, migration.name, migration.checksum).as_string()
    yield f"{roles()}\nCOMMIT;\n"


def pending(conn: Connection) -> list[Migration]:
    """The migrations that this database lacks.

    Raises SchemaMismatch if it has one that this build doesn't know, one with another text, or if the
    schema `ledger` is somebody else's.
    """
    if theirs := comparison.strangers(conn):
        raise SchemaMismatch(theirs[0].what, remedy=theirs[0].mend)
    applied = _applied(conn)
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


def _applied(conn: Connection) -> dict[int, str]:
    row = conn.execute(FOREIGN).fetchone()
    assert row is not None
    exists, columns, first = row
    if (exists and columns != 3) or (not exists and first is not None):
        name = "migration" if exists else first
        raise SchemaMismatch(
            f"the schema ledger holds {name}, which stockledger didn't make", remedy=ELSEWHERE
        )
    return dict(conn.execute(APPLIED).fetchall()) if exists else {}


def migrate(conn: Connection) -> Migrated:
    """Bring the schema up to this build, make its roles, and mend what a restore or a person has changed.

    Needs the database's owner. Raises SchemaMismatch as `pending` does, ReadOnly, and Held, naming whoever
    keeps it from a lock for longer than the session's lock timeout; nothing was changed then.
    """
    require_writable(conn)
    try:
        return _migrate(conn)
    except Contended as error:
        found = obstacle.holder(conn, ADVISORY_LOCK)
        if found is None:
            raise
        raise Held(
            f"migrate waits for a lock of {found}; nothing was changed", remedy=found.remedy
        ) from error


def lock(conn: Connection) -> None:
    """Changes of the schema are made one after the other: hold the others up until the transaction ends."""
    conn.execute(LOCK, (ADVISORY_LOCK,))


def _migrate(conn: Connection) -> Migrated:
    with transaction(conn):
        lock(conn)
        todo = pending(conn)
        _require_right_to_create(conn)
        conn.execute(BOOTSTRAP)
        for migration in todo:
            # from a file of this package, so it can't be anybody's input
            conn.execute(migration.statements.encode())
            conn.execute(RECORD, (migration.number, migration.name, migration.checksum))
        found = [] if todo else _mend(conn)
        conn.execute(roles().encode())
        found += _mend(conn)  # a function that was made anew has everybody's right to call it
        left = [*comparison.missing_roles(conn), *comparison.compare(conn)]
    mended = [difference for difference in found if difference not in left]
    return Migrated([m.name for m in todo], mended, left)


def _require_right_to_create(conn: Connection) -> None:
    row = conn.execute(MAY_CREATE).fetchone()
    if row and not row[0]:
        _, database, user = row
        raise Stop(
            f"{user} may not create a schema in the database {database}",
            remedy=f"GRANT CREATE ON DATABASE {database} TO {user}, or migrate as its owner",
        )


def _mend(conn: Connection) -> list[SchemaDifference]:
    found = [difference for difference in comparison.compare(conn) if difference.by_migrate]
    for difference in found:
        with suppress(psycopg.Error), conn.transaction():  # then it is left
            conn.execute(statement(difference).encode())
    return found


def statement(difference: SchemaDifference) -> str:
    """What mends it: the difference's own statement, or a function's or view's as this build has it."""
    if difference.mend != MIGRATE:
        return difference.mend
    kind, _, name = difference.what.partition(":")[0].removesuffix(" is missing").partition(" ")
    end = r"\$\$.*?\$\$;" if kind == "function" else r".*?;\n"
    start = rf"CREATE {kind.upper()} ledger\.{re.escape(name.partition('(')[0])}\b"
    texts = re.findall(start + ".*?" + end, "\n".join(m.statements for m in migrations()), re.DOTALL)
    return str(texts[-1]).replace("CREATE ", "CREATE OR REPLACE ", 1)


def require_current(conn: Connection) -> None:
    """Raise SchemaMismatch, naming the remedy, unless the schema is exactly this build's."""
    if missing := pending(conn):
        raise SchemaMismatch(
            f"the schema lacks {len(missing)} of this build's {len(migrations())} migrations",
            remedy="stockledger migrate",
        )
