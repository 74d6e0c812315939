"""How long from send() until the commit is visible to another connection, under an open loop of load.

The sender keeps to its schedule whatever the ledger does, and a command's time runs from the moment it was
*meant* to be sent: a stall counts for all who waited because of it (no coordinated omission). What was really
sent and applied a second is said beside it; where that is less than asked for, the latency is a queue's.

The observer asks again and again on a connection of its own, a pause of 1 to 5 ms between: times are that
much too long at most, and never too short. At 2,000/s a loop that does nothing but insert stands beside ours.
"""

import time
from array import array
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import psycopg
from confluent_kafka import TopicPartition

from benchmarks import checks
from benchmarks.measure import Spread, percentile
from benchmarks.plot import Series, chart
from benchmarks.processes import Crew, Layout, helpers
from benchmarks.result import Options, spread_cell, table
from benchmarks.testbed import PARTITIONS, Testbed
from benchmarks.workload import Workload, encoded, put
from consumer.clients import open_consumer
from consumer.records import available
from consumer.worker import rarely_collect_cycles
from producer import client

RATES = {100: 10.0, 2_000: 10.0, 20_000: 8.0, 50_000: 5.0}
"""Seconds by commands a second."""
QUICK_RATES = {100: 2.0, 2_000: 2.0}
BESIDE = 2_000
WARM_S = 1
"""At the start, under the same load, not counted: clients meet their broker, statements are prepared."""
PAUSE_S: dict[float, float] = {100: 0.001, 2_000: 0.001, 20_000: 0.003, 50_000: 0.005}
"""The observer's pause by commands a second: it shares the cores with what it looks at."""
SLEEP_MIN_S = 0.0005
"""The sender's shortest sleep. What falls due meanwhile is sent after it: 2,000 wakes at 50,000/s."""
LEAD_S = 0.5
DRAIN_S = 120.0
INSERT_SIZE = 500
SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}

SEEN = "SELECT partition, next_offset FROM ledger.lane WHERE topic = %s"
INSERT_TABLE = """
CREATE TABLE public.inserted (
    partition integer, "offset" bigint, id text, value json, PRIMARY KEY (partition, "offset"))
"""
INSERT = 'INSERT INTO public.inserted (partition, "offset", id, value) VALUES (%s, %s, %s, %s)'
INSERTED = """
SELECT p, (SELECT "offset" + 1 FROM public.inserted WHERE partition = p ORDER BY "offset" DESC LIMIT 1)
FROM generate_series(0, %s - 1) p
"""


class Timing(NamedTuple):
    """One run: sorted latencies; what was really sent and applied a second; the sender's worst delay."""

    latencies_ms: list[float]
    sent_rate: float
    applied_rate: float
    sender_late_ms: float

    def as_json(self) -> dict[str, float]:
        """Percentiles, and how many commands they rest on."""
        shares = {name: percentile(self.latencies_ms, share) for name, share in SHARES.items()}
        return {
            "commands": len(self.latencies_ms),
            **shares,
            "max": self.latencies_ms[-1],
            "sent_rate": self.sent_rate,
            "applied_rate": self.applied_rate,
            "sender_late_ms": self.sender_late_ms,
        }


def run(bed: Testbed, options: Options) -> dict[str, Any]:
    """Each load in turn, so many rounds."""
    rates = QUICK_RATES if options.quick else RATES
    warm = Workload(BESIDE * options.broker_warm_s)
    with bed.ledger(warm) as dsn:
        inserts(bed, dsn, warm, BESIDE)
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number in range(options.rounds):
        for rate, seconds in rates.items():
            workload = Workload(int(rate * (WARM_S + seconds)))
            with bed.ledger(workload) as dsn:
                found[f"ours {rate}"].append(_say(number, f"ours {rate}", ours(bed, dsn, workload, rate)))
            if rate == BESIDE:
                with bed.ledger(workload) as dsn:
                    timing = inserts(bed, dsn, workload, rate)
                found[f"inserts {rate}"].append(_say(number, f"inserts {rate}", timing))
    return {"rates": rates, "latency": dict(found)}


def _say(number: int, name: str, timing: Timing) -> dict[str, float]:
    found = timing.as_json()
    print(f"round {number + 1}  {name:16} p50 {found['p50']:,.1f} ms  p99 {found['p99']:,.1f} ms", flush=True)
    return found


def ours(bed: Testbed, dsn: str, workload: Workload, rate: float) -> Timing:
    """One worker with everything, on this ledger."""
    with (
        bed.topic() as topic,
        psycopg.connect(dsn, autocommit=True) as conn,
        Crew(bed, dsn, topic, Layout()) as crew,
    ):
        crew.wait_assigned(conn)
        before = checks.number(conn, checks.ON_HAND)
        timing = _observe(bed, topic, workload, rate, lambda: conn.execute(SEEN, [topic]).fetchall())
        load = encoded(workload)
        checks.ledger(conn, topic, load.expected, sum(load.pieces), before)
    return timing


def inserts(bed: Testbed, dsn: str, workload: Workload, rate: float) -> Timing:
    """A loop that takes what is there, up to 500, and inserts it: no decision, no dedup, no order."""
    with bed.topic() as topic, psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(INSERT_TABLE)
        with helpers(_insert, (bed.kafka, dsn, topic)) as (_, [pipe]):
            pipe.recv()
            return _observe(
                bed, topic, workload, rate, lambda: conn.execute(INSERTED, [PARTITIONS]).fetchall()
            )


