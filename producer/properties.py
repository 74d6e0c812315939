"""librdkafka's properties for a producer: our defaults, those that may not be touched, clear refusals."""

import logging
from collections.abc import Callable, Mapping
from difflib import get_close_matches

from confluent_kafka import KafkaError, KafkaException, Producer

from ledger.errors import BadSettings

# librdkafka's own log, silent unless the program sets up logging (its default is to write to stderr).
_LOG = logging.getLogger("stockledger.librdkafka")
_LOG.addHandler(logging.NullHandler())

ENV_PREFIX = "STOCKLEDGER_KAFKA_"
TIMEOUT_MS = "message.timeout.ms"

DEFAULTS = {
    # The partitioner of Java's clients, so that every producer sends the same key to the same partition.
    "partitioner": "murmur2_random",
    TIMEOUT_MS: "10000",
    # A message's time runs while it waits in the queue: behind a slow broker a long queue would time out.
    # Throughput is the same from 5,000 messages on. No compression: on one machine it costs 10-20 %.
    "queue.buffering.max.messages": "10000",
}
PROMISE = {
    "acks": "all",
    "enable.idempotence": "true",
    "allow.auto.create.topics": "false",
}
"""What the promise rests on: may be said again, but not otherwise."""
FORBIDDEN = {
    "delivery.report.only.error": "every command is accounted for by its report",
    "transactional.id": "Postgres takes no part in Kafka's transactions",
}
ALIASES = {
    "delivery.timeout.ms": TIMEOUT_MS,
    "metadata.broker.list": "bootstrap.servers",
    "request.required.acks": "acks",
}
SPELLINGS = {"-1": "all", "1": "true", "0": "false"}

COMMON_PROPERTIES = (
    "acks", "batch.num.messages", "batch.size", "bootstrap.servers", "broker.address.family",
    "client.dns.lookup", "client.id", "client.rack", "compression.level", "compression.type",
    "connections.max.idle.ms", "debug", "enable.idempotence", "enable.ssl.certificate.verification",
    "linger.ms", "log_level", "max.in.flight.requests.per.connection", "message.max.bytes",
    "message.timeout.ms", "metadata.max.age.ms", "partitioner", "queue.buffering.max.kbytes",
    "queue.buffering.max.messages", "reconnect.backoff.max.ms", "reconnect.backoff.ms",
    "request.timeout.ms", "retries", "retry.backoff.ms", "sasl.kerberos.keytab",
    "sasl.kerberos.principal", "sasl.kerberos.service.name", "sasl.mechanism",
    "sasl.oauthbearer.client.id", "sasl.oauthbearer.client.secret", "sasl.oauthbearer.config",
    "sasl.oauthbearer.method", "sasl.oauthbearer.scope", "sasl.oauthbearer.token.endpoint.url",
    "sasl.password", "sasl.username", "security.protocol", "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable", "socket.timeout.ms", "ssl.ca.location", "ssl.ca.pem",
    "ssl.certificate.location", "ssl.certificate.pem", "ssl.cipher.suites",
    "ssl.endpoint.identification.algorithm", "ssl.key.location", "ssl.key.password", "ssl.key.pem",
    "ssl.keystore.location", "ssl.keystore.password", "statistics.interval.ms",
)  # fmt: skip
"""Candidates for what a misspelt name stands for; librdkafka has no list to ask."""


def complete(kafka: Mapping[str, str]) -> dict[str, str]:
    """The given properties with our defaults. Raises BadSettings where they would break the promise."""
    given = {ALIASES.get(name, name): value for name, value in kafka.items()}
    for name, value in given.items():
        fixed = PROMISE.get(name)
        if fixed and SPELLINGS.get(value.lower(), value.lower()) != fixed:
            broken = f"the Kafka property {_named(name)} must be {fixed}: the promise rests on it"
            raise BadSettings(broken, remedy=f"leave {name} out")
        if name in FORBIDDEN:
            unused = f"the Kafka property {_named(name)} can't be used: {FORBIDDEN[name]}"
            raise BadSettings(unused, remedy=f"leave {name} out")
    if not given.get("bootstrap.servers"):
        raise BadSettings(
            "no Kafka broker is named", remedy=f"set {ENV_PREFIX}BOOTSTRAP_SERVERS to host:port"
        )
    return DEFAULTS | given | PROMISE


def make_producer(settings: Mapping[str, str], on_trouble: Callable[[KafkaError], None]) -> Producer:
    """A client with these properties. Raises BadSettings where one is unknown or unusable."""
    try:
        return Producer({**settings, "error_cb": on_trouble}, logger=_LOG)
    except (KafkaException, TypeError) as error:  # TypeError: names that the Python client keeps to itself
        raise refusal(settings, error) from None


def refusal(settings: Mapping[str, str], error: KafkaException | TypeError) -> BadSettings:
    """What is wrong with settings that librdkafka refused; it quotes no value but the refused one."""
    cause = error.args[0].str().strip() if isinstance(error, KafkaException) else str(error)
    name = next((name for name, value in settings.items() if not _is_accepted(name, value)), None)
    if name is None:
        return BadSettings(
            f"the Kafka properties don't fit together: {cause}", remedy="correct or leave out one of them"
        )
    closest = get_close_matches(name, COMMON_PROPERTIES, 1)
    remedy = (
        f"did you mean {closest[0]}?" if closest and closest[0] != name else f"correct {name} or leave it out"
    )
    return BadSettings(f"the Kafka property {_named(name)} can't be used: {cause}", remedy=remedy)


def _is_accepted(name: str, value: str) -> bool:
    # librdkafka tells an unknown name from a bad value only in its text, and calls some by another name:
    # so ask it about each property alone.
    try:
        Producer({"log_level": "0", "enable.idempotence": "true", name: value})
    except (KafkaException, TypeError):
        return False
    return True


def _named(name: str) -> str:
    return f"{name} (-X {name} or {ENV_PREFIX}{name.upper().replace('.', '_')})"
