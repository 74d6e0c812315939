"""Our first stages alone: the Kafka client, and with it the decoder. Nothing is written."""

from collections import Counter

from confluent_kafka import TopicPartition

from benchmarks import checks
from benchmarks.measure import Run
from benchmarks.processes import Layout, helpers
from benchmarks.testbed import Testbed
from benchmarks.workload import Load
from consumer.clients import open_consumer
from consumer.records import available, delivery
from consumer.worker import rarely_collect_cycles
from ledger import codec
from ledger.domain.delivery import Bad


def stage(bed: Testbed, topic: str, load: Load, layout: Layout, *, decodes: bool) -> Run:
    """Read the topic, each worker its share of the lanes, and decode if asked to; nothing is written."""
    lanes = Counter(record.lane(layout.partitions) for record in load.records)
    shares = [
        {p: n for p, n in lanes.items() if p % layout.workers == number} for number in range(layout.workers)
    ]
    calls = [(bed.kafka, topic, share, decodes, layout.batch) for share in shares]
    with helpers(_read, *calls) as (pids, pipes):
        for pipe in pipes:
            pipe.recv()

        def work() -> None:
            for pipe in pipes:
                pipe.send("go")
            checks.same("records read", len(load), sum(pipe.recv() for pipe in pipes))

        return bed.measured(len(load), pids, work)


def _read(kafka: dict[str, str], topic: str, lanes: dict[int, int], decodes: bool, batch: int, pipe) -> None:
    rarely_collect_cycles()
    codec.choose(None)
    consumer = open_consumer(kafka, group="bench-stage")
    consumer.list_topics(topic, timeout=10)  # else it takes up to a second to find the leaders
    pipe.send("ready")
    pipe.recv()
    consumer.assign([TopicPartition(topic, partition, 0) for partition in lanes])
    read, wanted = 0, sum(lanes.values())
    while read < wanted:
        messages = [m for m in available(consumer, batch, 1.0) if not m.error()]
        if decodes and any(isinstance(delivery(message).content, Bad) for message in messages):
            break
        read += len(messages)
    pipe.send(read)
    pipe.recv()  # until we are ended: the CPU time of a process that is gone can't be read
