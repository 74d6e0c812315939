"""The schema by lines, read from the catalogues: what is in the database, and what migrations make of it.

`schema.txt` beside this file is what they make: tables, columns, constraints, indexes, triggers, views,
functions by the digest of their source, and rights. Of what was made later only some parts are read.
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import LiteralString

from ledger.store.connection.database import Connection

Lines = dict[tuple[str, str], str]
"""What each part of each object is, by the object's and the part's name."""

DUMP = """
WITH relation AS (
    SELECT c.*, CASE c.relkind WHEN 'v' THEN 'view ' WHEN 'S' THEN 'sequence ' WHEN 'r' THEN 'table '
                               WHEN 'p' THEN 'table ' ELSE c.relkind::text || ' ' END || c.relname AS object
    FROM pg_class c
    WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind NOT IN ('i', 'I', 'c', 't')
), routine AS (
    SELECT p.*, concat('function ', p.proname, '(', pg_get_function_identity_arguments(p.oid), ')') AS object
    FROM pg_proc p WHERE p.pronamespace = 'ledger'::regnamespace
), acl AS (
    SELECT object, relowner AS owner, relacl AS acl, '' AS on FROM relation
    UNION ALL
    SELECT object, relowner, t.attacl, t.attname::text
    FROM relation JOIN pg_attribute t ON t.attrelid = relation.oid
    UNION ALL
    SELECT object, proowner, coalesce(proacl, acldefault('f', proowner)), '' FROM routine
    UNION ALL
    SELECT 'schema ledger', nspowner, nspacl, '' FROM pg_namespace WHERE nspname = 'ledger'
), granted AS (
    SELECT object, acl.on, a.privilege_type, CASE a.grantee
           WHEN 0 THEN 'PUBLIC'
           WHEN (SELECT r.oid FROM pg_roles r JOIN ledger.role n ON r.rolname = n.writer) THEN 'writer'
           WHEN (SELECT r.oid FROM pg_roles r JOIN ledger.role n ON r.rolname = n.reader) THEN 'reader'
           ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee
    FROM acl CROSS JOIN LATERAL aclexplode(acl.acl) a WHERE a.grantee <> acl.owner
), line AS (
    SELECT object, 0 AS part, 0 AS number, 'with' AS name, array_to_string(reloptions, ', ') AS text
    FROM relation WHERE reloptions IS NOT NULL
    UNION ALL
    SELECT object, 0, 0, 'numbers', concat_ws(' ', format_type(seqtypid, NULL), 'from', seqmin,
           'to', seqmax, 'by', seqincrement, CASE WHEN seqcycle THEN 'cycle' END)
    FROM relation JOIN pg_sequence ON seqrelid = relation.oid
    UNION ALL
    SELECT object, 0, 1, 'partitions', pg_get_partkeydef(oid) FROM relation WHERE relkind = 'p'
    UNION ALL
    SELECT object, 0, 2, 'row security', 'on' FROM relation WHERE relrowsecurity OR relforcerowsecurity
    UNION ALL
    SELECT object, 1, a.attnum, 'column ' || a.attname,
           concat_ws(' ', format_type(a.atttypid, a.atttypmod), 'collate ' || nullif(l.collname, 'default'),
           CASE WHEN a.attnotnull THEN 'not null' END, 'default ' || pg_get_expr(d.adbin, d.adrelid))
    FROM relation JOIN pg_attribute a ON a.attrelid = relation.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_collation l ON l.oid = a.attcollation
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE relkind <> 'S'
    UNION ALL
    SELECT object, 2, 0, 'constraint ' || k.conname, pg_get_constraintdef(k.oid)
    FROM relation JOIN pg_constraint k ON k.conrelid = relation.oid WHERE k.contype NOT IN ('n', 't')
    UNION ALL
    SELECT object, 3, 0, 'index ' || i.indexrelid::regclass, pg_get_indexdef(i.indexrelid)
    FROM relation JOIN pg_index i ON i.indrelid = relation.oid
    UNION ALL
    SELECT object, 4, 0, 'trigger ' || t.tgname, concat(pg_get_triggerdef(t.oid), '; ',
           CASE t.tgenabled WHEN 'A' THEN 'ENABLE ALWAYS' WHEN 'O' THEN 'ENABLE'
                            WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'DISABLE' END)
    FROM relation JOIN pg_trigger t ON t.tgrelid = relation.oid WHERE NOT t.tgisinternal
    UNION ALL
    SELECT object, 4, 1, 'rule ' || r.rulename, pg_get_ruledef(r.oid)
    FROM relation JOIN pg_rewrite r ON r.ev_class = relation.oid WHERE r.rulename <> '_RETURN'
    UNION ALL
    SELECT object, 5, 0, 'definition', btrim(regexp_replace(pg_get_viewdef(oid), '\\s+', ' ', 'g'))
    FROM relation WHERE relkind = 'v'
    UNION ALL
    SELECT object, 5, 0, 'definition', concat_ws(' ', 'returns', pg_get_function_result(p.oid),
           (SELECT lanname FROM pg_language WHERE oid = p.prolang), p.provolatile,
           CASE WHEN p.prosecdef THEN 'security definer' END, 'set ' || array_to_string(p.proconfig, ', '),
           'sha256', encode(sha256(convert_to(p.prosrc, 'UTF8')), 'hex'))
    FROM routine p
    UNION ALL
    SELECT object, 6, 0, 'grant ' || grantee,
           string_agg(privilege_type, ', ' ORDER BY privilege_type COLLATE "C")
    FROM granted g WHERE g.on = '' GROUP BY object, grantee
    UNION ALL
    SELECT object, 6, 1, concat_ws(' ', 'grant', grantee, privilege_type),
           string_agg(g.on, ', ' ORDER BY g.on COLLATE "C")
    FROM granted g WHERE g.on <> '' GROUP BY object, grantee, privilege_type
)
SELECT object, name, text FROM line ORDER BY object COLLATE "C", part, number, name COLLATE "C"
"""
SHIPPED: LiteralString = """
    VALUES ('stock', 1), ('purchases_by_user', 1), ('sales_by_day', 1), ('user_events', 1)
