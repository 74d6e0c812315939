"""The doctor's first half: the way to Kafka, its cluster, the topic and the group."""

import socket
import time
from collections.abc import Iterator
from functools import partial

from consumer import admin, group
from consumer.admin import TopicFacts
from consumer.clients import open_admin
from ledger.errors import BrokerUnavailable, concealed
from stockledger.doctor import postgres
from stockledger.doctor.finding import FAIL, OK, WARN, Finding, Findings, attempt, is_local
from stockledger.settings import BOOTSTRAP, Settings

CONNECT_TIMEOUT_S = 3.0
NO_BROKER = BrokerUnavailable.code
RETENTION_MIN_DAYS = 1
DAY_MS = 24 * 3600 * 1000
TRUSTING = {"enable.ssl.certificate.verification": "false", "ssl.endpoint.identification.algorithm": "none"}
"""Properties, and the value with which TLS hides what is said, but not from whom."""


def examine(settings: Settings) -> Findings[list[TopicFacts]]:
    """The findings; returns the topics that Kafka described."""
    kafka = yield from attempt("settings", settings.kafka_properties)
    if kafka is None:
        return []
    reached = [_reach(address.strip()) for address in kafka.get(BOOTSTRAP, "").split(",") if address.strip()]
    yield from reached
    yield _transport(kafka)
    if reached and all(finding.unreachable for finding in reached):
        return []  # asking for the cluster would wait for what isn't there
    cluster = yield from attempt("cluster", lambda: _cluster(kafka), "make the broker lines above ok first")
    if cluster is None:
        return []
    yield cluster
    known = postgres.known(settings)
    topics = []
    for name in settings.topics:
        if facts := (yield from attempt("topic", partial(known.inspect, kafka, name))):
            topics.append(facts)
            yield Finding(OK, "topic", f"{name}, {facts.partitions} partitions, id {facts.topic_id}")
            which = f"{name}: " if len(settings.topics) > 1 else ""
            yield from (each._replace(found=which + each.found) for each in _topic(facts))
    if topics and (joinable := (yield from attempt("group", lambda: _group(kafka, settings.group, topics)))):
        yield joinable
    return topics


def _reach(address: str) -> Finding:
    """DNS and TCP, which the Kafka client tells apart badly."""
    host, port = _host_port(address)
    what = "broker"
    started = time.monotonic()
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return Finding(
            FAIL,
            what,
            f"{address}: the name doesn't resolve ({error})",
            "correct bootstrap.servers",
            True,
            NO_BROKER,
        )
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return Finding(
            FAIL,
            what,
            f"{address}: {error}",
            "start the broker, or correct bootstrap.servers",
            True,
            NO_BROKER,
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
    if protocol in ("plaintext", "sasl_plaintext"):
        if away:
            found = f"{protocol} to {concealed(away[0].strip())}: whoever is in between reads and writes"
            return Finding(WARN, "transport", found, "set security.protocol=sasl_ssl")
        return Finding(OK, "transport", f"{protocol}, on this machine")
    for name, trusting in TRUSTING.items():
        if kafka.get(name, "").lower() == trusting:
            found = f"{protocol} to anybody who says that he is the broker: {name}={trusting}"
            return Finding(WARN, "transport", found, f"leave {name} out")
    return Finding(OK, "transport", f"{protocol}, the broker's certificate and name are verified")


def _cluster(kafka: dict[str, str]) -> Finding:
    started = time.monotonic()
    cluster = admin.cluster(open_admin(kafka))
    took_ms = (time.monotonic() - started) * 1000
    return Finding(
        OK, "cluster", f"{cluster.cluster_id}, {len(cluster.brokers)} brokers, answered in {took_ms:.0f} ms"
    )


def _group(kafka: dict[str, str], name: str, topics: list[TopicFacts]) -> Finding:
    return Finding(OK, "group", group.examine(kafka, name, [facts.name for facts in topics]))


def retention(facts: TopicFacts, danger: str) -> Finding:
    """For how long the topic keeps what is in it, and what is to be feared where that isn't long."""
    days = facts.retention_ms / DAY_MS
    if 0 <= days < RETENTION_MIN_DAYS:
        return Finding(WARN, "retention", f"{days:.1f} days: {danger}", f"raise retention.ms on {facts.name}")
    return Finding(OK, "retention", "for ever" if days < 0 else f"{days:.0f} days")


def _topic(facts: TopicFacts) -> Iterator[Finding]:
    """What the topic is set to."""
    if "compact" in facts.cleanup_policy:
        found = f"{facts.cleanup_policy}: Kafka would remove commands that were never applied"
        yield Finding(FAIL, "cleanup.policy", found, f"set cleanup.policy=delete on {facts.name}")
    else:
        yield Finding(OK, "cleanup.policy", facts.cleanup_policy or "not told by this broker")
    yield retention(facts, "commands are gone if no worker runs for so long")
    if 0 <= facts.in_sync < facts.min_insync_replicas:
        found = (
            f"{facts.in_sync} in sync, min.insync.replicas {facts.min_insync_replicas}: no command is taken"
        )
        yield Finding(
            FAIL, "replicas", found, f"bring the brokers of {facts.name} back, or give it more replicas"
        )
        return
    copies = f"replication {facts.replication}, min.insync.replicas {facts.min_insync_replicas}"
    if facts.replication < 3 or facts.min_insync_replicas < 2:
        found = f"{copies}: one lost disk can lose acknowledged commands"
        yield Finding(WARN, "replicas", found, "in production: replication 3, min.insync.replicas 2")
    else:
        yield Finding(OK, "replicas", copies)
