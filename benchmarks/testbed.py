"""Where a benchmark runs: a real Kafka and Postgres, fresh ledgers and topics, and the meter beside them."""

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import confluent_kafka
import psycopg
from confluent_kafka import Producer
from psycopg import sql

from benchmarks import fill, measure
from benchmarks.measure import Run
from benchmarks.workload import Record, Workload, put
from ledger.store.connection import server
from ledger.store.connection.database import Connection
from ledger.store.schema import migrate
from tests.support.services import find_services

PARTITIONS = 4
SETTINGS = (
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_sync_method",
    "shared_buffers",
    "max_wal_size",
)
WAL = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"


class Testbed:
    """The services of this run. Raises UnsafeSettings where Postgres may forget what it acknowledged."""

    def __init__(self) -> None:
        self.services = find_services()
        self.bootstrap_servers = self.services.kafka.bootstrap_servers
        self.kafka = {"bootstrap.servers": self.bootstrap_servers}
        self.skipped: list[str] = []
        self._number = time.time_ns()
        self._templates: dict[Workload, str] = {}
        self._admin = Connection.connect(self.services.postgres.dsn("postgres"), autocommit=True)
        server.require_durable(self._admin)
        self.postmaster = self._find_postmaster()
        self.broker = measure.broker(int(self.bootstrap_servers.rpartition(":")[2]))
        for name, found in (("Postgres", self.postmaster), ("the broker", self.broker)):
            if found is None:
                self.skip(f"CPU time of {name}: its process isn't visible from here")
        if not self.services.kafka.real:
            self.skip("a real broker: these figures are of librdkafka's mock one and mean nothing")

    def close(self) -> None:
        """Remove every database that was made here, and end the services that were started."""
        for name in self._templates.values():
            self._drop(name)
        self._admin.close()
        self.services.stop()

    def skip(self, what: str) -> None:
        """Say once what this machine lacks."""
        if what not in self.skipped:
            self.skipped.append(what)
            print(f"skipped: {what}", flush=True)

    def machine(self) -> dict[str, Any]:
        """The facts that figures depend on; no names and no paths."""
        shown = {
            name: self._admin.execute("SELECT current_setting(%s)", [name]).fetchone() for name in SETTINGS
        }
        return {
            "cores": os.cpu_count(),
            "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
            "load_average": os.getloadavg()[0],
            "services": self.services.describe(),
            "python": platform.python_version(),
            "librdkafka": confluent_kafka.libversion()[0],
            "psycopg": psycopg.__version__,
            "settings": {name: value[0] for name, value in shown.items() if value},
        }

    @contextmanager
    def ledger(self, workload: Workload) -> Iterator[str]:
        """The DSN of a fresh ledger with the workload's users, goods and stock."""
        name = self._copy_of(self._template(workload))
        try:
            yield self.services.postgres.dsn(name)
        finally:
            self._drop(name)

    @contextmanager
    def empty_ledger(self) -> Iterator[str]:
        """The DSN of a ledger that nothing was applied to, and that was given nothing either."""
        name = self._create(sql.SQL(""))
        try:
            with Connection.connect(self.services.postgres.dsn(name), autocommit=True) as conn:
                migrate.migrate(conn)
            yield self.services.postgres.dsn(name)
        finally:
            self._drop(name)

    @contextmanager
    def topic(self, partitions: int = PARTITIONS) -> Iterator[str]:
        """A new topic."""
        name = f"bench-{self._next()}"
        self.services.kafka.create_topic(name, partitions)
        try:
            yield name
        finally:
            self.services.kafka.delete_topic(name)

    def publish(
        self, topic: str, records: Sequence[Record], partitions: int = PARTITIONS, *, spread: bool = False
    ) -> None:
        """Everything into the topic, acknowledged; with `spread` in turn over the lanes, whatever the key."""
        lost: list[object] = []
        producer = Producer({**self.kafka, "enable.idempotence": True, "linger.ms": 20, "log_level": 0})
        note = lambda error, _: lost.append(error) if error else None  # noqa: E731
        for n, record in enumerate(records):
            lane = n % partitions if spread else record.lane(partitions)
            put(producer, topic, record, lane, note)
        if producer.flush(60) or lost:
            raise RuntimeError(f"the topic wasn't filled: {lost[:1]}")

    def measured(
        self, commands: int, pids: Iterable[int], work: Callable[[], object], *, batches: int = 0
    ) -> Run:
        """What `work` cost; the pids are the contender's own processes and must outlive it.

        WAL and Postgres's CPU time are the whole server's: nobody else may use it meanwhile.
        """
        self._admin.execute("CHECKPOINT")  # else one could fall into it, and cost whoever is there
        pids = set(pids)
        before, begun = self._reading(pids), time.perf_counter()
        work()
        seconds = time.perf_counter() - begun
        after = self._reading(pids)
        client, postgres, broker, wal = (
            None if a is None or b is None else (a - b) / commands for a, b in zip(after, before, strict=True)
        )
        return Run(
            commands,
            seconds,
            cpu_worker_us=client and client * 1e6,
            cpu_postgres_us=postgres and postgres * 1e6,
            cpu_broker_us=broker and broker * 1e6,
            wal_bytes=wal,
            memory_mb=measure.memory_peak_mb(pids),
            batch_mean=commands / batches if batches else None,
        )

    def _reading(self, pids: set[int]) -> tuple[float | None, ...]:
        row = self._admin.execute(WAL).fetchone()
        return (
            measure.cpu_s(pids),
            measure.cpu_s({self.postmaster}, with_children=True) if self.postmaster else None,
            measure.cpu_s({self.broker}) if self.broker else None,
            float(row[0]) if row else None,
        )

    def _find_postmaster(self) -> int | None:
        # Its sessions show their database in the title: one in a database of our own can't be another's.
        name = self._create(sql.SQL(""))
        try:
            with psycopg.connect(self.services.postgres.dsn(name)):
                return measure.postmaster(name)
        finally:
            self._drop(name)

    def _template(self, workload: Workload) -> str:
        kind = Workload(0, workload.goods, workload.users)
        if kind not in self._templates:
            name = self._templates[kind] = self._create(sql.SQL(""))
            with Connection.connect(self.services.postgres.dsn(name), autocommit=True) as conn:
                migrate.migrate(conn)
                fill.set_up(conn, kind)
        return self._templates[kind]

    def _copy_of(self, template: str) -> str:
        return self._create(sql.SQL("TEMPLATE {}").format(sql.Identifier(template)))

    def _create(self, rest: sql.Composable) -> str:
        name = f"bench_{self._next()}"
        self._admin.execute(sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(name), rest))
        return name

    def _drop(self, name: str) -> None:
        self._admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _next(self) -> int:
        self._number += 1
        return self._number
