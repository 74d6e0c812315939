"""The parts of the program, made from the settings. Plain functions; each one says what it connects to."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

from consumer import admin, known_log
from consumer.admin import TopicFacts
from consumer.worker import WorkerSettings
from gateway.till import Till
from ledger import codec
from ledger.api import Ledger
from ledger.cache.stock_cache import StockCache
from ledger.errors import LedgerError, TopicReplaced, TopicUnfit
from ledger.rebuilding.builder import Connect
from ledger.rebuilding.rebuild import BUDGETS
from ledger.store.connection.database import Budgets, Connection, connect, faults
from ledger.store.schema import migrate
from producer.publisher import Publisher
from stockledger.settings import BOOTSTRAP, Settings

INTERACTIVE = Budgets()
SPREAD_TIMEOUT_S = 5.0  # how long a new topic may take to be known to every broker


@contextmanager
def database(settings: Settings, purpose: str, budgets: Budgets = INTERACTIVE) -> Iterator[Connection]:
    """A connection to Postgres, whatever its schema is; its errors become the ledger's."""
    with closing(connect(settings.conninfo(), purpose=purpose, budgets=budgets)) as conn, faults():
        yield conn


@contextmanager
def ledger_database(settings: Settings, purpose: str, budgets: Budgets = INTERACTIVE) -> Iterator[Connection]:
    """A connection to a database whose schema is this build's. Raises Unavailable or SchemaMismatch."""
    with closing(_current(settings, purpose, budgets)) as conn, faults():
        yield conn


def ledger(settings: Settings) -> Ledger:
    """The ledger's answers, on a connection of their own. Raises Unavailable."""
    return Ledger(settings.conninfo())


def created_topic(settings: Settings, topic: str, partitions: int) -> TopicFacts:
    """The topic, made unless it exists, once it can be described. One that exists is left alone.

    Raises TopicReplaced where the ledger has lanes in a topic of this name that was deleted: a new one is
    another log, and would be refused.
    """
    kafka = settings.kafka_properties()
    with ledger_database(settings, "migrate") as conn:
        known = known_log.read(conn)
    if known.lanes(topic):
        return known.inspect(kafka, topic)
    admin.create(kafka, topic, partitions)
    return topic_facts(settings, topic)


def topic_facts(settings: Settings, topic: str) -> TopicFacts:
    """The topic, made just now, once it can be described. Raises TopicUnfit or BrokerUnavailable."""
    kafka, deadline = settings.kafka_properties(), time.monotonic() + SPREAD_TIMEOUT_S
    while True:
        try:
            return admin.inspect(kafka, topic)
        except TopicUnfit:  # another broker than the one that made it may not know it yet
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def require_known_topic(settings: Settings, topic: str) -> None:
    """Raise TopicReplaced where the ledger has read another log of the topic's name: nobody would read it.

    Who publishes need not have a ledger at hand. So only the one that the settings name is asked, and where
    it doesn't answer, or Kafka doesn't, this says nothing.
    """
    if not settings.names_database:
        return
    try:
        with ledger_database(settings, "publish") as conn:
            known = known_log.read(conn)
        if known.lanes(topic):
            known.inspect(settings.kafka_properties(), topic)
    except TopicReplaced:
        raise
    except LedgerError:
        return


def worker_settings(
    settings: Settings, *, start: str | None, until_caught_up: bool, batch_size_max: int
) -> WorkerSettings:
    """What a worker needs to know. Connects to nothing. Raises BadSettings."""
    return WorkerSettings(
        dsn=settings.conninfo(),
        kafka=settings.kafka_properties(),
        topics=settings.topics,
        group=settings.group,
        start=start,
        until_caught_up=until_caught_up,
        batch_size_max=batch_size_max,
        codec=codec.named(settings.codec).name,
    )


def publisher(settings: Settings, topic: str, *, connects: bool = True) -> Publisher:
    """The producer client of the topic; it connects at the first send."""
    named = connects or settings.kafka  # a dry run needs no broker, but the client wants the name of one
    kafka = settings.kafka_properties() if named else {BOOTSTRAP: "nowhere"}
    return Publisher(
        kafka,
        topic,
        settings.source or "",
        partition_by=settings.partition_by,
        hot_goods=settings.hot_goods,
        hot_by=settings.hot_by,
        hot_partitions=settings.hot_partitions,
    )


def stock_cache(settings: Settings, max_staleness_s: float, low_below: int) -> StockCache:
    """The stock in this process, with bands; it connects once it is started."""
    return StockCache(
        settings.conninfo(), max_staleness_s=max_staleness_s, partition="value", low_below=low_below
    )


def till(settings: Settings, topic: str) -> Till:
    """Publishes commands and waits for their outcomes; it connects at once. Raises Unavailable."""
    return Till(partial(publisher, settings, topic), topic, settings.conninfo())


def connections(settings: Settings, purpose: str) -> Connect:
    """Makes connections to a ledger that this build knows, for work that takes as long as it takes."""

    return partial(_current, settings, purpose, BUDGETS)


def _current(settings: Settings, purpose: str, budgets: Budgets) -> Connection:
    """Connected, and the schema is this build's."""
    conn = connect(settings.conninfo(), purpose=purpose, budgets=budgets)
    try:
        with faults():
            migrate.require_current(conn)
    except BaseException:
        conn.close()
        raise
    return conn
