"""What a projection of one's own brings into the schema: free names, and the columns that its `ddl` asks for.

All versions of a projection share one table, which has the columns of all of them: a new version adds those
that it lacks, and fills them in its own generations. The view shows the live version's columns, in its order.
The caller owns the transaction.
"""

import re
from collections.abc import Sequence
from typing import LiteralString, NamedTuple

from psycopg import sql

from ledger.store.connection.database import Connection

# A generation is named `<table>_<number>`, its index `<table>_<number>_key`: neither may ever meet another.
TAKEN = """
WITH present AS (
    SELECT 'relation' AS kind, relname::text AS name, relkind = 'p' AS has_partitions
    FROM pg_class WHERE relnamespace = 'ledger'::regnamespace
    UNION ALL
    SELECT 'function', proname, false FROM pg_proc WHERE pronamespace = 'ledger'::regnamespace
    UNION ALL
    SELECT 'type', typname, false FROM pg_type WHERE typnamespace = 'ledger'::regnamespace
    UNION ALL
    SELECT 'reserved word', word, false FROM pg_get_keywords() WHERE catcode IN ('R', 'T')
)
SELECT concat(kind, ' ', name) FROM present, unnest(%(names)s::text[]) AS wanted
WHERE name = wanted
   OR has_partitions AND wanted ~ concat('^', name, '_[0-9]+(_key)?$')
   OR name ~ concat('^', wanted, '_[0-9]+(_key)?$')
ORDER BY 1 LIMIT 1
"""
COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), nullif(l.collname, 'default'), a.attnotnull,
       pg_get_expr(d.adbin, d.adrelid)
FROM pg_attribute a
LEFT JOIN pg_collation l ON l.oid = a.attcollation
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = to_regclass(format('%%I.%%I', %s::text, %s::text)) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""


class Column(NamedTuple):
    """A column, as Postgres describes it."""

    name: str
    type: LiteralString
    collation: str | None
    required: bool
    default: LiteralString | None


def taken(conn: Connection, names: Sequence[str]) -> str | None:
    """What in the schema has one of the names, or a generation's name of one; None if they are free."""
    row = conn.execute(TAKEN, {"names": list(names)}).fetchone()
    return str(row[0]) if row else None


def columns(conn: Connection, table: str, schema: str = "ledger") -> list[Column]:
    """The table's columns, in order; none if there is no such table."""
    return [Column(*row) for row in conn.execute(COLUMNS, (schema, table))]


def wanted(conn: Connection, table: str, ddl: LiteralString) -> list[Column]:
    """The columns that the ddl gives the table: made for a moment as a temporary one, and undone."""
    trial: LiteralString = re.sub(rf"\bledger\.{table}\b", f"pg_temp.{table}", ddl)
    with conn.transaction(force_rollback=True):  # a savepoint
        conn.execute(trial)
        return columns(conn, table, "pg_temp")


def make(conn: Connection, ddl: LiteralString) -> None:
    """The projection's own table, as its `ddl` says."""
    conn.execute(ddl)


def widen(conn: Connection, table: str, asked: Sequence[Column]) -> str | None:
    """Give the table the columns that it lacks; returns why that can't be done, or None.

    A column of all versions can't be required: a generation of another version has none in it.
    """
    present = {column.name: column for column in columns(conn, table)}
    for column in asked:
        held = present.get(column.name)
        if held and (held.type, held.collation) != (column.type, column.collation):
            return f"the column {column.name} is {held.type} there, not {column.type}"
        if held is None:
            _add(conn, table, column)
    left = present.keys() - {column.name for column in asked}
    for name in sorted(left):
        if present[name].required:
            statement: LiteralString = "ALTER TABLE ledger.{} ALTER COLUMN {} DROP NOT NULL"
            conn.execute(sql.SQL(statement).format(sql.Identifier(table), sql.Identifier(name)))
    return None


def _add(conn: Connection, table: str, column: Column) -> None:
    statement = sql.SQL("ALTER TABLE ledger.{} ADD COLUMN {} {}").format(
        sql.Identifier(table), sql.Identifier(column.name), sql.SQL(column.type)
    )
    if column.collation:
        statement += sql.SQL(" COLLATE {}").format(sql.Identifier(column.collation))
    if column.default:
        statement += sql.SQL(" DEFAULT ") + sql.SQL(column.default)
    conn.execute(statement)
