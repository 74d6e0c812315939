"""A topic, a ledger and a consumer group for each test; what needs control of a server skips without it."""

import uuid
from contextlib import contextmanager

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource

from tests.conftest import database
from tests.support.publish import Publisher, says, shop
from tests.support.relayed import BATCH, GOODS, RelayedLedger
from tests.support.services import Unsupported
from tests.support.showcase import happens
from tests.support.workers import Group

SESSION_TIMEOUT_MS = 1_500
STOCK = 1_000


@pytest.fixture(scope="session")
def kafka(services):
    """The properties of a test's client: the shortest session that the broker allows, quick reconnects."""
    properties = {
        "bootstrap.servers": services.kafka.bootstrap_servers,
        "reconnect.backoff.max.ms": "500",
        "fetch.error.backoff.ms": "50",
        "topic.metadata.refresh.interval.ms": "1000",
    }
    if not services.kafka.real:  # its classic groups wait out the session to rebalance
        return properties | {"group.protocol": "consumer"}
    session_ms = max(SESSION_TIMEOUT_MS, shortest_session_ms(services.kafka.bootstrap_servers))
    return properties | {
        "session.timeout.ms": str(session_ms),
        "heartbeat.interval.ms": str(session_ms // 5),
    }


def shortest_session_ms(bootstrap_servers):
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    [broker] = list(admin.list_topics(timeout=60).brokers)[:1]
    resource = ConfigResource(ConfigResource.Type.BROKER, str(broker))
    return int(admin.describe_configs([resource])[resource].result(60)["group.min.session.timeout.ms"].value)


@pytest.fixture
def new_group(kafka, ledger_dsn, topic):
    """`new_group(partitions=2, **properties)`: a group on a new topic and this test's ledger."""
    made = []

    def create(partitions=2, **properties):
        named = {name.replace("_", "."): value for name, value in properties.items()}
        merged = kafka | named
        if merged.get("group.protocol") == "consumer":  # then these are the broker's business
            merged = {
                n: v for n, v in merged.items() if n not in ("session.timeout.ms", "heartbeat.interval.ms")
            }
        made.append(Group(ledger_dsn, merged, topic(partitions)))
        return made[-1]

    yield create
    for one in made:
        one.close()


@pytest.fixture
def publisher(kafka):
    """`publisher(group, **properties)`: a producer of the group's topic."""
    return lambda group, **properties: Publisher(kafka, group.topic, **properties)


@pytest.fixture
def sender(group, publisher):
    """A producer of the topic of the module's `group`; the shop is set up already."""
    sender = publisher(group)
    sender.send(*shop(stock=10_000), partition=0)
    sender.flush()
    group.catch_up()
    return sender


@pytest.fixture
def relayed(new_group, publisher):
    """Journal entries of a few purchases each, some refused, and the relay's topics."""
    group = new_group(partitions=2)
    sender = publisher(group)
    sender.send(*shop(goods=GOODS, stock=40), partition=0)
    sender.flush()
    group.catch_up(batch_size_max=BATCH)
    made = RelayedLedger(group, sender)
    made.make_topics()
    made.sell("first")
    yield made
    made.close()


@pytest.fixture
def supported():
    """`with supported():` what the services can't do from here skips the test."""

    @contextmanager
    def or_skip():
        try:
            yield
        except Unsupported as why:
            pytest.skip(str(why))

    return or_skip


@pytest.fixture(scope="session")
def open_shop(services, template_database, kafka):
    """A ledger for all tests of gateways: anna can buy tea, ben no more, and a worker applies what comes."""
    with lasting_group(services, template_database, kafka) as group:
        sender = Publisher(kafka, group.topic)
        closing = says("RegisterUser", "user-ben", user_id="ben"), says("CloseUser", "close", user_id="ben")
        sender.send(*shop(stock=STOCK), *closing, partition=0)
        sender.flush()
        with group.running():
            group.applies(sender)
            yield group


@pytest.fixture(scope="session")
def showcase(services, template_database, kafka):
    """A ledger for all tests of the dashboard that change nothing: everything has happened in it."""
    with lasting_group(services, template_database, kafka) as group:
        happens(group)
        yield group


@contextmanager
def lasting_group(services, template_database, kafka):
    """A group on a topic and a ledger that several tests share."""
    name = f"commands-{uuid.uuid4().hex[:12]}"
    services.kafka.create_topic(name, 2)
    with database(services, name.replace("-", "_"), template_database) as made:
        group = Group(services.postgres.dsn(made), kafka, name)
        yield group
        group.close()
    services.kafka.delete_topic(name)
