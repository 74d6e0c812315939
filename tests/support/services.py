"""Kafka and Postgres for the tests: the best of four ways that this machine offers.

    given     STOCKLEDGER_DSN (or PG*) and STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS
    docker    the public images, by testcontainers
    java      Apache Kafka's jars; PostgreSQL embedded
    embedded  librdkafka's mock broker; PostgreSQL embedded: proves nothing that needs a real broker

`find_services` climbs down until one works and remembers why the others didn't. STOCKLEDGER_TEST_RUNG names
the only one to try. On the last two, STOCKLEDGER_TEST_POSTGRES=15 takes Debian's server of that version, a
path the one whose `postgres` and `initdb` are in that folder; where Kafka runs in Java,
STOCKLEDGER_TEST_KAFKA=3.9.1 takes that one.
"""

import itertools
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import confluent_kafka
import psycopg
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic
from psycopg.conninfo import make_conninfo

from ledger.errors import Unavailable
from stockledger.embedded.kafka import EmbeddedKafka
from stockledger.embedded.postgres import EmbeddedPostgres, free_port
from tests.support import java_kafka
from tests.support.java_kafka import JavaKafka, NotUsable

if TYPE_CHECKING:
    from docker import DockerClient
    from testcontainers.core.container import DockerContainer

READY_TIMEOUT_S = 120  # several JVMs may start at once
DEBIAN_POSTGRES = "/usr/lib/postgresql/{}/bin"
POSTGRES_IMAGE = "postgres:18"
KAFKA_IMAGE = "apache/kafka:" + java_kafka.VERSION
CONTAINER_PREFIX = f"stockledger-test-{socket.gethostname()}-"
NUMBERS = itertools.count(1)
NO_POWER_LOSS = "power loss: processes are killed, the disks under them are not"


class Unsupported(Exception):
    """The rung has no such control; a test that needs it should skip with this message."""


class Kafka:
    """A broker that is there already: it can be used, not controlled. The other kinds add what they can."""

    real = True

    def __init__(self, bootstrap_servers: str, version: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.version = version

    def create_topic(self, name: str, partitions: int) -> None:
        """Create a topic and wait until every partition has a leader."""
        admin = self._admin()
        admin.create_topics([NewTopic(name, partitions, 1)])[name].result(READY_TIMEOUT_S)
        wait_for(f"leaders of topic {name}", lambda: has_leaders(admin, name, partitions))

    def delete_topic(self, name: str) -> None:
        admin = self._admin()
        admin.delete_topics([name])[name].result(READY_TIMEOUT_S)

    def kill(self) -> None:
        """SIGKILL the broker; its data stay."""
        raise Unsupported(f"{self.version} can't be killed from here")

    def start(self) -> None:
        """Start it again after `kill`, on the same address and data; returns when it answers."""
        raise Unsupported(f"{self.version} can't be started from here")

    def pause(self) -> None:
        """Freeze the process: connections stay open and nothing answers."""
        raise Unsupported(f"{self.version} can't be paused from here")

    def resume(self) -> None:
        raise Unsupported(f"{self.version} can't be resumed from here")

    def stop(self) -> None:
        """Remove what was started; nothing, for a broker that was given."""

    def wait_ready(self) -> None:
        wait_for(self.version, self._answers)

    def _answers(self) -> bool:
        return bool(self._admin().list_topics(timeout=1).brokers)

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})


class ContainerKafka(Kafka):
    def __init__(self) -> None:
        port = free_port()
        self._container = container("kafka", KAFKA_IMAGE, port, port)
        super().__init__(f"{container_host(self._container)}:{port}", KAFKA_IMAGE)
        host = self.bootstrap_servers.rpartition(":")[0]
        for name, value in java_kafka.server_settings("0.0.0.0", host, port, port + 1).items():
            self._container.with_env("KAFKA_" + name.upper().replace(".", "_"), value)
        self._container.with_env("KAFKA_HEAP_OPTS", java_kafka.HEAP)
        self._container.start()
        self._process = self._container.get_wrapped_container()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def start(self) -> None:
        self._process.start()
        self.wait_ready()

    def pause(self) -> None:
        self._process.kill("SIGSTOP")  # the engine's own pause may fail on a busy machine

    def resume(self) -> None:
        self._process.kill("SIGCONT")

    def stop(self) -> None:
        self._container.stop()


