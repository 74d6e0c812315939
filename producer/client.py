"""librdkafka's properties for a producer: our defaults, those that may not be touched, clear refusals."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from ledger.errors import BadSettings
from producer import librdkafka

# librdkafka's own log, silent unless the program sets up logging (its default is to write to stderr).
_LOG = logging.getLogger("stockledger.librdkafka")
_LOG.addHandler(logging.NullHandler())

ENV_PREFIX = "STOCKLEDGER_KAFKA_"
TIMEOUT_MS = "message.timeout.ms"
PARTITIONER = "partitioner"

DEFAULTS = {
    # The partitioner of Java's clients, so that every producer sends the same key to the same partition.
    PARTITIONER: "murmur2_random",
    TIMEOUT_MS: "10000",
    # A message's time runs while it waits in the queue: with a slow broker a long queue would time out.
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
KAFKAS = ("murmur2", "murmur2_random")
"""Kafka's own partitioner, by librdkafka's names; they differ in records without a key."""
SPELLINGS = {"-1": "all", "1": "true", "0": "false"}


def complete(kafka: Mapping[str, Any]) -> dict[str, Any]:
    """The given properties with our defaults, values as the client would read them.

    Raises BadSettings where they would break the promise, TypeError for what can't be a property.
    """
    if not isinstance(kafka, Mapping):
        raise TypeError(f"kafka must be a mapping of librdkafka's properties, not {type(kafka).__name__}")
    given = {ALIASES.get(name, name): _plain(name, value) for name, value in kafka.items()}
    for name, value in given.items():
        fixed = PROMISE.get(name)
        if fixed and SPELLINGS.get(str(value).lower(), str(value).lower()) != fixed:
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


def require_partitioner(settings: Mapping[str, Any]) -> None:
    """Raise BadSettings where another partitioner than Kafka's own would put keys among the hot goods."""
    if settings[PARTITIONER] not in KAFKAS:
        raise BadSettings(
            f"partition_by is mixed, which the Kafka property {_named(PARTITIONER)} doesn't go with",
            remedy=f"leave {PARTITIONER} out",
        )


def _plain(name: object, value: object) -> object:
    """The value as text, as the client makes it; what it takes as it is, a token's callback, is left."""
    if not isinstance(name, str):
        raise TypeError(f"a Kafka property's name must be text, not {type(name).__name__}")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    if name == "oauth_cb" and callable(value):
        return value
    raise TypeError(
        f"the Kafka property {name} must be text, a number or a boolean, not {type(value).__name__}"
    )


def make_producer(settings: Mapping[str, Any], on_trouble: Callable[[KafkaError], None]) -> Producer:
    """A client with these properties. Raises BadSettings where one is unknown or unusable."""
    try:
        return Producer({**settings, "error_cb": on_trouble}, logger=_LOG)
    except (KafkaException, TypeError) as error:  # TypeError: names that the Python client keeps to itself
        raise refusal(settings, error) from None


def refusal(settings: Mapping[str, Any], error: KafkaException | TypeError) -> BadSettings:
    """What is wrong with settings that librdkafka refused; it quotes no value but the refused one."""
    cause = error.args[0].str().strip() if isinstance(error, KafkaException) else str(error)
    name = next((name for name, value in settings.items() if not _is_accepted(name, value)), None)
    if name is None:
        return BadSettings(
            f"the Kafka properties don't fit together: {cause}", remedy="correct or leave out one of them"
        )
    near = "" if name in librdkafka.known() else librdkafka.closest(name)
    remedy = f"did you mean {near}?" if near else f"correct {name} or leave it out"
    return BadSettings(f"the Kafka property {_named(name)} can't be used: {cause}", remedy=remedy)


def _is_accepted(name: str, value: object) -> bool:
    # librdkafka tells an unknown name from a bad value only in its text, and calls some by another name:
    # so ask it about each property alone.
    try:
        Producer({"log_level": "0", "enable.idempotence": "true", name: value})
    except (KafkaException, TypeError):
        return False
    return True


def _named(name: str) -> str:
    return f"{name} (-X {name} or {ENV_PREFIX}{name.upper().replace('.', '_')})"
