"""The ledger's two roles, and whether this user may do what a worker does. Nothing is written."""

from typing import NamedTuple

from ledger.store.connection.database import Connection

MIGRATE = "stockledger migrate"
ROLES = """
SELECT n.name, EXISTS (SELECT FROM pg_roles WHERE rolname = n.name)
FROM ledger.role r CROSS JOIN LATERAL (VALUES (r.writer), (r.reader)) AS n (name)
"""
MEMBER = "SELECT pg_has_role(%s, 'MEMBER'), pg_has_role(%s, 'USAGE')"
# For a user who may not even look into the schema; the catalogues are everybody's.
OUTSIDE = """
SELECT NOT has_schema_privilege(oid, 'USAGE'), (
    SELECT min(r.rolname) FROM aclexplode(nspacl) a JOIN pg_roles r ON r.oid = a.grantee
    WHERE starts_with(r.rolname, 'stockledger_writer'))
FROM pg_namespace WHERE nspname = 'ledger'
"""


class Role(NamedTuple):
    """A role of this ledger."""

    name: str
    exists: bool

    @property
    def quoted(self) -> str:
        """The name as SQL has it."""
        return '"' + self.name.replace('"', '""') + '"'

    @property
    def make(self) -> str:
        """The statement that makes it."""
        return f"CREATE ROLE {self.quoted} NOLOGIN"


def roles(conn: Connection) -> tuple[Role, Role]:
    """The writer's and the reader's role."""
    writer, reader = (Role(*row) for row in conn.execute(ROLES))
    return writer, reader


def is_outside(conn: Connection) -> bool:
    """Whether this user may not look into the ledger's schema at all."""
    row = conn.execute(OUTSIDE).fetchone()
    return row is not None and bool(row[0])


def way_to_write(conn: Connection) -> str:
    """The statement after which this user may do what a worker does; empty if the user may already."""
    user = '"' + conn.info.user.replace('"', '""') + '"'
    outside = conn.execute(OUTSIDE).fetchone()
    if outside and outside[0]:
        if outside[1] is None:
            return MIGRATE
        writer = Role(outside[1], True)
    else:
        writer, _ = roles(conn)
    if not writer.exists:
        return f"{writer.make}; then {MIGRATE}"
    row = conn.execute(MEMBER, (writer.name, writer.name)).fetchone()
    assert row is not None
    member, uses = row
    if uses:
        return ""
    if not member:
        return f"GRANT {writer.quoted} TO {user}"
    if conn.info.server_version < 160000:
        return f"ALTER ROLE {user} INHERIT"
    return f"GRANT {writer.quoted} TO {user} WITH INHERIT TRUE"
