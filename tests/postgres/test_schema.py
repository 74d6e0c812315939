"""The schema, as Postgres has it: no table, grant or trigger changes without a diff that somebody reads.

After a change that is meant:

    STOCKLEDGER_UPDATE_SNAPSHOTS=1 python -m pytest tests/postgres/test_schema.py

writes `schema.txt` and `migrations.txt` anew. A migration that was released is never edited, so from the
first release on its line in `migrations.txt` never changes; only new lines are added.
"""

import os
from pathlib import Path

import pytest

from ledger.store import database, migrate

HERE = Path(__file__).parent
SCHEMA = HERE / "schema.txt"
CHECKSUMS = HERE / "migrations.txt"
UPDATE = "STOCKLEDGER_UPDATE_SNAPSHOTS" in os.environ

# One line each: columns in their order, then everything else in alphabetical order.
DUMP = """
WITH relation AS (
    SELECT c.oid, c.relname, c.relowner, c.relacl, c.reloptions,
           CASE c.relkind WHEN 'v' THEN 'view ' WHEN 'S' THEN 'sequence ' ELSE 'table ' END || relname AS head
    FROM pg_class c
    WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S')
), line AS (
    SELECT head, 0 AS part, 0 AS number, concat_ws(' ', '', 'with', array_to_string(reloptions, ', ')) AS text
    FROM relation WHERE reloptions IS NOT NULL
    UNION ALL
    SELECT head, 0, 0, ' partition ' || pg_get_expr(c.relpartbound, c.oid)
    FROM relation JOIN pg_class c USING (oid) WHERE c.relispartition
    UNION ALL
    SELECT head, 1, a.attnum, concat_ws(' ', '', a.attname, format_type(a.atttypid, a.atttypmod),
           'collate ' || nullif(l.collname, 'default'), CASE WHEN a.attnotnull THEN 'not null' END,
           'default ' || pg_get_expr(d.adbin, d.adrelid))
    FROM relation JOIN pg_attribute a ON a.attrelid = oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_collation l ON l.oid = a.attcollation
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE head NOT LIKE 'sequence %'
    UNION ALL
    SELECT head, 2, 0, concat(' constraint ', k.conname, ': ', pg_get_constraintdef(k.oid))
    FROM relation JOIN pg_constraint k ON k.conrelid = relation.oid WHERE k.contype <> 'n'
    UNION ALL
    SELECT head, 3, 0, ' ' || pg_get_indexdef(i.indexrelid)
    FROM relation JOIN pg_index i ON i.indrelid = relation.oid
    UNION ALL
    SELECT head, 4, 0, concat(' ', pg_get_triggerdef(t.oid), CASE t.tgenabled WHEN 'A' THEN ', always' END)
    FROM relation JOIN pg_trigger t ON t.tgrelid = relation.oid WHERE NOT t.tgisinternal
    UNION ALL
    SELECT head, 5, 0, concat(' grant to ', a.grantee::regrole, ': ',
           string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type))
    FROM relation, aclexplode(relacl) a WHERE a.grantee <> relowner GROUP BY head, a.grantee
    UNION ALL
    SELECT head, 5, 0, concat(' grant to ', a.grantee::regrole, ' on ', attname, ': ', a.privilege_type)
    FROM relation JOIN pg_attribute t ON t.attrelid = relation.oid, aclexplode(t.attacl) a
    UNION ALL
    SELECT 'function ' || p.proname, 0, 0,
           concat_ws(' ', '', '(' || pg_get_function_arguments(p.oid) || ') returns',
                     pg_get_function_result(p.oid), CASE WHEN p.prosecdef THEN 'security definer' END,
                     'set ' || array_to_string(p.proconfig, ', '))
    FROM pg_proc p WHERE p.pronamespace = 'ledger'::regnamespace
    UNION ALL
    SELECT 'function ' || p.proname, 5, 0, concat(' grant to ',
           CASE a.grantee WHEN 0 THEN 'public' ELSE a.grantee::regrole::text END, ': ', a.privilege_type)
    FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
    WHERE p.pronamespace = 'ledger'::regnamespace AND a.grantee <> p.proowner
    UNION ALL
    SELECT 'schema ledger', 5, 0, concat(' grant to ', a.grantee::regrole, ': ', a.privilege_type)
    FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'ledger' AND a.grantee <> n.nspowner
)
SELECT head, text FROM line ORDER BY head COLLATE "C", part, number, text COLLATE "C"
"""

VIEWS = {
    "events": "position ordinal stream version type data source id recorded_at",
    "outcomes": "source id outcome reason topic partition offset position recorded_at",
    "stock_levels": "goods_id on_hand version",
    "purchases": "source id user_id goods_id quantity cancelled purchased_at",
    "dead_letters": "topic partition offset code detail status recorded_at",
    "conflicts": "source id first_fingerprint second_fingerprint first_topic first_partition first_offset "
    "second_topic second_partition second_offset",
    "gaps": "topic partition first_offset next_offset cause accepted_by",
    "journal_entries": "position topic partition first_offset next_offset "
    "applied rejected duplicate conflict dead skipped events hash",
}
"""What other programs build on."""


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        yield conn


def compare(file: Path, text: str) -> None:
    """The file says exactly this; or, when told to, it does from now on."""
    if UPDATE:
        file.write_text(text, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == text


def dumped(conn) -> str:
    lines: list[str] = []
    for head, text in conn.execute(DUMP).fetchall():
        if head not in lines:
            lines.append(head)
        lines.append("   " + text)
    return "\n".join(lines) + "\n"


def test_the_schema_is_the_one_that_was_reviewed(conn):
    """Tables, columns, constraints, indexes, triggers, functions and grants are those of `schema.txt`."""
    compare(SCHEMA, dumped(conn))


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_keeps_its_columns(conn, view):
    """Each view has at least the columns that other programs rely on."""
    with conn.cursor() as cursor:
        cursor.execute(f"SELECT * FROM ledger.{view} LIMIT 0")
        assert set(VIEWS[view].split()) <= {column.name for column in cursor.description}


def test_migrations_are_numbered_without_a_hole():
    """Migrations are 1, 2, 3, ..., so no two branches can both add the next one unnoticed."""
    assert [m.number for m in migrate.migrations()] == list(range(1, len(migrate.migrations()) + 1))


def test_no_migration_is_edited():
    """A migration's text is the one that was released: a database that has it has exactly that."""
    compare(CHECKSUMS, "".join(f"{m.name} {m.checksum}\n" for m in migrate.migrations()))