class ProcessKafka(Kafka):
    def __init__(self) -> None:
        self._server = JavaKafka()
        super().__init__(f"127.0.0.1:{self._server.port}", f"Apache Kafka {java_kafka.VERSION} (Java)")
        self._server.start()

    def kill(self) -> None:
        self._server.kill()

    def start(self) -> None:
        self._server.start()
        self.wait_ready()

    def pause(self) -> None:
        self._server.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._server.signal(signal.SIGCONT)

    def stop(self) -> None:
        self._server.stop()

    def _answers(self) -> bool:
        self._server.check()
        return super()._answers()


class MockKafka(Kafka):
    real = False

    def __init__(self) -> None:
        self.embedded = EmbeddedKafka()
        self.embedded.start()
        version = f"the mock broker of librdkafka {confluent_kafka.libversion()[0]}"
        super().__init__(self.embedded.bootstrap_servers, version)

    def create_topic(self, name: str, partitions: int) -> None:
        self.embedded.create_topic(name, partitions)

    def delete_topic(self, name: str) -> None:
        self.embedded.delete_topic(name)

    def stop(self) -> None:
        self.embedded.stop()


class Postgres:
    """A server that is there already: it can be used, not controlled."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo

    def dsn(self, database: str | None = None) -> str:
        """How to connect to this database; without one, to where databases are created from."""
        return make_conninfo(self._conninfo, **({"dbname": database} if database else {}))

    def kill(self) -> None:
        """SIGKILL the server; its data stay."""
        raise Unsupported("the given Postgres can't be killed from here")

    def start(self) -> None:
        """Start it again after `kill`, on the same address and data; returns when it answers."""
        raise Unsupported("the given Postgres can't be started from here")

    def stop(self) -> None:
        """Remove what was started; nothing, for a server that was given."""

    def version(self) -> str:
        with psycopg.connect(self.dsn(), connect_timeout=2) as conn:
            return f"PostgreSQL {conn.info.parameter_status('server_version')}"

    def wait_ready(self) -> None:
        wait_for("Postgres", self.version)


class ContainerPostgres(Postgres):
    def __init__(self) -> None:
        port = free_port()
        self._container = container("postgres", POSTGRES_IMAGE, 5432, port)
        self._container.with_env("POSTGRES_PASSWORD", "test")
        self._container.with_command("postgres -c max_connections=200")
        host = container_host(self._container)
        super().__init__(f"postgresql://postgres:test@{host}:{port}/postgres")
        self._container.start()
        self._process = self._container.get_wrapped_container()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def start(self) -> None:
        self._process.start()
        self.wait_ready()

    def stop(self) -> None:
        self._container.stop()


class LocalPostgres(Postgres):
    def __init__(self) -> None:
        self._server = EmbeddedPostgres(binaries=debian_postgres())
        self._server.start()
        super().__init__(self._server.dsn())

    def kill(self) -> None:
        self._server.kill()

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()


def _none_other() -> NoReturn:
    raise Unsupported("there is no other")


@dataclass
class Services:
    """One Kafka and one Postgres that answer. `refused`: why each higher rung was not used, a line each."""

    rung: str
    kafka: Kafka
    postgres: Postgres
    not_proved: list[str]
    refused: list[str] = field(default_factory=list)
    another_kafka: Callable[[], Kafka] = _none_other
    another_postgres: Callable[[], Postgres] = _none_other
    """One more of the same rung, for tests that run side by side; where it was given, the same one."""

    def describe(self) -> str:
        return f"{self.rung}: {self.kafka.version}, {self.postgres.version()}"

    def stop(self) -> None:
        self.kafka.stop()
        self.postgres.stop()


def debian_postgres() -> Path | None:
    """The folder, or that of the version, in STOCKLEDGER_TEST_POSTGRES; `NotUsable` if it isn't there."""
    named = os.environ.get("STOCKLEDGER_TEST_POSTGRES")
    if not named:
        return None
    folder = Path(named if "/" in named else DEBIAN_POSTGRES.format(named))
    if not (folder / "initdb").exists():
        raise NotUsable(f"{folder} has no initdb: apt-get install postgresql-{named}, or name its folder")
    return folder


