"""The doctor's second half: Postgres, and whether what it remembers fits the broker and the settings."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from consumer import known_log
from consumer.admin import TopicFacts
from consumer.known_log import KnownLogs
from ledger.errors import LedgerError
from ledger.figures import counted
from ledger.store.connection import server
from ledger.store.connection.database import Connection, faults
from ledger.store.reads import history
from ledger.store.schema import comparison, migrate
from ledger.store.schema.rights import is_outside, way_to_write
from ledger.store.tables import identity
from producer.partition_by import PartitionBy
from stockledger.doctor import lanes, storage
from stockledger.doctor.finding import FAIL, OK, WARN, Finding, Findings, attempt, is_local
from stockledger.settings import Settings
from stockledger.wiring import database, ledger_database

MIGRATE = "stockledger migrate"


def examine(settings: Settings, topics: list[TopicFacts]) -> Iterator[Finding]:
    """The findings; `topics` are those that Kafka described."""

    def look() -> list[Finding]:
        with database(settings, "doctor") as conn, faults():
            return list(_examine(conn, settings, topics))

    yield from (
        yield from attempt("postgres", look, "start the server, or correct the DSN (`stockledger config`)")
    ) or []


def known(settings: Settings) -> KnownLogs:
    """What the ledger knows of its logs; nothing, where it can't be asked: that is a finding of its own."""
    try:
        with ledger_database(settings, "doctor") as conn:
            return known_log.read(conn)
    except LedgerError:
        return KnownLogs([], None)


def _examine(conn: Connection, settings: Settings, topics: list[TopicFacts]) -> Iterator[Finding]:
    yield from _server(conn)
    if durability := (yield from attempt("durability", lambda: _durability(conn))):
        yield durability
    if is_outside(conn):
        found = f"{conn.info.user} may not look into the ledger"
        yield Finding(FAIL, "rights", found, way_to_write(conn))
        return
    missing = yield from attempt("schema", lambda: migrate.pending(conn))
    if missing is None:
        return
    known = len(migrate.migrations())
    if missing:
        found = f"at {known - len(missing)}, this build needs {known}"
        yield Finding(FAIL, "schema", found, MIGRATE)
        return
    yield from (yield from attempt("schema", lambda: _schema(conn, known))) or []
    if (yield from _rights(conn)):
        yield from attempt("copy", lambda: server.require_whole(conn))
        if (ahead_s := server.ahead_s(conn)) > 0:
            found = f"{server.AHEAD_MEANS}: {ahead_s:.0f} s"
            yield Finding(WARN, "clock", found, "synchronise the clock of Postgres's server, and wait")
        yield from storage.examine(conn)
        yield from _identity(conn, settings, topics)
        yield from (yield from attempt("lanes", lambda: lanes.examine(conn, settings, topics))) or []
    is_routed = settings.partition_by is not PartitionBy.GOODS or settings.hot_goods
    if is_routed and (routing := (yield from attempt("routing", lambda: _routing(conn, settings, topics)))):
        yield routing


def _routing(conn: Connection, settings: Settings, topics: list[TopicFacts]) -> Finding:
    """Whether the settings make sense to a producer, and the ledger knows the goods that they name."""
    routing = settings.routing()
    for facts in topics:
        routing.require(facts.name, facts.partitions)
    listed = history.live(conn, routing.hot_goods).levels
    if unlisted := [goods_id for goods_id in routing.hot_goods if goods_id not in listed]:
        found = f"by mixed, but {unlisted[0]} was never listed ({counted(len(unlisted), 'such item')})"
        return Finding(WARN, "routing", found, "correct hot_goods, or list the goods")
    return Finding(OK, "routing", f"by {routing.partition_by}")


def _transport(conn: Connection) -> Finding | None:
    """Whether somebody in between could read, or pose as the server; None on this machine."""
    host = conn.info.host
    if is_local(host):
        return None
    mode = conn.info.get_parameters().get("sslmode", "prefer")
    if not conn.pgconn.ssl_in_use:
        found = f"no TLS to {host} (sslmode={mode}): whoever is in between reads and writes"
    elif mode != "verify-full":
        found = f"TLS to anybody who says that he is {host}: sslmode={mode}"
    else:
        return Finding(OK, "transport", f"TLS to {host}, its certificate and name are verified")
    return Finding(WARN, "transport", found, "set sslmode=verify-full")


def _server(conn: Connection) -> Iterator[Finding]:
    info = conn.info
    number = info.server_version
    found = (
        f"{info.host}:{info.port}/{info.dbname} as {info.user}, version {number // 10000}.{number % 10000}"
    )
    yield Finding(OK, "postgres", found)
    if transport := _transport(conn):
        yield transport
    yield from attempt("writes", lambda: server.require_writable(conn))
    before = time.time()
    yield _clock(server.now(conn), (before + time.time()) / 2)


def _durability(conn: Connection) -> Finding:
    server.require_durable(conn)
    return Finding(OK, "durability", "synchronous_commit, fsync and full_page_writes are on")


def _clock(theirs: datetime, ours: float) -> Finding:
    skew_s = abs(theirs.astimezone(UTC).timestamp() - ours)
    found = f"this machine and Postgres differ by {skew_s:.1f} s"
    if skew_s > server.CLOCK_SKEW_MAX_S:
        return Finding(WARN, "clock", found, "synchronise the clocks: times in the ledger are the server's")
    return Finding(OK, "clock", found)


def _schema(conn: Connection, known: int) -> list[Finding]:
    """Whether all is as this build's migrations make it: each line with the statement that mends it."""
    found = [Finding(FAIL, "schema", each.what, each.mend) for each in comparison.compare(conn)]
    found += [Finding(WARN, "roles", each.what, each.mend) for each in comparison.missing_roles(conn)]
    return found or [Finding(OK, "schema", f"{known}, up to date")]


def _rights(conn: Connection) -> Findings[bool]:
    """Whether this role may read the ledger at all."""
    rights = yield from attempt("rights", lambda: server.rights(conn))
    if rights is None:
        return False
    role = conn.info.user
    if rights.writes:
        yield Finding(OK, "rights", f"{role} may read and write")
    else:
        grant = way_to_write(conn) or MIGRATE
        yield Finding(WARN, "rights", f"{role} may not write, which `run`, `dlq` and `gap` need", grant)
    return rights.reads


def _original(conn: Connection) -> list[Finding]:
    identity.require_original(conn)
    return []


def _identity(conn: Connection, settings: Settings, topics: list[TopicFacts]) -> Iterator[Finding]:
    group, cluster_id = identity.read(conn)
    if group is None:
        yield Finding(
            OK, "identity", "nobody's yet; the first `run` makes it this group's and this cluster's"
        )
        return
    yield from (yield from attempt("copy", lambda: _original(conn))) or []
    if group != settings.group:
        found = f"the ledger belongs to the group {group}, the settings say {settings.group}"
        yield Finding(FAIL, "identity", found, f"set STOCKLEDGER_GROUP={group}")
    elif topics and topics[0].cluster_id != cluster_id:
        found = f"the ledger was begun on the cluster {cluster_id}, this broker's is {topics[0].cluster_id}"
        yield Finding(FAIL, "identity", found, "correct bootstrap.servers, or use another database")
    else:
        yield Finding(OK, "identity", f"group {group}, cluster {cluster_id}")
