"""From Kafka into Postgres: ours, the limit beside it, and the naive way, in turn, several rounds.

    limit   the very rows that ours wrote, encoded beforehand, by COPY: one transaction a batch
    naive   one transaction per message, Kafka's offset committed asynchronously
    ours    one worker, everything that the ledger promises

Only ratios within one run mean something: the machine drifts. Run it by `make bench`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import structlog
from confluent_kafka import Consumer, Producer
from psycopg import sql

from benchmarks.workload import Workload
from consumer.worker import Worker, WorkerSettings, rarely_collect_cycles
from ledger.domain import envelope
from ledger.domain.commands import AnyCommand, MessageKey, record_key
from ledger.store import event, migrate, processed_message
from tests.support.services import Services, find_services

RESULTS = Path(__file__).parent / "results"
PARTITIONS = 4


class Bench:
    """The services, and what each contender needs of them."""

    def __init__(self, services: Services, workload: Workload, batch: int, naive: int) -> None:
        self.services = services
        self.workload = workload
        self.batch = batch
        self.naive_commands = naive
        self.kafka = {"bootstrap.servers": services.kafka.bootstrap_servers}

    @contextmanager
    def database(self) -> Iterator[str]:
        """A fresh, migrated ledger."""
        name = f"bench_{time.time_ns()}"
        with psycopg.connect(self.services.postgres.dsn("postgres"), autocommit=True) as conn:
            conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            dsn = self.services.postgres.dsn(name)
            try:
                with psycopg.connect(dsn, autocommit=True) as ledger:
                    migrate.migrate(ledger)
                yield dsn
            finally:
                conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def topic(self) -> str:
        """A new topic."""
        name = f"bench-{time.time_ns()}"
        self.services.kafka.create_topic(name, PARTITIONS)
        return name

    def publish(self, topic: str, commands: Iterator[tuple[MessageKey, AnyCommand]]) -> None:
        """Everything into the topic, acknowledged."""
        producer = Producer({**self.kafka, "partitioner": "murmur2_random", "linger.ms": 20})
        for key, command in commands:
            headers, value = envelope.encode(key, command)
            while True:
                try:
                    producer.produce(topic, value, key=record_key(command), headers=headers)
                    break
                except BufferError:
                    producer.poll(0.1)
        assert producer.flush(60) == 0

    def work(self, dsn: str, topic: str) -> float:
        """Seconds that one worker takes to apply the topic up to its end."""
        settings = WorkerSettings(
            dsn, self.kafka, topic, "bench", until_caught_up=True, batch_size_max=self.batch
        )
        quiet = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger("critical"))
        begun = time.perf_counter()
        Worker(settings, quiet).run()
        return time.perf_counter() - begun

    def round(self) -> dict[str, float]:
        """Commands per second of each contender, once, on one database and one topic."""
        topic = self.topic()
        self.publish(topic, self.workload.setup())
        with self.database() as dsn:
            self.work(dsn, topic)
            idle = self.work(dsn, topic)  # joining the group and leaving it: no command's cost
            self.publish(topic, self.workload.purchases())
            seconds = self.work(dsn, topic) - idle
            with psycopg.connect(dsn, autocommit=True) as conn:
                applied = conn.execute("SELECT count(*) FROM ledger.purchases").fetchone()
                assert applied == (self.workload.commands,), applied
                batches = _written(conn, self.batch)
            with self.database() as empty:
                limit = _copy(empty, batches)
            with self.database() as fresh:
                naive = self._naive(fresh, topic)
        return {
            "ours": self.workload.commands / seconds,
            "limit": self.workload.commands / limit,
            "naive": naive,
        }

    def _naive(self, dsn: str, topic: str) -> float:
        """Commands per second the way that most begin: message by message."""
        consumer = Consumer(
            {**self.kafka, "group.id": f"naive-{time.time_ns()}", "auto.offset.reset": "earliest"}
            | {"enable.auto.commit": False}
        )
        consumer.subscribe([topic])
        done, seconds = 0, 0.0
        with psycopg.connect(dsn) as conn:
            conn.execute(
                "INSERT INTO ledger.stock (generation, goods_id, version, on_hand) "
                "SELECT 1, 'sku' || lpad(n::text, 5, '0'), 1, 1e15 FROM generate_series(0, %s) n",
                [self.workload.goods],
            )
            conn.commit()
            while done < self.naive_commands:
                message = consumer.poll(5)
                assert message is not None
                begun = time.perf_counter()
                if message.error() or not _apply_alone(conn, message.headers(), message.value()):
                    continue
                consumer.commit(message, asynchronous=True)
                done += 1
                seconds += time.perf_counter() - begun
        consumer.close()
        return done / seconds


def _apply_alone(conn: psycopg.Connection, headers, value) -> bool:
    request = envelope.decode(headers, value)
    if request.command.NAME != "PurchaseGoods":
        return False
    (source, id_), command = request.key, request.command
    new = conn.execute(
        "INSERT INTO ledger.processed_message VALUES (1, 1, 1, NULL, %s, %s, %s) ON CONFLICT DO NOTHING",
        (request.fingerprint, source, id_),
    ).rowcount
    if new:
        row = conn.execute(
            "UPDATE ledger.stock SET on_hand = on_hand - %s, version = version + 1 "
            "WHERE goods_id = %s AND on_hand >= %s RETURNING version",
            (command.quantity, command.goods_id, command.quantity),
        ).fetchone()
        conn.execute(
            "INSERT INTO ledger.event VALUES (1, 1, %s, %s, 'GoodsPurchased', %s, %s, %s, %s, %s)",
            (
                f"goods-{command.goods_id}",
                row[0],
                value.decode(),
                -command.quantity,
                command.user_id,
                source,
                id_,
            ),
        )
    conn.commit()
    return True


def _written(conn: psycopg.Connection, size: int) -> list[tuple[bytes, bytes]]:
    """The purchases' rows as COPY text, by batches, each in the order of its primary key."""
    register = 'SELECT p.* FROM ledger.processed_message p ORDER BY entry, "offset"'
    events = "SELECT e.* FROM ledger.event e WHERE type = 'GoodsPurchased' ORDER BY entry, ordinal"
    rows = []
    for query, key in ((register, slice(-2, None)), (events, slice(2, 4))):
        with conn.cursor() as cursor, cursor.copy(f"COPY ({query}) TO STDOUT") as copy:
            lines = [bytes(line) for line in copy]
        lines = [line for line in lines if query is events or b"\tuser-" not in line]
        rows.append(
            [
                b"".join(sorted(lines[i : i + size], key=lambda line: line.split(b"\t")[key]))
                for i in range(0, len(lines), size)
            ]
        )
    return list(zip(*rows, strict=False))


