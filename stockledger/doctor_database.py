"""The doctor's second half: Postgres, and whether what it remembers fits the broker and the settings."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from consumer import topic
from consumer.topic import TopicFacts
from ledger.store import identity, lane, migrate, server
from ledger.store.database import Connection, faults
from stockledger.finding import FAIL, OK, WARN, Finding, Findings, attempt, is_local
from stockledger.settings import Settings
from stockledger.wiring import database

VERSION_MIN = 180000
CLOCK_SKEW_MAX_S = 1.0
MIGRATE = "stockledger migrate"


def examine(settings: Settings, facts: TopicFacts | None) -> Iterator[Finding]:
    """The findings; `facts` is the topic if Kafka answered."""

    def look() -> list[Finding]:
        with database(settings, "doctor") as conn, faults():
            return list(_examine(conn, settings, facts))

    yield from (
        yield from attempt("postgres", look, "start the server, or correct the DSN (`stockledger config`)")
    ) or []


def _examine(conn: Connection, settings: Settings, facts: TopicFacts | None) -> Iterator[Finding]:
    yield from _server(conn)
    if durability := (yield from attempt("durability", lambda: _durability(conn))):
        yield durability
    missing = yield from attempt("schema", lambda: migrate.pending(conn))
    if missing is None:
        return
    known = len(migrate.migrations())
    if missing:
        found = f"at {known - len(missing)}, this build needs {known}"
        yield Finding(FAIL, "schema", found, MIGRATE)
        return
    yield Finding(OK, "schema", f"{known}, up to date")
    if (yield from _rights(conn)):
        yield from _identity(conn, settings, facts)
        yield from (yield from attempt("lanes", lambda: _lanes(conn, settings, facts))) or []


def _server(conn: Connection) -> Iterator[Finding]:
    info = conn.info
    number = info.server_version
    found = (
        f"{info.host}:{info.port}/{info.dbname} as {info.user}, version {number // 10000}.{number % 10000}"
    )
    if number < VERSION_MIN:
        yield Finding(FAIL, "postgres", found, f"use PostgreSQL {VERSION_MIN // 10000} or newer")
    else:
        yield Finding(OK, "postgres", found)
    if not is_local(info.host) and not conn.pgconn.ssl_in_use:
        yield Finding(WARN, "transport", f"no TLS to {info.host}", "set sslmode=verify-full")
    before = time.time()
    found_there = server.server(conn)
    if found_there.is_standby:
        yield Finding(FAIL, "server", "is a read-only standby", "connect to the primary")
    yield _clock(found_there.now, (before + time.time()) / 2)


def _durability(conn: Connection) -> Finding:
    server.require_durable(conn)
    return Finding(OK, "durability", "synchronous_commit, fsync and full_page_writes are on")


def _clock(server: datetime, ours: float) -> Finding:
    skew_s = abs(server.astimezone(UTC).timestamp() - ours)
    found = f"this machine and Postgres differ by {skew_s:.1f} s"
    if skew_s > CLOCK_SKEW_MAX_S:
        return Finding(WARN, "clock", found, "synchronise the clocks: times in the ledger are the server's")
    return Finding(OK, "clock", found)


def _rights(conn: Connection) -> Findings[bool]:
    """Whether this role may read the ledger at all."""
    rights = yield from attempt("rights", lambda: server.rights(conn))
    if rights is None:
        return False
    role = conn.info.user
    if rights.writes:
        yield Finding(OK, "rights", f"{role} may read and write")
    else:
        grant = f"GRANT stockledger_writer TO {role}"
        yield Finding(WARN, "rights", f"{role} may not write, which `run`, `dlq` and `gap` need", grant)
    return rights.reads


def _identity(conn: Connection, settings: Settings, facts: TopicFacts | None) -> Iterator[Finding]:
    row = conn.execute(identity.READ).fetchone()
    if row is None:
        yield Finding(
            OK, "identity", "nobody's yet; the first `run` makes it this group's and this cluster's"
        )
        return
    group, cluster_id = row
    if group != settings.group:
        found = f"the ledger belongs to the group {group}, the settings say {settings.group}"
        yield Finding(FAIL, "identity", found, f"set STOCKLEDGER_GROUP={group}")
    elif facts and facts.cluster_id != cluster_id:
        found = f"the ledger was begun on the cluster {cluster_id}, this broker's is {facts.cluster_id}"
        yield Finding(FAIL, "identity", found, "correct bootstrap.servers, or use another database")
    else:
        yield Finding(OK, "identity", f"group {group}, cluster {cluster_id}")


def _lanes(conn: Connection, settings: Settings, facts: TopicFacts | None) -> list[Finding]:
    """Whether Kafka still has what the ledger reads next, and is the log that it has read so far."""
    rows = [row for row in lane.read_all(conn) if row.topic == settings.topic]
    if facts is None or not rows:
        return []
    for row in rows:
        topic.require_same_topic(facts.name, row.topic_id, facts.topic_id)
    marks = topic.watermarks(settings.kafka_properties(), facts.name, facts.partitions)
    found = []
    for row in rows:
        first, end = marks[row.partition]
        where = f"{row.topic}[{row.partition}] is applied up to {row.next_offset}"
        if row.next_offset < first:
            found.append(
                Finding(
                    FAIL,
                    "lanes",
                    f"{where}, Kafka begins at {first}",
                    f"stockledger gap accept {row.partition}",
                )
            )
        elif row.next_offset > end:
            fix = "publish to a topic of another name and run with --topic"
            found.append(Finding(FAIL, "lanes", f"{where}, Kafka ends at {end}", fix))
    lag = sum(end for _, end in marks.values()) - sum(row.next_offset for row in rows)
    return found or [Finding(OK, "lanes", f"{len(rows)} lanes, {lag} records to read")]