def find_services() -> Services:
    """Start the first rung that works; raises `NotUsable` with every reason if none does."""
    return climb(RUNGS, os.environ.get("STOCKLEDGER_TEST_RUNG"))


def climb(rungs: Mapping[str, Callable[[], Services]], forced: str | None = None) -> Services:
    if forced and forced not in rungs:
        raise NotUsable(f"STOCKLEDGER_TEST_RUNG is {forced!r}, not one of {', '.join(rungs)}")
    refused = []
    for name in [forced] if forced else rungs:
        try:
            services = rungs[name]()
        except (NotUsable, Unavailable) as why:
            refused.append(f"{name}: {why}")
        else:
            services.refused = refused
            return services
    raise NotUsable("no services for the tests; " + "; ".join(refused))


def given() -> Services:
    bootstrap_servers = os.environ.get("STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS")
    dsn = os.environ.get("STOCKLEDGER_DSN")
    if not bootstrap_servers:
        raise NotUsable("STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS is not set")
    if not dsn and not os.environ.keys() & {"PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE"}:
        raise NotUsable("neither STOCKLEDGER_DSN nor libpq's PG* variables are set")
    crashes = "crashes of the broker and of Postgres: the given ones can't be killed from here"
    return started(
        "given", lambda: Postgres(dsn or ""), lambda: Kafka(bootstrap_servers, "given broker"), [crashes]
    )


def docker() -> Services:
    import docker as engine

    try:
        with closing(engine.from_env()) as client:
            remove_leftovers(client)
        return started("docker", ContainerPostgres, ContainerKafka, [NO_POWER_LOSS])
    except engine.errors.DockerException as why:
        raise NotUsable(f"Docker says: {why}") from why


def java() -> Services:
    return started("java", LocalPostgres, ProcessKafka, [NO_POWER_LOSS, "the images of compose.yaml"])


def embedded() -> Services:
    mock = "every guarantee that needs a real broker: a mock stood in for Kafka"
    return started("embedded", LocalPostgres, MockKafka, [mock])


RUNGS = {"given": given, "docker": docker, "java": java, "embedded": embedded}


def started(
    rung: str, make_postgres: Callable[[], Postgres], make_kafka: Callable[[], Kafka], not_proved: list[str]
) -> Services:
    """Start both side by side and wait until both answer; on a failure leave nothing behind."""
    with ExitStack() as undo:
        kafka = make_kafka()
        undo.callback(kafka.stop)
        postgres = make_postgres()
        undo.callback(postgres.stop)
        kafka.wait_ready()
        postgres.wait_ready()
        undo.pop_all()
    return Services(
        rung, kafka, postgres, not_proved, another_kafka=make_kafka, another_postgres=make_postgres
    )


def wait_for(what: str, check: Callable[[], object]) -> None:
    """Return when `check` gives something true; not reaching the service is a "not yet"."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        with suppress(KafkaException, psycopg.OperationalError):
            if check():
                return
        time.sleep(0.05)
    raise NotUsable(f"{what}: no answer within {READY_TIMEOUT_S} s")


def has_leaders(admin: AdminClient, topic: str, partitions: int) -> bool:
    found = admin.list_topics(topic, timeout=1).topics[topic].partitions.values()
    return len(found) == partitions and all(partition.leader >= 0 for partition in found)


def container(service: str, image: str, port: int, host_port: int) -> "DockerContainer":
    """A container that isn't started yet, under a name that tells whose it is.

    The host's port is bound for good: one that Docker picks changes when a killed container starts again.
    """
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")  # read when testcontainers is imported
    from testcontainers.core.container import DockerContainer

    made = DockerContainer(image, name=f"{CONTAINER_PREFIX}{os.getpid()}-{service}-{next(NUMBERS)}")
    return made.with_bind_ports(port, host_port)


def container_host(container: "DockerContainer") -> str:
    host = container.get_docker_client().host()
    return "127.0.0.1" if host == "localhost" else host


def remove_leftovers(client: "DockerClient") -> None:
    """Remove the containers of this host's earlier runs whose process is gone."""
    for left in client.containers.list(all=True, filters={"name": CONTAINER_PREFIX}):
        pid = left.name.removeprefix(CONTAINER_PREFIX).partition("-")[0]
        if not alive(int(pid)):
            left.remove(force=True, v=True)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