def _observe(bed: Testbed, topic: str, workload: Workload, rate: float, look) -> Timing:
    """Start the sender and write down what is visible when; then what each command waited for."""
    with helpers(_send, (bed.kafka, topic, workload, rate)) as (_, [pipe]):
        pipe.recv()  # it has encoded everything
        begin = time.monotonic() + LEAD_S
        pipe.send(begin)
        sightings = Sightings()
        until = begin + workload.commands / rate + DRAIN_S
        while sightings.commands < workload.commands:
            seen, now = look(), time.monotonic()
            sightings.note(seen, now)
            if now > until:
                raise RuntimeError(f"not all was applied {DRAIN_S:.0f} s after the last command")
            time.sleep(PAUSE_S[rate])
        lanes, sent_s, late_s = pipe.recv()
    waited = sorted(1000 * wait for wait in waits(lanes, rate, begin, sightings)[int(rate * WARM_S) :])
    count = workload.commands
    return Timing(waited, count / sent_s, count / (sightings.last - begin), 1000 * late_s)


class Sightings:
    """When each lane was first seen to be applied up to which offset."""

    def __init__(self) -> None:
        self.last = 0.0
        """When anything new was seen last."""
        self._times: dict[int, list[float]] = defaultdict(list)
        self._ends: dict[int, list[int]] = defaultdict(lambda: [0])

    def note(self, seen: Iterable[tuple[int, int | None]], now: float) -> None:
        """Take a look at the lanes: partition and next offset, None before the first."""
        for partition, next_offset in seen:
            if (next_offset or 0) > self._ends[partition][-1]:
                self._ends[partition].append(next_offset or 0)
                self._times[partition].append(now)
                self.last = now

    @property
    def commands(self) -> int:
        """How many are visible."""
        return sum(ends[-1] for ends in self._ends.values())

    def first(self, lane: int, offset: int) -> float:
        """When the record at the offset was first seen to be applied."""
        return self._times[lane][bisect_right(self._ends[lane], offset) - 1]


def waits(lanes: Iterable[int], rate: float, begin: float, sightings: Sightings) -> list[float]:
    """Seconds from each command's intended time to its first sight.

    `lanes`: each command's lane, in order of sending, each lane from offset 0 on.
    """
    offsets: Counter[int] = Counter()
    waited = []
    for number, lane in enumerate(lanes):
        waited.append(sightings.first(lane, offsets[lane]) - (begin + number / rate))
        offsets[lane] += 1
    return waited


def _send(kafka: dict[str, str], topic: str, workload: Workload, rate: float, pipe) -> None:
    """The sender's process: encoded beforehand, the publisher's own settings, an open loop."""
    rarely_collect_cycles()
    records = encoded(workload).records
    lanes = array("i", [record.lane(PARTITIONS) for record in records])
    producer = client.make_producer(client.complete(kafka), lambda _: None)
    producer.list_topics(topic, timeout=10)
    pipe.send("ready")
    begin = pipe.recv()
    late_s = 0.0
    for number, record in enumerate(records):
        due = begin + number / rate
        while (left := due - time.monotonic()) > 0:
            producer.poll(0)
            time.sleep(max(left, SLEEP_MIN_S))  # poll itself would spin: it counts in milliseconds
        late_s = max(late_s, -left)
        put(producer, topic, record, lanes[number])
    sent_s = time.monotonic() - begin
    assert producer.flush(60) == 0
    pipe.send((lanes, max(sent_s, workload.commands / rate), late_s))
    pipe.recv()  # until we are ended


def _headers(message: Any) -> dict[str, bytes]:
    return dict(message.headers())


def _insert(kafka: dict[str, str], dsn: str, topic: str, pipe) -> None:
    rarely_collect_cycles()
    consumer = open_consumer(kafka, group="bench-insert")
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    pipe.send("ready")
    with psycopg.connect(dsn) as conn:
        while True:
            messages = [m for m in available(consumer, INSERT_SIZE, 0.1) if not m.error()]
            if messages:
                rows = [
                    (m.partition(), m.offset(), _headers(m)["ce_id"].decode(), (m.value() or b"").decode())
                    for m in messages
                ]
                with conn.cursor() as cursor:
                    cursor.executemany(INSERT, rows)
                conn.commit()


def spread(each: list[dict[str, float]], what: str) -> Spread:
    """The spread of one figure over the rounds."""
    return Spread.of([run[what] for run in each])


def tables(found: dict[str, Any]) -> str:
    """Percentiles by load."""
    rows = [
        [
            name, *(spread_cell(spread(each, share), 1) for share in SHARES),
            spread_cell(spread(each, "sent_rate")), spread_cell(spread(each, "applied_rate")),
            spread_cell(spread(each, "sender_late_ms"), 1), f"{each[0]['commands']:,}",
        ]
        for name, each in found["latency"].items()
    ]  # fmt: skip
    head = [
        "asked for, commands/s", *(f"{share}, ms" for share in SHARES), "sent/s", "applied/s",
        "sender late at most, ms", "commands a round",
    ]  # fmt: skip
    said = (
        "From the intended send time to visible on another connection, one worker, batches of up to 5,000; "
        f"minimum / median / maximum of the rounds. The first {WARM_S:.0f} s of each isn't counted."
    )
    return f"{said}\n\n{table(head, rows)}\n"


def plot(found: dict[str, Any]) -> str:
    """Percentiles by load."""
    rates = [int(rate) for rate in found["rates"]]
    series = [
        Series(share, [(rate, spread(found["latency"][f"ours {rate}"], share).median) for rate in rates])
        for share in SHARES
    ]
    return chart("From send() to visible", "commands/s asked for", "ms", series)
