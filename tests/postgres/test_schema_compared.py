"""A schema that isn't this build's is named line by line, each with what mends it, and that does mend it."""

import psycopg
import pytest
from psycopg import sql

from ledger.errors import SchemaMismatch, Stop
from ledger.store.connection import database
from ledger.store.schema import comparison, migrate, rights
from ledger.verify.run import verify
from tests.conftest import database as new_database
from tests.support import roles
from tests.support.history import history


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        yield conn


REFUSE = "FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change()"
CHANGES = {
    "a guard as a data-only restore leaves it": (
        "ALTER TABLE ledger.event ENABLE TRIGGER no_update",
        "table event: trigger no_update is ENABLE, not ENABLE ALWAYS"
        " -> ALTER TABLE ledger.event ENABLE ALWAYS TRIGGER no_update",
    ),
    "a guard switched off": (
        "ALTER TABLE ledger.journal DISABLE TRIGGER no_delete",
        "table journal: trigger no_delete is DISABLE, not ENABLE ALWAYS",
    ),
    "a guard dropped": (
        "DROP TRIGGER no_truncate ON ledger.gap",
        "table gap: trigger no_truncate is missing -> CREATE TRIGGER no_truncate",
    ),
    "a trigger planted": (
        f"CREATE TRIGGER spy BEFORE INSERT ON ledger.event {REFUSE}",
        "table event: trigger spy is none of this build's -> DROP TRIGGER spy ON ledger.event",
    ),
    "a trigger planted on a generation": (
        f"CREATE TRIGGER spy BEFORE INSERT ON ledger.stock_1 {REFUSE}",
        "table stock_1: trigger spy is none of this build's -> DROP TRIGGER spy ON ledger.stock_1",
    ),
    "a function replaced": (
        "CREATE OR REPLACE FUNCTION ledger.lock_head() RETURNS bigint LANGUAGE sql SECURITY DEFINER"
        " SET search_path = pg_catalog, pg_temp AS 'SELECT 1::bigint'",
        "function lock_head(): definition is another one -> stockledger migrate",
    ),
    "a function that runs as its caller": (
        "ALTER FUNCTION ledger.lock_head() SECURITY INVOKER",
        "function lock_head(): definition is another one -> stockledger migrate",
    ),
    "a function without its search_path": (
        "ALTER FUNCTION ledger.lock_head() RESET search_path",
        "function lock_head(): definition is another one -> stockledger migrate",
    ),
    "a function dropped": (
        "DROP FUNCTION ledger.lock_head()",
        "function lock_head() is missing -> stockledger migrate",
    ),
    "a function planted": (
        "CREATE FUNCTION ledger.spy(n int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "function spy(n integer) is none of this build's -> DROP FUNCTION ledger.spy(n integer)",
    ),
    "a view replaced": (
        "CREATE OR REPLACE VIEW ledger.stock_levels AS SELECT goods_id, 2 * on_hand AS on_hand, version"
        " FROM ledger.stock",
        "view stock_levels: definition is another one -> stockledger migrate",
    ),
    "a view dropped": ("DROP VIEW ledger.gaps", "view gaps is missing -> stockledger migrate"),
    "a table planted": (
        "CREATE TABLE ledger.mine (n int)",
        "table mine is none of this build's -> DROP TABLE ledger.mine",
    ),
    "rights for everybody": (
        "GRANT SELECT ON ledger.event TO PUBLIC",
        "table event: PUBLIC may SELECT -> REVOKE SELECT ON TABLE ledger.event FROM PUBLIC",
    ),
    "rights for somebody": (
        "GRANT DELETE ON ledger.account TO pg_monitor",
        "table account: pg_monitor may DELETE -> REVOKE DELETE ON TABLE ledger.account FROM pg_monitor",
    ),
    "more rights for a writer": (
        "GRANT UPDATE ON ledger.lane TO {writer}",
        "{writer} may UPDATE -> REVOKE UPDATE",
    ),
    "more columns for a writer": (
        "GRANT UPDATE (start_offset) ON ledger.lane TO {writer}",
        "table lane: {writer} may UPDATE (start_offset) -> REVOKE UPDATE (start_offset) ON TABLE",
    ),
    "fewer rights for a writer": (
        "REVOKE INSERT ON ledger.event FROM {writer}",
        "table event: {writer} may not INSERT -> GRANT INSERT ON TABLE ledger.event TO",
    ),
    "no rights for a reader": (
        "REVOKE USAGE ON SCHEMA ledger FROM {reader}",
        "schema ledger: {reader} may not USAGE -> GRANT USAGE ON SCHEMA ledger TO",
    ),
    "everybody may create": (
        "GRANT CREATE ON SCHEMA ledger TO PUBLIC",
        "schema ledger: PUBLIC may CREATE -> REVOKE CREATE ON SCHEMA ledger FROM PUBLIC",
    ),
    "everybody may seal": (
        "GRANT EXECUTE ON FUNCTION ledger.seal TO PUBLIC",
        "PUBLIC may EXECUTE -> REVOKE EXECUTE ON FUNCTION ledger.seal(",
    ),
    "a constraint dropped": (
        "ALTER TABLE ledger.journal DROP CONSTRAINT journal_tiles",
        "table journal: constraint journal_tiles is missing -> ALTER TABLE ledger.journal ADD CONSTRAINT",
    ),
    "a constraint added": (
        "ALTER TABLE ledger.event ADD CONSTRAINT small CHECK (delta < 5) NOT VALID",
        "table event: constraint small is none of this build's -> ALTER TABLE ledger.event DROP",
    ),
    "an index dropped": (
        "DROP INDEX ledger.event_entry",
        "table event: index ledger.event_entry is missing -> CREATE INDEX event_entry ON ledger.event",
    ),
    "an index added": (
        "CREATE UNIQUE INDEX one ON ledger.event (type)",
        "table event: index ledger.one is none of this build's -> DROP INDEX ledger.one",
    ),
    "a column added": (
        "ALTER TABLE ledger.event ADD COLUMN mine text",
        "table event: column mine is none of this build's -> ALTER TABLE ledger.event DROP COLUMN mine",
    ),
    "a rule": (
        "CREATE RULE lost AS ON INSERT TO ledger.gap DO INSTEAD NOTHING",
        "table gap: rule lost is none of this build's -> DROP RULE lost ON ledger.gap",
    ),
    "row security": (
        "ALTER TABLE ledger.event ENABLE ROW LEVEL SECURITY",
        "table event: row security is none of this build's -> ALTER TABLE ledger.event DISABLE",
    ),
}  # fmt: skip