def _copy(dsn: str, batches: list[tuple[bytes, bytes]]) -> float:
    """Seconds to write the rows, encoded beforehand: one transaction a batch, one connection."""
    with psycopg.connect(dsn) as conn:
        begun = time.perf_counter()
        for register, events in batches:
            with conn.cursor() as cursor:
                with cursor.copy(processed_message.COPY) as copy:
                    copy.write(register)
                with cursor.copy(event.COPY) as copy:
                    copy.write(events)
            conn.commit()
        return time.perf_counter() - begun


def _summary(rounds: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    figures: dict[str, Callable[[dict[str, float]], float]] = {
        "ours, commands/s": lambda r: r["ours"],
        "limit, commands/s": lambda r: r["limit"],
        "naive, commands/s": lambda r: r["naive"],
        "ours / limit": lambda r: r["ours"] / r["limit"],
        "ours / naive": lambda r: r["ours"] / r["naive"],
    }
    summary = {}
    for name, figure in figures.items():
        values = [figure(r) for r in rounds]
        summary[name] = {"min": min(values), "median": statistics.median(values), "max": max(values)}
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commands", type=int, default=200_000)
    parser.add_argument("--naive", type=int, default=3_000, help="commands of the naive way a round")
    parser.add_argument("--batch", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    services = find_services()
    try:
        rarely_collect_cycles()  # as `stockledger run` does
        bench = Bench(services, Workload(options.commands), options.batch, options.naive)
        rounds = []
        for number in range(options.rounds):
            rounds.append(bench.round())
            print(
                f"round {number + 1}: " + "  ".join(f"{k} {v:,.0f}/s" for k, v in rounds[-1].items()),
                flush=True,
            )
        result = {
            "services": services.describe(),
            **vars(options),
            "figures": _summary(rounds),
            "rounds": rounds,
        }
    finally:
        services.stop()
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "throughput.json").write_text(json.dumps(result, indent=1) + "\n")
    for name, figure in result["figures"].items():
        print(f"{name:20} " + "  ".join(f"{k} {v:12,.3f}" for k, v in figure.items()))


if __name__ == "__main__":
    main()
