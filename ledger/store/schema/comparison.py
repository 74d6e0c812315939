"""Is the schema the one that this build's migrations make? What differs comes with what mends it.

That is a statement, or the verb. Of generations, and of projections of one's own, only triggers, rules and
row security are looked at (`dump`). Nothing is written.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ledger.store.connection.database import Connection
from ledger.store.schema.dump import PARTS_ALWAYS, Lines, expected, stored
from ledger.store.schema.rights import MIGRATE, Role, roles


class SchemaDifference(NamedTuple):
    """What is otherwise, the statement or verb that mends it, and whether `migrate` runs it by itself."""

    what: str
    mend: str
    by_migrate: bool = False

    def __str__(self) -> str:
        return f"{self.what} -> {self.mend}"


# What one must own to be believed: the database, as a superuser does all of them.
STRANGERS = """
WITH ours AS (SELECT datdba FROM pg_database WHERE datname = current_database()), owned AS (
    SELECT 'schema ' || nspname AS object, nspowner AS owner, 'SCHEMA ledger' AS named
    FROM pg_namespace WHERE nspname = 'ledger'
    UNION ALL
    SELECT 'relation ' || relname, relowner,
           concat(CASE relkind WHEN 'v' THEN 'VIEW ' WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END,
                  'ledger.', quote_ident(relname))
    FROM pg_class WHERE relnamespace = to_regnamespace('ledger') AND relkind NOT IN ('i', 'I', 't', 'c')
    UNION ALL
    SELECT 'function ' || proname, proowner, 'FUNCTION ' || oid::regprocedure
    FROM pg_proc WHERE pronamespace = to_regnamespace('ledger')
)
SELECT object, pg_get_userbyid(owner), named, quote_ident(pg_get_userbyid(datdba))
FROM owned CROSS JOIN ours WHERE NOT pg_has_role(owner, datdba, 'MEMBER') ORDER BY 1
"""


def strangers(conn: Connection) -> list[SchemaDifference]:
    """What in the schema belongs to somebody who isn't the database's owner, and could change it at will."""
    return [
        SchemaDifference(
            f"{object_} is owned by {owner}, who doesn't own the database",
            f"ALTER {named} OWNER TO {ours}, or use another database",
        )
        for object_, owner, named, ours in conn.execute(STRANGERS)
    ]


def missing_roles(conn: Connection) -> list[SchemaDifference]:
    """The roles of the ledger that nobody has made yet."""
    return [
        SchemaDifference(f"the role {role.name} doesn't exist", f"{role.make}; then {MIGRATE}")
        for role in roles(conn)
        if not role.exists
    ]


def compare(conn: Connection) -> list[SchemaDifference]:
    """How the schema differs from what this build's migrations make: nothing, one hopes."""
    return [*strangers(conn), *_compared(expected(), stored(conn), roles(conn))]


def _compared(
    expected: Mapping[tuple[str, str], str], stored: Lines, roles: tuple[Role, Role]
) -> Iterator[SchemaDifference]:
    names = dict(zip(("writer", "reader"), roles, strict=True))
    strange: set[str] = set()
    there = {object_ for object_, _ in stored}
    known = {object_ for object_, _ in expected}
    there.add("schema ledger")  # it has nothing but rights, perhaps of roles that aren't there
    for object_ in sorted(known - there):
        yield SchemaDifference(f"{object_} is missing", _from_migrations(object_), _is_code(object_))
    for object_, name in sorted(expected.keys() | stored.keys()):
        right, found = expected.get((object_, name)), stored.get((object_, name))
        if object_ not in known and not name.startswith(PARTS_ALWAYS):
            strange.add(object_)
        elif object_ in there and right != found:
            yield from _differing(object_, name, right, found, names)
    for object_ in sorted(strange):
        yield SchemaDifference(f"{object_} is none of this build's", _drop(object_))


def _differing(
    object_: str, name: str, right: str | None, found: str | None, roles: Mapping[str, Role]
) -> Iterator[SchemaDifference]:
    kind, _, what = name.partition(" ")
    if kind == "grant":
        yield from _grants(object_, what, right, found, roles)
        return
    state = (
        "is missing" if found is None else "is none of this build's" if right is None else "is another one"
    )
    table = object_.partition(" ")[2]
    by_migrate = False
    if kind == "definition":
        mend, by_migrate = _from_migrations(object_), True
    elif kind == "trigger":
        mend, by_migrate = _trigger(table, what, right, found), True
        if right and found and right.rpartition("; ")[0] == found.rpartition("; ")[0]:
            state = f"is {found.rpartition('; ')[2]}, not {right.rpartition('; ')[2]}"
    elif kind == "index":
        mend = "; ".join(([f"DROP INDEX {what}"] if found else []) + ([right] if right else []))
    elif kind == "constraint":
        drop = [f"ALTER TABLE ledger.{table} DROP CONSTRAINT {what}"] if found else []
        mend = "; ".join(
            drop + ([f"ALTER TABLE ledger.{table} ADD CONSTRAINT {what} {right}"] if right else [])
        )
    elif kind == "rule":
        mend = f"DROP RULE {what} ON ledger.{table}"
    elif name == "row security":
        mend = f"ALTER TABLE ledger.{table} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY"
    elif right is None and kind == "column":
        mend = f"ALTER TABLE ledger.{table} DROP COLUMN {what}"
    else:
        mend = f"make it {right or 'nothing'}, as `stockledger migrate --print` has it"
    yield SchemaDifference(f"{object_}: {name} {state}", mend, by_migrate)


def _trigger(table: str, name: str, right: str | None, found: str | None) -> str:
    if right is None:
        return f"DROP TRIGGER {name} ON ledger.{table}"
    create, _, state = right.rpartition("; ")
    enable = f"ALTER TABLE ledger.{table} {state} TRIGGER {name}"
    if found is None:
        return f"{create}; {enable}"
    if found.rpartition("; ")[0] == create:
        return enable
    return f"DROP TRIGGER {name} ON ledger.{table}; {create}; {enable}"


def _grants(
    object_: str, what: str, right: str | None, found: str | None, roles: Mapping[str, Role]
) -> Iterator[SchemaDifference]:
    grantee, _, privilege = what.partition(" ")
    if grantee in roles and not roles[grantee].exists:
        return  # `doctor` and `migrate` say so
    role = roles[grantee].quoted if grantee in roles else grantee
    kind, _, name = object_.partition(" ")
    aim = name if kind == "schema" else f"ledger.{name}"
    aim = f"{'TABLE' if kind == 'view' else kind.upper()} {aim}"
    should, have = (set(text.split(", ")) if text else set() for text in (right, found))
    shown = roles[grantee].name if grantee in roles else grantee
    for rights, verb, to, state in (
        (should - have, "GRANT", "TO", "may not"),
        (have - should, "REVOKE", "FROM", "may"),
    ):
        if rights:
            listed = ", ".join(sorted(rights))
            listed = f"{privilege} ({listed})" if privilege else listed
            mend = f"{verb} {listed} ON {aim} {to} {role}"
            ours = verb == "GRANT" or grantee in (*roles, "PUBLIC")
            yield SchemaDifference(f"{object_}: {shown} {state} {listed}", mend, ours)


def _is_code(object_: str) -> bool:
    return object_.startswith(("function ", "view "))


def _from_migrations(object_: str) -> str:
    return MIGRATE if _is_code(object_) else "restore it: a ledger without it can't be mended"


def _drop(object_: str) -> str:
    kind, _, name = object_.partition(" ")
    return f"DROP {kind.upper()} ledger.{name}"
