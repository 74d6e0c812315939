"""The tables of generations: made, attached, compared and dropped beside readers and workers.

No statement here takes a lock that stops them: a partition is made alone and then attached (`CREATE TABLE ...
PARTITION OF` would lock the parent exclusively), and detached concurrently before it is dropped.
Table names come from registered projections and are quoted; values are parameters.
"""

from collections.abc import Sequence
from typing import Any, LiteralString, NamedTuple

from psycopg import sql
from psycopg.rows import dict_row

from ledger.store.connection.database import Connection
from ledger.store.schema.rights import roles

EXISTS = "SELECT to_regclass(format('ledger.%%I', %s::text)) IS NOT NULL"
COLUMNS = """
SELECT attname FROM pg_attribute
WHERE attrelid = to_regclass(format('ledger.%%I', %s::text)) AND attnum > 0 AND NOT attisdropped
ORDER BY attnum
"""
PENDING = """
SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = to_regclass(format('ledger.%%I', %s::text))
"""
KEYED = """
SELECT EXISTS (SELECT FROM pg_index
               WHERE indrelid = to_regclass(format('ledger.%%I', %s::text)) AND indisunique)
"""
READ = sql.SQL("GRANT SELECT ON ledger.{table}, ledger.{view} TO {role}")
FOLLOW = sql.SQL("GRANT INSERT, UPDATE ON ledger.{table} TO {role}")
HAS_PRIMARY_KEY = """
SELECT EXISTS (SELECT FROM pg_index
               WHERE indrelid = to_regclass(format('ledger.%%I', %s::text)) AND indisprimary)
"""
MAKE = sql.SQL("""
CREATE TABLE ledger.{partition} (LIKE ledger.{table} INCLUDING ALL) WITH (fillfactor = {fillfactor});
""")
# Where a publication is for all tables, what is updated needs one. Done before it is attached: its lock would
# keep readers out.
IDENTITY = sql.SQL("ALTER TABLE ledger.{partition} REPLICA IDENTITY FULL")
ATTACH = sql.SQL("""
ALTER TABLE ledger.{table} ATTACH PARTITION ledger.{partition} FOR VALUES IN ({generation})
""")
VIEW = sql.SQL("""
CREATE OR REPLACE VIEW ledger.{view} AS SELECT {columns} FROM ledger.{table} WHERE generation =
    (SELECT generation FROM ledger.projection WHERE name = {name} AND status = 'live')
""")
PAIRS = sql.SQL("""
FROM (SELECT * FROM ledger.{table} WHERE generation = %(live)s) l
FULL JOIN (SELECT * FROM ledger.{table} WHERE generation = %(new)s) n USING ({key})
""")
# Of the rows that a range touched, found by both primary keys.
TOUCHED = sql.SQL("""
FROM ({keys}) k
LEFT JOIN (SELECT * FROM ledger.{table} WHERE generation = %(live)s) l USING ({key})
LEFT JOIN (SELECT * FROM ledger.{table} WHERE generation = %(new)s) n USING ({key})
""")
DIFFERENT = sql.SQL("""
WHERE ({l_values}, l.generation IS NULL) IS DISTINCT FROM ({n_values}, n.generation IS NULL)
""")
COUNT = sql.SQL("SELECT count(*) FROM ledger.{table} WHERE generation = %(live)s")
COUNT_TOUCHED = sql.SQL("SELECT count(*) FROM ({keys}) k")
SHOW = sql.SQL("SELECT {key}, {shown} {pairs} {different} ORDER BY {key} LIMIT %(limit)s")


class RowDifference(NamedTuple):
    """A row that is not the same in both: its key, and its other columns, None where there is no row."""

    key: dict[str, Any]
    live: dict[str, Any] | None
    rebuilt: dict[str, Any] | None

    def __str__(self) -> str:
        key = ", ".join(str(value) for value in self.key.values())
        if self.live is None or self.rebuilt is None:
            side, row = ("rebuilt", self.rebuilt) if self.live is None else ("live", self.live)
            return f"{key}: only {side} has {_named(row or {})}"
        changed = [name for name in self.live if self.live[name] != self.rebuilt[name]]
        live, rebuilt = ({name: row[name] for name in changed} for row in (self.live, self.rebuilt))
        return f"{key}: live {_named(live)}, rebuilt {_named(rebuilt)}"


class Shape(NamedTuple):
    """What has to be known of a projection's table."""

    table: str
    key: tuple[str, ...]
    keys: LiteralString | None


def exists(conn: Connection, name: str) -> bool:
    """Whether there is such a table in the schema."""
    return conn.execute(EXISTS, (name,)).fetchone() == (True,)


def columns(conn: Connection, table: str) -> list[str]:
    """The table's columns, in order."""
    return [name for (name,) in conn.execute(COLUMNS, (table,))]


def make(conn: Connection, table: str, generation: int, fillfactor: int) -> None:
    """An empty generation. Readers and writers of the others aren't stopped."""
    names = {"partition": _partition(table, generation), "table": sql.Identifier(table)}
    conn.execute(MAKE.format(fillfactor=sql.Literal(fillfactor), **names))
    if conn.execute(HAS_PRIMARY_KEY, (table,)).fetchone() == (False,):
        conn.execute(IDENTITY.format(**names))
    conn.execute(ATTACH.format(generation=sql.Literal(generation), **names))


