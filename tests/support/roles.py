"""The roles of a ledger, which have names of its own."""

from ledger.store.connection.database import Connection
from ledger.store.schema import rights


def writer(conn: Connection) -> str:
    """The name of the role that workers are members of."""
    return rights.roles(conn)[0].name


def reader(conn: Connection) -> str:
    """The name of the role of everybody else."""
    return rights.roles(conn)[1].name
