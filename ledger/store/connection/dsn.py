"""The DSN: read without ever quoting it; and why there is no connection, the cause first, with its next step.

A server that refuses a connection gives the driver no SQLSTATE, only words, so here alone words decide. Those
that aren't known (a server may speak another language) are shown as they are.
"""

import re
from shlex import quote
from typing import NamedTuple

import psycopg
from psycopg import pq

from ledger.errors import AGAIN, MASK, BadSettings, LoginRefused, Unavailable

ALCHEMY = re.compile(r"postgres(ql)?\+\w+://")
# What the driver and libpq put before the cause.
BEFORE = re.compile(r"^(- [^:]*:[^:]*: )?connection (failed|is bad): (connection to server .*? failed: )?")
WITH_AT = re.compile(r"'[^']*@([^'@]*)'")


class Option(NamedTuple):
    """A parameter of libpq: its keyword, its value, and whether that is a secret."""

    keyword: str
    value: str
    secret: bool


class Destination(NamedTuple):
    """Where a DSN leads to, with what libpq takes from its own variables."""

    host: str
    port: str
    user: str
    database: str

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.host else "the local socket"


class Cause(NamedTuple):
    """Words of a failed attempt, what they mean, and the next step; both may name the place's parts."""

    words: str
    what: str
    remedy: str
    kind: type[Unavailable] = LoginRefused


# The first one that fits any of the attempts counts: a server's own word says more than a host's silence.
CAUSES = (
    Cause(
        "password authentication failed",
        "the password of the role {user} is wrong, or there is no such role",
        "correct the password of {user}: in the DSN, in PGPASSWORD or in ~/.pgpass",
    ),
    Cause(
        "no password supplied",
        "the role {user} needs a password",
        "give the password of {user}: in the DSN, in PGPASSWORD or in ~/.pgpass",
    ),
    Cause(
        "database .* does not exist",
        "there is no database {database}",
        "createdb {shell} -U {user:q} {database:q}",
    ),
    Cause(
        "role .* does not exist",
        "there is no role {user}",
        "createuser {shell} -U postgres --pwprompt {user:q}",
    ),
    Cause(
        "pg_hba.* no encryption",
        "the server doesn't let {user} in without TLS",
        "add sslmode=require to the DSN, or set PGSSLMODE=require",
    ),
    Cause(
        "pg_hba",
        "the server doesn't let {user} in from this host",
        "add to the server's pg_hba.conf and reload: host {database} {user} samenet scram-sha-256",
    ),
    Cause(
        "permission denied for database",
        "the role {user} may not connect to {database}",
        'GRANT CONNECT ON DATABASE "{database}" TO "{user}";',
    ),
    Cause(
        "does not support SSL",
        "the server has no TLS, which sslmode asks for",
        "set ssl = on in the server's postgresql.conf and restart it",
    ),
    Cause(
        "certificate|SSL error",
        "TLS failed",
        "name the authority that signed the server's certificate: sslrootcert in the DSN, or PGSSLROOTCERT",
    ),
    Cause(
        "too many (clients|connections)|remaining connection slots",
        "the server has no connection left",
        "raise max_connections at the server, or end clients that don't need theirs",
        Unavailable,
    ),
    Cause(
        "not currently accepting",
        "the database {database} takes no connections",
        'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true;',
    ),
    Cause("database system is|not yet accepting", "the server is starting or ending", AGAIN, Unavailable),
    Cause(
        "session is (not )?read-only|server is (not )?in hot standby",
        "the server isn't of the kind that target_session_attrs asks for",
        "name the primary in the DSN or in PGHOST",
        Unavailable,
    ),
    Cause(
        "timeout|timed out",
        "{at} doesn't answer",
        "correct the address, or let the firewall pass what goes to {at}",
        Unavailable,
    ),
    Cause("refused", "nothing listens at {at}", "start PostgreSQL at {at}, or correct the DSN", Unavailable),
    Cause(
        "No such file|on socket",
        "no server listens at the local socket",
        "start PostgreSQL on this machine, or name its host in the DSN or in PGHOST",
        Unavailable,
    ),
    Cause(
        "resolve|translate host",
        "the host name {host} doesn't resolve",
        "correct the host name in the DSN or in PGHOST; an @ in a password is written %40",
        Unavailable,
    ),
    Cause(
        "definition of service",
        "the connection service isn't defined",
        "correct PGSERVICE, or ~/.pg_service.conf",
        Unavailable,
    ),
)


class _Text(str):
    """`{user:q}` is the text quoted for a shell."""

    def __format__(self, spec: str) -> str:
        return quote(self) if spec == "q" else str(self)


def options(dsn: str, origin: str = "") -> list[Option]:
    """The DSN's parameters. Raises BadSettings, without libpq's words: they may quote a password."""
    try:
        return [
            Option(each.keyword.decode(), each.val.decode(), each.dispchar == b"*")
            for each in pq.Conninfo.parse(dsn.encode())
            if each.val is not None
        ]
    except (psycopg.OperationalError, UnicodeError):
        named = f"dsn from {origin}" if origin else "the DSN"
        if ALCHEMY.match(dsn):
            raise BadSettings(
                f"{named} names a driver, as SQLAlchemy's URLs do", remedy="begin it with postgresql://"
            ) from None
        raise BadSettings(
            f"{named} is neither a URL nor keyword=value pairs of libpq",
            remedy="write it like postgresql://shop@127.0.0.1:5432/shop, what is special percent-encoded",
        ) from None


def destination(dsn: str) -> Destination:
    """Where the DSN leads to; what an unquoted @ makes of a password is masked. Raises BadSettings."""
    found = {
        o.keyword.decode(): o.val.decode("utf-8", "replace") for o in pq.Conninfo.get_defaults() if o.val
    }
    found |= {option.keyword: option.value for option in options(dsn)}
    host, user = found.get("host") or found.get("hostaddr", ""), found.get("user", "")
    if "@" in host:
        host = f"{MASK}@{host.rpartition('@')[2]}"
    return Destination(host, found.get("port", "5432"), user, found.get("dbname") or user)


def unreachable(error: psycopg.OperationalError, dsn: str) -> Unavailable:
    """Why there is no connection: of all attempts, what was met by the one that came farthest."""
    at = destination(dsn)
    shell = f"-h {quote(at.host)} -p {quote(at.port)}" if at.host else f"-p {quote(at.port)}"
    parts = {name: _Text(part) for name, part in at._asdict().items()} | {"at": str(at), "shell": shell}
    lines = [" ".join(line.split()) for line in str(error).splitlines() if not line.startswith("\t")]
    attempts = [BEFORE.sub("", line) for line in lines]
    for cause in CAUSES:
        for attempt in attempts:
            if re.search(cause.words, attempt):
                said = WITH_AT.sub(rf"'{MASK}@\1'", attempt)
                return cause.kind(
                    f"{cause.what.format(**parts)} ({said})", remedy=cause.remedy.format(**parts)
                )
    said = WITH_AT.sub(rf"'{MASK}@\1'", " ".join(attempts))
    return Unavailable(f"the database at {at} can't be reached: {said}")