def test_each_change_is_named_and_mended(conn, subtests):
    """What is otherwise than the migrations make it is one line; its statement, or `migrate`, mends it."""
    names = {"writer": roles.writer(conn), "reader": roles.reader(conn)}
    assert comparison.compare(conn) == []
    for name, (statement, words) in CHANGES.items():
        with subtests.test(name), conn.transaction(force_rollback=True):
            conn.execute(statement.format(**names))
            found = comparison.compare(conn)
            assert any(words.format(**names) in str(each) for each in found), found
            for each in found:
                conn.execute(migrate.statement(each))
            conn.execute(migrate.roles())
            for each in comparison.compare(conn):
                conn.execute(migrate.statement(each))
            assert comparison.compare(conn) == []


def test_verify_names_what_differs(conn):
    """The check `schema` is red, with a line for each difference."""
    history(conn)
    conn.execute("ALTER TABLE ledger.event ENABLE TRIGGER no_update")
    conn.execute("GRANT SELECT ON ledger.event TO PUBLIC")
    (found,) = (each for each in verify(conn) if not each.ok)
    assert found.name == "schema"
    assert found.difference
    assert len(found.difference.splitlines()) == 2
    assert "ENABLE ALWAYS TRIGGER no_update" in found.difference


def test_migrate_mends_and_says_so(conn):
    """Guards, functions, views and rights are as this build has them after a `migrate`; the rest is named."""
    writer = roles.writer(conn)
    conn.execute("ALTER TABLE ledger.event ENABLE TRIGGER no_update")
    conn.execute(CHANGES["a function replaced"][0])
    conn.execute(CHANGES["a view replaced"][0])
    conn.execute(f"REVOKE ALL ON ledger.event FROM {writer}")
    conn.execute("CREATE TABLE ledger.mine ()")
    done = migrate.migrate(conn)
    assert done.applied == []
    assert len(done.mended) == 4
    assert [str(each) for each in done.left] == [
        "table mine is none of this build's -> DROP TABLE ledger.mine"
    ]
    history(conn)


def connected(services, name):
    return database.connect(services.postgres.dsn(name), purpose="test")


def test_roles_that_are_made_later_get_their_rights(services):
    """Where `migrate` may not make the roles, it shows the statement; made later, they get their rights."""
    with (
        new_database(services, "later") as name,
        database.connect(services.postgres.dsn(name), purpose="t") as conn,
    ):
        migrate.migrate(conn)
        made = rights.roles(conn)
        for role in made:
            conn.execute(f"DROP OWNED BY {role.quoted}")
            conn.execute(f"DROP ROLE {role.quoted}")
        with psycopg.connect(services.postgres.dsn(name), autocommit=True) as admin:
            owner = sql.Identifier(f"owner_of_{name}")
            admin.execute(sql.SQL("CREATE ROLE {}").format(owner))
            admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(name), owner))
            for (statement,) in admin.execute(OWN.format(f'"owner_of_{name}"')).fetchall():
                admin.execute(statement)
            try:
                conn.execute(sql.SQL("SET ROLE {}").format(owner))
                left = migrate.migrate(conn).left
                assert [each.mend for each in left] == [
                    f"{role.make}; then stockledger migrate" for role in made
                ]
                for each in left:
                    admin.execute(each.mend.partition(";")[0])
                assert migrate.migrate(conn).left == []
                assert migrate.migrate(conn) == ([], [], [])
                may_write = "SELECT has_table_privilege(%s, 'ledger.event', 'INSERT')"
                assert conn.execute(may_write, (made[0].name,)).fetchone() == (True,)
            finally:
                conn.execute("RESET ROLE")
                admin.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(owner))
                admin.execute(sql.SQL("DROP ROLE {}").format(owner))


