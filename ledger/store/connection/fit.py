"""Whether a server and a database can keep a ledger at all; every connection asks, whatever it is for.

What a person has to change before anything else makes sense: an old server, a database that can't hold every
text, a pooler that takes the session away between two transactions.
"""

import select
from collections.abc import Callable
from contextlib import closing
from shlex import quote

import psycopg

from ledger.errors import ServerUnfit

VERSION_MIN = 15
ENCODING = "UTF8"
BACKEND = b"SELECT pg_catalog.pg_backend_pid()"
ANSWER_TIMEOUT_S = 2.0
MEETINGS = 3


def require_fit(conn: psycopg.Connection) -> None:
    """Raise ServerUnfit for an older server, or a database with another encoding. Asks nothing."""
    version = conn.info.server_version // 10_000
    if version < VERSION_MIN:
        raise ServerUnfit(
            f"this is PostgreSQL {version}, and a ledger needs {VERSION_MIN} or newer",
            remedy=f"use a server of PostgreSQL {VERSION_MIN} or newer",
        )
    encoding = conn.info.parameter_status("server_encoding")
    if encoding != ENCODING:
        host = f"-h {quote(conn.info.host)} " if conn.info.host else ""
        at = f"{host}-p {conn.info.port} -U {quote(conn.info.user)}"
        another = quote(f"{conn.info.dbname}_utf8")
        raise ServerUnfit(
            f"the database {conn.info.dbname} is in {encoding}, which can't hold every text",
            remedy=f"createdb {at} --template=template0 --encoding=UTF8 --locale=C {another}"
            " makes one that can; name it in the DSN",
        )


def require_session(
    conn: psycopg.Connection, backend: int, connect: Callable[[], psycopg.Connection]
) -> None:
    """Raise ServerUnfit behind a pooler that lends a server's session for a transaction only.

    `backend` is who answered the first statement. A pooler gives its clients numbers of its own; and two of
    them that meet in the same session, while both are connected, share it. In session mode the second waits.
    """
    if backend == conn.info.backend_pid:
        return
    with closing(connect()) as other:
        for _ in range(MEETINGS):
            if (theirs := _backend(other)) is None:
                return
            if theirs == _backend(conn):
                raise ServerUnfit(
                    "a pooler in transaction mode stands before the database: settings, prepared statements"
                    " and locks of a session don't hold there",
                    remedy="set pool_mode = session in the pooler for this database,"
                    " or name the server itself in the DSN",
                )


def _backend(conn: psycopg.Connection) -> int | None:
    """The server's process that answers; None if none does in time."""
    conn.pgconn.send_query(BACKEND)
    conn.pgconn.flush()
    while conn.pgconn.is_busy():
        if not select.select([conn.fileno()], [], [], ANSWER_TIMEOUT_S)[0]:
            return None
        conn.pgconn.consume_input()
    answer = conn.pgconn.get_result()
    value = answer.get_value(0, 0) if answer else None
    while conn.pgconn.get_result():
        pass
    return int(value) if value else None
