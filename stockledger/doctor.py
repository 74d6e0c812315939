"""Everything the ledger stands on, looked at one by one: what was found, and what to do about it.

Changes nothing, joins no group, and goes on after a failure: the next finding may be the cause.
"""

import platform
import socket
import time
from collections.abc import Iterable, Iterator
from importlib import metadata

from consumer import topic
from consumer.topic import TopicFacts
from ledger.errors import LedgerError, Unavailable
from stockledger import doctor_database, version
from stockledger.exits import SomeFailed
from stockledger.finding import FAIL, OK, WARN, Finding, Findings, attempt, is_local
from stockledger.settings import BOOTSTRAP, Settings, strangers

CONNECT_TIMEOUT_S = 3.0
RETENTION_MIN_DAYS = 1
DAY_MS = 24 * 3600 * 1000
DISTRIBUTIONS = ("confluent-kafka", "psycopg", "pydantic", "typer")


def examine(settings: Settings) -> Iterator[Finding]:
    """The findings, each as soon as it is made."""
    yield from _program()
    facts = yield from _kafka(settings)
    yield from doctor_database.examine(settings, facts)


def verdict(findings: Iterable[Finding]) -> LedgerError | None:
    """What the findings come to: Unavailable, SomeFailed, or None."""
    failed = [finding for finding in findings if finding.level == FAIL]
    if not failed:
        return None
    words = f"{len(failed)} of the checks failed: {', '.join(finding.what for finding in failed)}"
    kind = Unavailable if any(finding.unreachable for finding in failed) else SomeFailed
    return kind(words, remedy=failed[0].fix)


def _program() -> Iterator[Finding]:
    libraries = ", ".join(f"{name} {metadata.version(name)}" for name in DISTRIBUTIONS)
    yield Finding(OK, "versions", f"stockledger {version()}, Python {platform.python_version()}, {libraries}")
    for stranger in strangers():
        yield Finding(WARN, "environment", stranger, "correct the name, or unset it")


def _kafka(settings: Settings) -> Findings[TopicFacts | None]:
    kafka = yield from attempt("settings", settings.kafka_properties)
    if kafka is None:
        return None
    reached = [_reach(address.strip()) for address in kafka.get(BOOTSTRAP, "").split(",") if address.strip()]
    yield from reached
    yield _transport(kafka)
    if reached and all(finding.unreachable for finding in reached):
        return None  # asking for the cluster would wait for what isn't there
    cluster = yield from attempt("cluster", lambda: _cluster(kafka), "make the broker lines above ok first")
    if cluster is None:
        return None
    yield cluster
    facts = yield from attempt("topic", lambda: topic.inspect(kafka, settings.topic))
    if facts:
        yield from _topic(facts)
    return facts


def _reach(address: str) -> Finding:
    """DNS and TCP, which the Kafka client tells apart badly."""
    host, port = _host_port(address)
    what = "broker"
    started = time.monotonic()
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return Finding(
            FAIL, what, f"{address}: the name doesn't resolve ({error})", "correct bootstrap.servers", True
        )
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return Finding(
            FAIL, what, f"{address}: {error}", "start the broker, or correct bootstrap.servers", True
        )
    took_ms = (time.monotonic() - started) * 1000
    return Finding(OK, what, f"{address} is {found[0][4][0]}, connected in {took_ms:.0f} ms")


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdecimal() or not host:
        return address.rpartition("://")[2].strip("[]"), 9092  # librdkafka's default
    return host.strip("[]"), int(port)


def _transport(kafka: dict[str, str]) -> Finding:
    protocol = kafka.get("security.protocol", "plaintext").lower()
    away = [a for a in kafka.get(BOOTSTRAP, "").split(",") if not is_local(_host_port(a.strip())[0])]
    if protocol in ("plaintext", "sasl_plaintext") and away:
        return Finding(
            WARN, "transport", f"{protocol} to {away[0].strip()}", "set security.protocol=sasl_ssl"
        )
    return Finding(OK, "transport", protocol)


def _cluster(kafka: dict[str, str]) -> Finding:
    started = time.monotonic()
    client = topic.admin(kafka)  # by name: without a reference its requests are dropped
    request = client.describe_cluster(request_timeout=topic.REQUEST_TIMEOUT_S)
    cluster = topic.answer(request, "describe the cluster", topic.REQUEST_TIMEOUT_S)
    took_ms = (time.monotonic() - started) * 1000
    return Finding(
        OK, "cluster", f"{cluster.cluster_id}, {len(cluster.nodes)} brokers, answered in {took_ms:.0f} ms"
    )


def _topic(facts: TopicFacts) -> Iterator[Finding]:
    yield Finding(OK, "topic", f"{facts.name}, {facts.partitions} partitions, id {facts.topic_id}")
    if "compact" in facts.cleanup_policy:
        found = f"{facts.cleanup_policy}: Kafka would remove commands that were never applied"
        yield Finding(FAIL, "cleanup.policy", found, f"set cleanup.policy=delete on {facts.name}")
    else:
        yield Finding(OK, "cleanup.policy", facts.cleanup_policy or "not told by this broker")
    days = facts.retention_ms / DAY_MS
    if 0 <= days < RETENTION_MIN_DAYS:
        found = f"{days:.1f} days: commands are gone if no worker runs for so long"
        yield Finding(WARN, "retention", found, f"raise retention.ms on {facts.name}")
    else:
        yield Finding(OK, "retention", "for ever" if days < 0 else f"{days:.0f} days")
    copies = f"replication {facts.replication}, min.insync.replicas {facts.min_insync_replicas}"
    if facts.replication < 3 or facts.min_insync_replicas < 2:
        found = f"{copies}: one lost disk can lose acknowledged commands"
        yield Finding(WARN, "replicas", found, "in production: replication 3, min.insync.replicas 2")
    else:
        yield Finding(OK, "replicas", copies)