OWN = """
SELECT 'ALTER SCHEMA ledger OWNER TO {0}'
UNION ALL
SELECT format('ALTER %s ledger.%I OWNER TO {0}', CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE'
       ELSE 'TABLE' END, relname)
FROM pg_class WHERE relnamespace = 'ledger'::regnamespace AND relkind IN ('r', 'p', 'v', 'S')
UNION ALL
SELECT format('ALTER FUNCTION %s OWNER TO {0}', oid::regprocedure)
FROM pg_proc WHERE pronamespace = 'ledger'::regnamespace
"""


FOREIGN = {
    "a table ledger.event": ("CREATE TABLE ledger.event (id int)", "the schema ledger holds event"),
    "a table ledger.migration": (
        "CREATE TABLE ledger.migration (version int)",
        "the schema ledger holds migration",
    ),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_schema_that_somebody_else_made_is_left_alone(services, what):
    """A schema `ledger` of another program is named and not touched, by migrate and by all others."""
    statement, words = FOREIGN[what]
    with (
        new_database(services, "foreign") as name,
        database.connect(services.postgres.dsn(name), purpose="t") as conn,
    ):
        conn.execute("CREATE SCHEMA ledger")
        conn.execute(statement)
        for act in (migrate.migrate, migrate.require_current):
            with pytest.raises(SchemaMismatch, match=words) as refused:
                act(conn)
            assert "ALTER SCHEMA ledger RENAME TO" in refused.value.remedy


@pytest.mark.parametrize("what", ["the schema", "a table", "a function"])
def test_what_another_role_owns_is_refused(services, what):
    """A schema, or a table or function in it, of a role that doesn't own the database could change under the
    owner's hands: migrate, and whoever else begins, refuses it by name."""
    with (
        new_database(services, "owned") as name,
        database.connect(services.postgres.dsn(name), purpose="t") as conn,
    ):
        mallory = sql.Identifier(f"mallory_of_{name}")
        conn.execute(sql.SQL("CREATE ROLE {}").format(mallory))
        try:
            if what == "the schema":
                conn.execute(sql.SQL("CREATE SCHEMA ledger AUTHORIZATION {}").format(mallory))
            else:
                migrate.migrate(conn)
                thing = "TABLE ledger.account" if what == "a table" else "FUNCTION ledger.refuse_change()"
                conn.execute(sql.SQL("ALTER {} OWNER TO {}").format(sql.SQL(thing), mallory))
            for act in (migrate.migrate, migrate.require_current):
                with pytest.raises(SchemaMismatch, match=f"is owned by mallory_of_{name}") as refused:
                    act(conn)
                assert refused.value.remedy.startswith("ALTER ")
        finally:
            conn.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(mallory))
            conn.execute(sql.SQL("DROP ROLE {}").format(mallory))


def test_who_may_not_create_is_told_which_right(services):
    """A user without the right to make a schema is told the statement, not to look elsewhere."""
    with new_database(services, "create") as name, connected(services, name) as conn:
        user = f"nobody_of_{name}"
        conn.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(user)))
        try:
            conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(user)))
            with pytest.raises(Stop, match=f"{user} may not create a schema") as refused:
                migrate.migrate(conn)
            assert refused.value.remedy.startswith(f"GRANT CREATE ON DATABASE {name} TO {user}")
        finally:
            conn.execute("RESET ROLE")
            conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(user)))


def test_roles_belong_to_one_ledger(services):
    """Who works for one ledger of a server has no right in another one's."""
    dsns, workers = [], []
    with new_database(services, "shop_a") as a, new_database(services, "shop_b") as b:
        for name in (a, b):
            dsns.append(services.postgres.dsn(name))
            with database.connect(dsns[-1], purpose="t") as conn:
                migrate.migrate(conn)
                workers.append(roles.writer(conn))
        for dsn, own in zip(dsns, workers, strict=True):
            with psycopg.connect(dsn) as conn:
                for role in workers:
                    conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
                    can = conn.execute("SELECT has_schema_privilege('ledger', 'USAGE')").fetchone()
                    assert can == (role == own,)
                    conn.execute("RESET ROLE")