"""
"""The projections that the migrations make, by name and version: those of the registry."""
# Made later than the migrations: generations, and the tables and views of projections that aren't shipped.
LATER: LiteralString = (
    """
SELECT CASE c.relkind WHEN 'v' THEN 'view ' ELSE 'table ' END || c.relname FROM pg_class c
WHERE c.relnamespace = 'ledger'::regnamespace AND (c.relispartition OR EXISTS (
    SELECT FROM ledger.projection p
    WHERE p.name NOT IN (SELECT name FROM ("""
    + SHIPPED
    + """) AS shipped (name, version))
    AND (c.relname = p.name OR (c.relkind = 'p' AND c.relname = p.relation))))
"""
)
PARTS_ALWAYS = ("trigger", "rule", "row security")
"""What is looked at on a table that was made later, too."""


def stored(conn: Connection) -> Lines:
    """What the catalogues say, in the words of PostgreSQL 16 and later."""
    old = conn.info.server_version < 160000
    later = {object_ for (object_,) in conn.execute(LATER)}
    return {
        (object_, name): _as_later(text) if old and name == "definition" else text
        for object_, name, text in conn.execute(DUMP)
        if object_ not in later or name.startswith(PARTS_ALWAYS)
    }


def dumped(lines: Lines) -> str:
    """The lines as `schema.txt` has them."""
    text, last = [], None
    for (object_, name), value in lines.items():
        if object_ != last:
            text.append(object_)
        last = object_
        text.append(f"   {name}: {value}")
    return "\n".join(text) + "\n"


@cache
def expected() -> Mapping[tuple[str, str], str]:
    """What this build's migrations make."""
    lines, object_ = {}, ""
    for line in files("ledger.store.schema").joinpath("schema.txt").read_text("utf-8").splitlines():
        if line.startswith(" "):
            name, _, text = line.strip().partition(": ")
            lines[object_, name] = text
        else:
            object_ = line
    return lines


def _as_later(definition: str) -> str:
    """A view of one table: PostgreSQL 15 names the table before each of its columns, later ones don't."""
    outer = definition.partition(" WHERE ")[0]
    table = re.fullmatch(r"SELECT .* FROM (?:ledger\.)?(\w+)(?: (\w+))?;?", outer.strip())
    return re.sub(rf"\b{table[2] or table[1]}\.", "", definition) if table else definition
