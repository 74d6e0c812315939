"""The relay beside a plain transactional producer of the same records, and beside a worker at full speed.

    relay       `stockledger relay --until-caught-up`: from the journal to three topics
    raw         produce() of the same records from memory, in transactions of as many

Then a worker alone, and one with a relay at work beside it: `keeps up` is what the relay had published when
the worker had applied its last command, of all that it applied.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event
from typing import Any, cast

from confluent_kafka import KafkaException, Producer

from benchmarks.measure import Run
from benchmarks.ours import ours_on
from benchmarks.processes import SPAWN, Layout, helpers
from benchmarks.result import Options, Runs, cell, spread_cell, table
from benchmarks.testbed import PARTITIONS, Testbed
from benchmarks.workload import Workload, encoded
from consumer import admin, records
from consumer.worker import rarely_collect_cycles
from ledger.domain.delivery import Lane
from ledger.domain.token import Token
from ledger.errors import LedgerError
from ledger.store.reads.lag import JournalLag
from producer import client
from producer.relay.outputs import OutgoingRecord, Outputs
from producer.relay.relay import Relay, RelayTerms
from producer.relay.steps import RECORDS
from producer.relay.told import RelayedStep, RelayLog
from stockledger import relay_topics
from stockledger.settings import Settings, load
from stockledger.wiring import connections

COMMANDS = 100_000
QUICK_COMMANDS = 4_000
RELAY, RAW = "relay", "raw"
ALONE, BESIDE, KEEPS_UP = "a worker alone", "beside a relay", "the relay meanwhile"
FLUSH_S = 120


class _Count(RelayLog):
    """How many records were published, and of how many commands: also for another process."""

    def __init__(self, commands: Any) -> None:
        self.commands = commands
        self.records = 0

    def ready(self, after: Token) -> None:
        return

    def relayed(self, step: RelayedStep) -> None:
        self.records += step.events + step.outcomes + step.stock
        self.commands.value += step.outcomes

    def status(self, at: Token, lag: JournalLag) -> None:
        return

    def waiting(self, cause: LedgerError) -> None:
        raise cause


def run(bed: Testbed, options: Options) -> dict[str, Any]:
    """All contenders in turn."""
    workload = Workload(QUICK_COMMANDS if options.quick else COMMANDS)
    runs = Runs()
    with bed.ledger(workload) as dsn:
        ours_on(bed, dsn, encoded(workload), Layout())
        with _topics(bed) as source:
            number, _ = _relayed(bed, dsn, source)
            field = {
                RELAY: partial(_relay_anew, bed, dsn, number),
                RAW: partial(_raw, bed, source),
                ALONE: partial(_worker, bed, workload),
                BESIDE: partial(_worker_beside, bed, workload, runs),
            }
            runs.play(options.rounds, field)
    return {"commands": workload.commands, "runs": runs.as_json()}


@contextmanager
def _topics(bed: Testbed) -> Iterator[str]:
    """The prefix of new topics of a relay."""
    with bed.topic(1) as prefix:
        relay_topics.make(_settings(bed.kafka, ""), prefix, PARTITIONS)
        try:
            yield prefix
        finally:
            for name in Outputs.of(prefix):
                with suppress(KafkaException):
                    bed.services.kafka.delete_topic(name)


def _settings(kafka: dict[str, str], dsn: str) -> Settings:
    return load({"dsn": dsn or None}, [f"{name}={value}" for name, value in kafka.items()])


def _relayed(bed: Testbed, dsn: str, prefix: str, expected: int = 1) -> tuple[int, Run]:
    """How many records were published, and what that cost, by the record if they are as many as expected."""
    with helpers(_relay, (bed.kafka, dsn, prefix, SPAWN.Value("q", 0), True)) as (pids, [pipe]):
        pipe.recv()
        published: list[int] = []

        def work() -> None:
            pipe.send("go")
            published.append(pipe.recv())

        found = bed.measured(expected, pids, work)
        return published[0], found


def _relay_anew(bed: Testbed, dsn: str, expected: int) -> Run:
    with _topics(bed) as prefix:
        published, found = _relayed(bed, dsn, prefix, expected)
    if published != expected:
        raise RuntimeError(f"{published} records were published, not {expected}")
    return found


def _relay(kafka: dict[str, str], dsn: str, prefix: str, count: Any, ends: bool, pipe) -> None:
    rarely_collect_cycles()
    settings, log = _settings(kafka, dsn), _Count(count)
    terms = RelayTerms(settings.kafka_properties(), Outputs.of(prefix), 0, ends)
    topics = relay_topics.KafkaTopics(settings, prefix)
    work = Relay(connections(settings, "relay"), topics, terms, Event(), log)
    pipe.send("ready")
    pipe.recv()
    work.run()
    pipe.send(log.records)
    pipe.recv()  # until we are ended


def _raw(bed: Testbed, source: str) -> Run:
    with _topics(bed) as prefix, helpers(_raw_process, (bed.kafka, source, prefix)) as (pids, [pipe]):
        number = pipe.recv()

        def work() -> None:
            pipe.send("go")
            pipe.recv()

        return bed.measured(number, pids, work)


def _raw_process(kafka: dict[str, str], source: str, prefix: str, pipe) -> None:
    rarely_collect_cycles()
    outgoing = list(_published(kafka, Outputs.of(source), Outputs.of(prefix)))
    settings = client.complete(kafka) | {"transactional.id": f"raw-{prefix}"}
    pipe.send(len(outgoing))
    pipe.recv()
    producer = Producer(settings)
    producer.init_transactions(FLUSH_S)
    for first in range(0, len(outgoing), RECORDS):
        producer.begin_transaction()
        for record in outgoing[first : first + RECORDS]:
            while True:
                try:
                    producer.produce(record.topic, record.value, record.key, headers=list(record.headers))
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.commit_transaction(FLUSH_S)
    pipe.send("done")
    pipe.recv()


def _published(kafka: dict[str, str], source: Outputs, to: Outputs) -> Iterator[OutgoingRecord]:
    """What a relay has published, as it would be published to other topics."""
    for topic, other in zip(source[:3], to[:3], strict=True):
        lanes = [Lane(topic, partition) for partition in range(PARTITIONS)]
        for lane, marks in admin.watermarks(kafka, lanes).all().items():
            for each in records.messages(kafka, lane, marks.first, marks.stable):
                headers = cast("list[tuple[str, bytes]]", each.headers()) or []
                yield OutgoingRecord(other, each.key() or b"", each.value() or b"", headers)


def _worker(bed: Testbed, workload: Workload) -> Run:
    with bed.ledger(workload) as dsn:
        return ours_on(bed, dsn, encoded(workload), Layout())


def _worker_beside(bed: Testbed, workload: Workload, runs: Runs) -> Run:
    """Notes besides how much the relay had published when the worker was done."""
    count = SPAWN.Value("q", 0)
    with (
        bed.ledger(workload) as dsn,
        _topics(bed) as prefix,
        helpers(_relay, (bed.kafka, dsn, prefix, count, False)) as (_, [pipe]),
    ):
        pipe.recv()
        pipe.send("go")
        published: list[int] = []
        found = ours_on(bed, dsn, encoded(workload), Layout(), beside=lambda: published.append(count.value))
        runs.by_name.setdefault(KEEPS_UP, []).append(Run(max(published[-1], 1), found.seconds))
        return found


def tables(found: dict[str, Any]) -> str:
    """Rates, ratios and costs."""
    runs = Runs.from_json(found["runs"])
    rows = [
        [
            name, spread_cell(runs.rate(name)), spread_cell(runs.ratio(name, to), 2),
            cell(runs.middle(name, "cpu_worker_us")), cell(runs.middle(name, "cpu_postgres_us")),
            cell(runs.middle(name, "cpu_broker_us")), cell(runs.middle(name, "memory_mb"), 0),
        ]
        for name, to in ((RELAY, RAW), (RAW, RAW), (ALONE, ALONE), (BESIDE, ALONE), (KEEPS_UP, BESIDE))
    ]  # fmt: skip
    head = [
        "",
        "records or commands/s",
        "ratio",
        "CPU, us",
        "CPU Postgres, us",
        "CPU broker, us",
        "memory, MB",
    ]
    said = (
        f"{found['commands']:,} purchases; their events, outcomes and stock are the records. The ratio of a "
        "relay is to raw, that of a worker to one alone. The last is how much of the worker it keeps up with."
    )
    return f"{said}\n\n{table(head, rows)}\n"


def plot(found: dict[str, Any]) -> None:
    """The table says it."""
