"""Kafka Streams on the same broker, with the same commands: `streams/Shop.java`, run by Java 17 or later.

A JVM is slow at first. So it is given twice as many commands, and its second half counts: from one record
that it has decided to another. What it has decided but not committed yet counts for it.
"""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from confluent_kafka import Consumer, TopicPartition

from benchmarks import checks, measure
from benchmarks.measure import Run
from benchmarks.testbed import PARTITIONS, Testbed
from benchmarks.workload import STOCK_EACH, Load
from tests.support.java_kafka import jars, java

HERE = Path(__file__).with_name("streams")
READ_S = 120.0


def fetched() -> list[str]:
    """How to run the program. Raises NotUsable where there is no Java, or no Maven to fetch its jars."""
    return [java(), "-cp", f"{jars(HERE / 'pom.xml')}/*", str(HERE / "Shop.java")]


def streams(bed: Testbed, load: Load, threads: int) -> Run:
    """The second half of the load. Raises NotUsable as `fetched` does."""
    half, all_of_it = len(load) // 2, len(load)
    with bed.topic() as topic, bed.topic() as events, tempfile.TemporaryDirectory() as folder:
        bed.publish(topic, load.records)
        words = [bed.bootstrap_servers, topic, events, folder, threads, STOCK_EACH, half, all_of_it]
        with _shop(words) as (said, pid):
            begun, cpu_begun, broker_begun = *_told(said), _broker_s(bed)
            ended, cpu_ended, broker_ended = *_told(said), _broker_s(bed)
            memory_mb = measure.memory_peak_mb([pid])
        checks.same("events", load.expected["applied"], _committed(bed, events, load.expected["applied"]))
    commands = all_of_it - half
    return Run(
        commands, (ended - begun) / 1e9,
        cpu_worker_us=(cpu_ended - cpu_begun) / 1e3 / commands,
        cpu_broker_us=(broker_ended - broker_begun) * 1e6 / commands if bed.broker else None,
        memory_mb=memory_mb,
    )  # fmt: skip


@contextmanager
def _shop(words: list[object]) -> Iterator[tuple[IO[str], int]]:
    command = [*fetched(), *map(str, words)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        try:
            yield process.stdout, process.pid
        finally:
            process.terminate()


def _told(said: IO[str]) -> tuple[int, int]:
    """Its clock and its CPU time, in nanoseconds, at the next number that it was to tell."""
    line = said.readline()
    if not line:
        raise RuntimeError("Kafka Streams ended before it was done")
    _, clock, cpu = line.split()
    return int(clock), int(cpu)


def _broker_s(bed: Testbed) -> float:
    return measure.cpu_s([bed.broker]) if bed.broker else 0.0


def _committed(bed: Testbed, topic: str, expected: int) -> int:
    """How many records a reader of committed ones finds; it stops looking once all are there."""
    consumer = Consumer(
        {**bed.kafka, "group.id": "bench-streams", "isolation.level": "read_committed", "log_level": 0,
         "auto.offset.reset": "earliest", "enable.auto.commit": False}
    )  # fmt: skip
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    found, until = 0, time.monotonic() + READ_S
    while found < expected and time.monotonic() < until:
        found += len(consumer.consume(10_000, 1))
    found += len(consumer.consume(10_000, 1))  # more than there should be is wrong, too
    consumer.close()
    return found
