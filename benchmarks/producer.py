"""`publish` of a file of JSON lines, beside librdkafka's own producer on the same records.

    publish           judge every line, then send it: what `stockledger publish FILE` does
    raw, reports      produce() of headers and values encoded beforehand, a delivery callback each
    raw               the same without callbacks

Each runs in a process of its own, so that its memory is its own. All are idempotent with acks=all. The raw
ones repeat a block of records that fits into memory: what they send weighs the same.
"""

import tempfile
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from benchmarks.processes import helpers
from benchmarks.result import Options, Runs, cell, spread_cell, table
from benchmarks.testbed import PARTITIONS, Testbed
from benchmarks.workload import Workload, commands, encoded
from consumer import admin
from consumer.worker import rarely_collect_cycles
from ledger.domain.delivery import Lane
from producer.jsonl import to_line
from producer.publish import publish_lines
from producer.publisher import Publisher

BLOCK = 50_000
CONTENDERS = ("publish", "raw, reports", "raw")


def run(bed: Testbed, options: Options) -> dict[str, Any]:
    """All in turn, on one file."""
    workload = Workload(options.lines)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "commands.jsonl"
        with file.open("wb") as out:
            out.writelines(to_line(key, command) for key, command in commands(workload))
        size = file.stat().st_size
        runs = Runs()
        runs.play(options.rounds, {name: partial(_send, bed, name, file, workload) for name in CONTENDERS})
    return {"lines": options.lines, "file_bytes": size, "runs": runs.as_json()}


def _send(bed: Testbed, name: str, file: Path, workload: Workload):
    with bed.topic() as topic:
        with helpers(_sender, (bed.kafka, name, topic, file, workload)) as (pids, [pipe]):
            pipe.recv()

            def work() -> None:
                pipe.send("go")
                pipe.recv()

            run = bed.measured(workload.commands, pids, work)
        marks = admin.watermarks(bed.kafka, [Lane(topic, p) for p in range(PARTITIONS)]).all()
        if (there := sum(each.end for each in marks.values())) != workload.commands:
            raise RuntimeError(f"{name}: {there} records in the topic, not {workload.commands}")
    return run


def _sender(kafka: dict[str, str], name: str, topic: str, file: Path, workload: Workload, pipe) -> None:
    rarely_collect_cycles()
    if name == "publish":
        pipe.send("ready")
        pipe.recv()
        with Publisher(kafka, topic) as publisher:
            publish_lines(publisher, file)
    else:
        records = encoded(Workload(min(BLOCK, workload.commands))).records
        settings = {**kafka, "enable.idempotence": True, "acks": "all", "partitioner": "murmur2_random"}
        producer = Producer(settings)
        producer.list_topics(topic, timeout=10)
        failed: list[object] = []
        report = {"on_delivery": lambda error, _: failed.append(error) if error else None}
        pipe.send("ready")
        pipe.recv()
        _raw(producer, topic, islice(cycle(records), workload.commands), report if "reports" in name else {})
        assert not failed
    pipe.send("done")
    pipe.recv()  # until we are ended


def _raw(producer: Producer, topic: str, records, report: dict[str, Any]) -> None:
    for number, record in enumerate(records):
        while True:
            try:
                producer.produce(topic, record.value, record.key, headers=record.headers, **report)
                break
            except BufferError:
                producer.poll(0.1)
        if not number % 1_000:
            producer.poll(0)
    assert producer.flush(120) == 0


def tables(found: dict[str, Any]) -> str:
    """Rates, ratios to the raw producer, CPU and memory."""
    runs = Runs.from_json(found["runs"])
    rows = [
        [
            name, spread_cell(runs.rate(name)), spread_cell(runs.ratio(name, "raw, reports"), 2),
            cell(runs.middle(name, "cpu_worker_us")), cell(runs.middle(name, "cpu_broker_us")),
            cell(runs.middle(name, "memory_mb"), 0),
        ]
        for name in runs.by_name
    ]  # fmt: skip
    head = ["sender", "commands/s", "of raw with reports", "CPU, us", "CPU broker, us", "memory, MB"]
    said = (
        f"{found['lines']:,} lines, {found['file_bytes'] / 1e6:,.0f} MB. `publish` reads the file twice. "
        f"The memory of the raw ones is mostly their block of {BLOCK:,} records, encoded beforehand."
    )
    return f"{said}\n\n{table(head, rows)}\n"


def plot(found: dict[str, Any]) -> None:
    """The table says it."""
