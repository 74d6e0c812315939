"""A user who may not write, on a broker with a real authorizer: a code, the account, the right to grant."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from ledger.domain.commands import ReceiveStock
from ledger.domain.delivery import Lane, Record
from ledger.errors import BrokerUnavailable, TopicUnfit
from ledger.store.tables.dead_letter import DeadLetter, LetterStatus
from producer.publisher import Publisher
from producer.redrive import Redriver
from stockledger.embedded.postgres import free_port
from tests.support import java_kafka
from tests.support.java_kafka import JavaKafka, NotUsable
from tests.support.services import wait_for

TIMEOUT_S = 60
ATTEMPTS = 5
"""Kafka's client may lose the reason of its own fatal error, when another report comes in the same moment."""
NOW = datetime(2010, 12, 1, tzinfo=UTC)
PASSWORD = "of-the-test"
DESCRIBE, WRITE = AclOperation.DESCRIBE, AclOperation.WRITE
IDEMPOTENT_WRITE = AclOperation.IDEMPOTENT_WRITE
ALLOW, DENY = AclPermissionType.ALLOW, AclPermissionType.DENY
ANY: Any = None  # which the client's types forget
EVERYTHING = AclBindingFilter(
    ResourceType.ANY, ANY, ResourcePatternType.ANY, ANY, ANY, AclOperation.ANY, AclPermissionType.ANY
)


class Guarded:
    """A broker with an authorizer: on its second listener the user shop may do what `grant` gives."""

    def __init__(self) -> None:
        self.port = free_port()
        server_settings = java_kafka.server_settings

        def guarded(*place):
            settings = server_settings(*place)
            for name, shop in (
                ("listeners", f",SHOP://127.0.0.1:{self.port}"),
                ("advertised.listeners", f",SHOP://127.0.0.1:{self.port}"),
                ("listener.security.protocol.map", ",SHOP:SASL_PLAINTEXT"),
            ):
                settings[name] += shop
            return settings | {
                "inter.broker.listener.name": "PLAINTEXT",
                "sasl.enabled.mechanisms": "PLAIN",
                "listener.name.shop.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain."
                f'PlainLoginModule required user_shop="{PASSWORD}";',
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
            }

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(java_kafka, "server_settings", guarded)
            self._server = JavaKafka()
        self._server.start()
        self._admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{self._server.port}", "log_level": 0})
        wait_for("the broker with an authorizer", lambda: self._admin.list_topics(timeout=1).brokers)
        self._admin.create_topics([NewTopic("commands", 2, 1)])["commands"].result(TIMEOUT_S)

    def grant(self, *rights: tuple[AclOperation, AclPermissionType]) -> None:
        """The user's rights, in place of those before."""
        for gone in self._admin.delete_acls([EVERYTHING]).values():
            gone.result(TIMEOUT_S)
        topic, cluster = (ResourceType.TOPIC, "commands"), (ResourceType.BROKER, "kafka-cluster")
        literal = ResourcePatternType.LITERAL
        bindings = [
            AclBinding(
                *(cluster if right is IDEMPOTENT_WRITE else topic), literal, "User:shop", "*", right, allowed
            )
            for right, allowed in rights
        ]
        for made in (self._admin.create_acls(bindings) if bindings else {}).values():
            made.result(TIMEOUT_S)
        wait_for(
            "the rights",
            lambda: len(self._admin.describe_acls(EVERYTHING).result(TIMEOUT_S)) == len(bindings),
        )

    @property
    def properties(self) -> dict[str, str]:
        """A client's, as the user shop."""
        return {
            "bootstrap.servers": f"127.0.0.1:{self.port}",
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "shop",
            "sasl.password": PASSWORD,
        }

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture(scope="module")
def guarded():
    """The broker, once for all tests here."""
    try:
        broker = Guarded()
    except NotUsable as why:
        pytest.skip(str(why))
    yield broker
    broker.stop()


FORBIDDEN = [
    [],
    [(DESCRIBE, ALLOW)],
    [(DESCRIBE, ALLOW), (WRITE, DENY)],
    [(DESCRIBE, ALLOW), (IDEMPOTENT_WRITE, ALLOW)],
    [(DESCRIBE, ALLOW), (WRITE, DENY), (IDEMPOTENT_WRITE, ALLOW)],
]


@pytest.mark.parametrize("rights", FORBIDDEN)
def test_no_right_to_write_is_said(guarded, rights):
    """Whichever right is missing, the error names the topic, the account, and what to grant."""
    guarded.grant(*rights)

    def publish():
        with Publisher(guarded.properties, "commands", "shop") as publisher:
            for number in range(3):
                publisher.send(ReceiveStock(goods_id="g", quantity=1), id=str(number))

    def publish_until_it_is_named():
        for _ in range(ATTEMPTS):
            try:
                publish()
            except BrokerUnavailable as nameless:
                if "without setting an exception" not in nameless.message:
                    raise

    with pytest.raises(TopicUnfit, match="may not write to the topic commands") as caught:
        publish_until_it_is_named()
    # how many were sent before the broker's no came is a matter of time
    assert re.search(r"of [123] sent: 0 acknowledged|nothing was", caught.value.message)
    assert "Describe and Write on the topic commands" in caught.value.remedy


@pytest.mark.parametrize("rights", FORBIDDEN)
def test_no_right_to_redrive_is_said(guarded, rights):
    """The same of a dead letter's way back."""
    guarded.grant(*rights)
    letter = DeadLetter(
        Lane("commands", 0), 7, "json", "", LetterStatus.PARKED, datetime.now(UTC), Record(b"g", b"{}", None)
    )
    _, error = Redriver(guarded.properties).send([letter])
    assert isinstance(error, TopicUnfit), error
    assert "Describe and Write" in error.remedy


def test_the_right_to_write_is_enough(guarded):
    """Write on the topic includes Describe and what an idempotent producer needs."""
    guarded.grant((WRITE, ALLOW))
    with Publisher(guarded.properties, "commands", "shop") as publisher:
        publisher.send(ReceiveStock(goods_id="g", quantity=1))
        assert publisher.flush() == (1, 0, 0)


def test_a_right_that_is_taken_away_meanwhile_is_said(guarded):
    """What was acknowledged before is in the account; nothing is sent after the first refusal."""
    guarded.grant((WRITE, ALLOW))

    def publish():
        with Publisher(guarded.properties, "commands", "shop") as publisher:
            publisher.send(ReceiveStock(goods_id="g", quantity=1))
            assert publisher.flush() == (1, 0, 0)
            guarded.grant((DESCRIBE, ALLOW))
            while True:
                publisher.send(ReceiveStock(goods_id="g", quantity=1))
                publisher.poll(0.1)

    with pytest.raises(TopicUnfit, match=r"may not write .* sent: \d+ acknowledged"):
        publish()