def has_key(conn: Connection, table: str, generation: int) -> bool:
    """Whether the generation has its unique index: from the start, if its table has a primary key."""
    return conn.execute(KEYED, (f"{table}_{generation}",)).fetchone() == (True,)


def add_key(conn: Connection, table: str, generation: int, key: Sequence[str]) -> None:
    """The generation's unique index, unless it has one. Readers aren't stopped."""
    if not has_key(conn, table, generation):
        statement: LiteralString = "CREATE UNIQUE INDEX {index} ON ledger.{partition} ({key})"
        names = {"index": sql.Identifier(f"{table}_{generation}_key"), "key": _list(key)}
        conn.execute(sql.SQL(statement).format(partition=_partition(table, generation), **names))


def publish(conn: Connection, name: str, table: str, shown: Sequence[str]) -> None:
    """The view that readers use, of the live generation, and the rights of the ledger's two roles.

    One that has other columns is replaced; whoever built a view upon it is told by the server.
    """
    listed = [column for column in shown if column != "generation"]
    names = {"view": sql.Identifier(name), "table": sql.Identifier(table)}
    present = columns(conn, name)
    if present and present != listed:
        conn.execute(sql.SQL("DROP VIEW ledger.{view}").format(**names))
    conn.execute(VIEW.format(columns=_list(listed), name=sql.Literal(name), **names))
    writer, reader = roles(conn)
    for role in (writer, reader):
        if role.exists:
            conn.execute(READ.format(role=sql.Identifier(role.name), **names))
    if writer.exists:
        conn.execute(FOLLOW.format(role=sql.Identifier(writer.name), **names))


def unpublish(conn: Connection, name: str) -> None:
    """Remove the view."""
    conn.execute(sql.SQL("DROP VIEW IF EXISTS ledger.{}").format(sql.Identifier(name)))


def drop_table(conn: Connection, table: str) -> None:
    """Remove the table of all generations, when there are none any more."""
    conn.execute(sql.SQL("DROP TABLE IF EXISTS ledger.{}").format(sql.Identifier(table)))


def drop(conn: Connection, table: str, generation: int) -> None:
    """Remove a generation that nobody reads. Outside a transaction; may be repeated after any crash."""
    partition = _partition(table, generation)
    name = f"{table}_{generation}"
    attached = conn.execute(PENDING, (name,)).fetchone()
    if attached is not None:
        how = sql.SQL("FINALIZE") if attached[0] else sql.SQL("CONCURRENTLY")
        detach: LiteralString = "ALTER TABLE ledger.{table} DETACH PARTITION ledger.{partition} {how}"
        conn.execute(
            sql.SQL(detach).format(table=sql.Identifier(table), partition=partition, how=how), prepare=False
        )
    conn.execute(sql.SQL("DROP TABLE IF EXISTS ledger.{partition}").format(partition=partition))


def analyze(conn: Connection, table: str, generation: int) -> None:
    """Let the planner know the generation as it is now."""
    conn.execute(sql.SQL("ANALYZE ledger.{partition}").format(partition=_partition(table, generation)))


def compare_generations(
    conn: Connection, shape: Shape, live: int, new: int, limit: int, touched: dict[str, int] | None = None
) -> tuple[int, list[RowDifference]]:
    """How many rows were compared, and the first ones that differ, by key.

    With `touched`, the parameters of a range, only the rows that the range touches.
    """
    few = touched is not None and shape.keys is not None
    values = [name for name in columns(conn, shape.table) if name not in (*shape.key, "generation")]
    parts = {
        "table": sql.Identifier(shape.table),
        "key": _list(shape.key),
        "keys": sql.SQL(shape.keys or ""),
    }
    facts = {**(touched or {}), "live": live, "new": new, "limit": limit}
    row = conn.execute((COUNT_TOUCHED if few else COUNT).format(**parts), facts, prepare=False).fetchone()
    show = SHOW.format(
        key=_list(shape.key),
        shown=_shown(values),
        pairs=(TOUCHED if few else PAIRS).format(**parts),
        different=DIFFERENT.format(l_values=_list(values, "l"), n_values=_list(values, "n")),
    )
    with conn.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(show, facts, prepare=False).fetchall()
    assert row is not None
    return int(row[0]), [_difference(each, shape.key, values) for each in found]


def _named(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in row.items())


def _partition(table: str, generation: int) -> sql.Identifier:
    return sql.Identifier(f"{table}_{generation}")


def _list(names: Sequence[str], side: str = "") -> sql.Composed:
    return sql.SQL(", ").join(
        [sql.Identifier(side, name) if side else sql.Identifier(name) for name in names]
    )


def _shown(values: list[str]) -> sql.Composed:
    sides = [
        sql.SQL("{} AS {}").format(sql.Identifier(side, name), sql.Identifier(f"{side}.{name}"))
        for side in ("l", "n")
        for name in (*values, "generation")
    ]
    return sql.SQL(", ").join(sides)


def _difference(row: dict[str, Any], key: tuple[str, ...], values: list[str]) -> RowDifference:
    sides = [
        {name: row[f"{side}.{name}"] for name in values} if row[f"{side}.generation"] is not None else None
        for side in ("l", "n")
    ]
    return RowDifference({name: row[name] for name in key}, *sides)
