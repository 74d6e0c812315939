"""Who waits for whom: hot goods, shared goods and a flood; by workers, batch and distance of Postgres.

The throughput part fills the topic first. Each cell has a fresh ledger: everything on one lane, the same
goods on all lanes, goods that keep to their lanes, or as many goods for each lane as the second has in all.
The last is the most that stock in buckets could give: rows of one's own, and nothing else to look at. The
share of time in lock waits is that of the samples of `pg_stat_activity` in which a worker's session waits for
a lock, some hundred a second.

The flood part sends purchases of one item at 1.5 times what a worker makes of them, and beside them 500 a
second of 1,000 other goods, on an open loop. It says what those others wait for, from the moment each was
meant to be sent until it is visible: those on lanes of their own, and those that share the hot item's lane.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from benchmarks import checks
from benchmarks.far import at_a_distance, round_trip_ms
from benchmarks.latency import SEEN, WARM_S, Sightings
from benchmarks.measure import Run, Spread, percentile
from benchmarks.ours import ours_on
from benchmarks.processes import Crew, Layout, helpers
from benchmarks.result import Options, Runs, spread_cell, table
from benchmarks.testbed import PARTITIONS, Testbed
from benchmarks.workload import Record, Workload, encoded, put
from consumer.worker import rarely_collect_cycles
from producer import client

SHAPES = ("one lane", "the same goods on all lanes", "uniform", "a row each lane")
WORKERS, BATCHES, DISTANCES_MS = (1, 2, 4), (500, 5_000), (0, 1, 2, 5)
COMMANDS, GOODS = 40_000, 1_000
QUICK_WORKERS, QUICK_BATCHES, QUICK_DISTANCES_MS, QUICK_COMMANDS = (2,), (500,), (0, 2), 2_000

HOT = "sku0000000"
OTHERS_RATE, FLOOD_OF_CAPACITY = 500, 1.5
FLOOD_S, QUICK_FLOOD_S = 20, 2
LEAD_S, DRAIN_S, PAUSE_S = 0.5, 180.0, 0.003
ROUTINGS = {"by goods": False, "the hot item isolated": True}

WAITS = """
SELECT count(*) FILTER (WHERE wait_event_type = 'Lock'), count(*)
FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'stockledger/run'
"""


def run(bed: Testbed, options: Options) -> dict[str, Any]:
    """Every cell of the grid in turn, then the floods, each round."""
    quick = options.quick
    workers, batches = (QUICK_WORKERS, QUICK_BATCHES) if quick else (WORKERS, BATCHES)
    distances = QUICK_DISTANCES_MS if quick else DISTANCES_MS
    grid = Grid(bed, QUICK_COMMANDS if quick else COMMANDS)
    runs = Runs()
    field = {
        _cell(shape, number, batch, distance): partial(grid.run, shape, Layout(number, batch), distance)
        for distance in distances
        for batch in batches
        for number in workers
        for shape in SHAPES
    }
    runs.play(options.rounds, field)
    return {
        "commands": grid.commands,
        "workers": workers,
        "batches": batches,
        "distances": {str(distance): grid.far_ms[distance] for distance in distances},
        "runs": runs.as_json(),
        "lock_waits": grid.waits,
        "floods": _floods(bed, options),
    }


def _cell(shape: str, workers: int, batch: int, distance_ms: float) -> str:
    return f"{shape}, {workers} workers, batches of {batch}, {distance_ms} ms"


class Grid:
    """The cells of the throughput part, and what was seen in them besides their rates."""

    def __init__(self, bed: Testbed, commands: int) -> None:
        self.commands = commands
        self.waits: dict[str, list[float]] = defaultdict(list)
        """The share of time in lock waits, by cell and round."""
        self.far_ms: dict[float, float] = {}
        """The measured round trip, by the one that was asked for."""
        self._bed = bed

    def run(self, shape: str, layout: Layout, distance_ms: float) -> Run:
        """One cell, once."""
        goods = GOODS * (PARTITIONS if shape == SHAPES[3] else 1)
        workload = Workload(self.commands, goods, hot=1.0 if shape == SHAPES[0] else 0.0)
        layout = replace(layout, spread=shape == SHAPES[1])
        with self._bed.ledger(workload) as dsn, at_a_distance(dsn, distance_ms) as far:
            self.far_ms.setdefault(distance_ms, round_trip_ms(far))
            with psycopg.connect(dsn, autocommit=True) as conn:
                looks: list[TupleRow] = []
                found = ours_on(
                    self._bed,
                    far,
                    encoded(workload),
                    layout,
                    beside=lambda: looks.extend(conn.execute(WAITS)),
                )
        waiting, sessions = (sum(each) for each in zip(*looks, strict=True))
        self.waits[_cell(shape, layout.workers, layout.batch, distance_ms)].append(waiting / sessions)
        return found


def _floods(bed: Testbed, options: Options) -> dict[str, list[dict[str, Any]]]:
    seconds = QUICK_FLOOD_S if options.quick else FLOOD_S
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    hot = Workload(QUICK_COMMANDS if options.quick else COMMANDS, hot=1.0)
    for number in range(options.rounds):
        with bed.ledger(hot) as dsn:
            capacity = ours_on(bed, dsn, encoded(hot), Layout()).rate
        for workers in (1, 2):
            for name, isolated in ROUTINGS.items():
                with bed.ledger(Workload(0)) as dsn:
                    flood = Flood(seconds, FLOOD_OF_CAPACITY * capacity, isolated=isolated)
                    waited = flood.run(bed, dsn, Layout(workers))
                found[f"{name}, {workers} workers"].append({"flood_rate": flood.rate, **waited})
                print(f"round {number + 1}  {name}, {workers} workers: {waited}", flush=True)
    return found


class Flood:
    """One item at this rate, and the others beside it, for so many seconds."""

    def __init__(self, seconds: int, rate: float, *, isolated: bool) -> None:
        self.rate = rate
        self._seconds = seconds
        self._isolated = isolated

    def run(self, bed: Testbed, dsn: str, layout: Layout) -> dict[str, float | None]:
        """What the others waited for, in milliseconds. Raises WrongResult."""
        with (
            bed.topic() as topic,
            psycopg.connect(dsn, autocommit=True) as conn,
            Crew(bed, dsn, topic, layout) as crew,
        ):
            crew.wait_assigned(conn)
            told = bed.kafka, topic, self._seconds
            lane_of = partial(_lane, isolated=self._isolated)
            calls = [
                (*told, self.rate, _flood, lane_of),
                (*told, OTHERS_RATE, _others, lane_of),
            ]
            with helpers(_send, *calls) as (_, pipes):
                for pipe in pipes:
                    pipe.recv()  # it is ready
                begin = time.monotonic() + LEAD_S
                for pipe in pipes:
                    pipe.send(begin)
                sightings = Sightings()
                sent: list[list[tuple[int, int]]] = []
                until = begin + self._seconds + DRAIN_S
                while len(sent) < len(pipes) or sightings.commands < sum(map(len, sent)):
                    seen, now = conn.execute(SEEN, [topic]).fetchall(), time.monotonic()
                    sightings.note(seen, now)
                    if now > until:
                        raise RuntimeError("not all was applied in time")
                    if len(sent) < len(pipes) and pipes[len(sent)].poll():
                        sent.append(pipes[len(sent)].recv())
                    time.sleep(PAUSE_S)
            total = sum(map(len, sent))
            checks.same("applied", total, checks.number(conn, "SELECT sum(applied) FROM ledger.journal"))
        return _figures(sent[1], begin, sightings, lane_of(HOT))


def _figures(
    places: list[tuple[int, int]], begin: float, sightings: Sightings, hot_lane: int
) -> dict[str, float | None]:
    """`places`: where each of the others went, in the order of sending: lane and offset."""
    own: list[float] = []
    shared: list[float] = []
    for number, (lane, offset) in enumerate(places):
        if number < OTHERS_RATE * WARM_S:
            continue
        waited = 1000 * (sightings.first(lane, offset) - (begin + number / OTHERS_RATE))
        (shared if lane == hot_lane else own).append(waited)
    return {
        "own_p50": percentile(sorted(own), 0.5),
        "own_p99": percentile(sorted(own), 0.99),
        "shared_p50": percentile(sorted(shared), 0.5) if shared else None,
        "shared_p99": percentile(sorted(shared), 0.99) if shared else None,
        "own": len(own),
        "shared": len(shared),
    }


def _lane(goods_id: str, *, isolated: bool) -> int:
    """The lane of the goods; isolated, the hot item has the last one for itself."""
    record = Record(goods_id.encode(), b"", [])
    if not isolated:
        return record.lane(PARTITIONS)
    return PARTITIONS - 1 if goods_id == HOT else record.lane(PARTITIONS - 1)


def _flood() -> Iterator[Record]:
    """Purchases of the hot item: a thousand that were encoded, each with an id of its own."""
    yield from _with_own_ids("flood", encoded(Workload(1_000, hot=1.0)).records)


def _others() -> Iterator[Record]:
    """Purchases of the other goods."""
    yield from _with_own_ids(
        "other", [each for each in encoded(Workload(5_000)).records if each.key != HOT.encode()]
    )


def _with_own_ids(prefix: str, models: list[Record]) -> Iterator[Record]:
    heads = [[each for each in record.headers if each[0] != "ce_id"] for record in models]
    for number in count():
        n = number % len(models)
        yield models[n]._replace(headers=[*heads[n], ("ce_id", f"{prefix}-{number:09}".encode())])


def _send(
    kafka: dict[str, str],
    topic: str,
    seconds: int,
    rate: float,
    records: Callable[[], Iterator[Record]],
    lane_of: Callable[[str], int],
    pipe: Any,
) -> None:
    """A sender's process: the publisher's own settings, an open loop; answers where each record went."""
    rarely_collect_cycles()
    settings = client.complete(kafka) | {"queue.buffering.max.messages": "500000"}
    producer = client.make_producer(settings, lambda _: None)
    producer.list_topics(topic, timeout=10)
    source = records()
    lanes: dict[bytes, int] = {}
    number = round(seconds * rate)
    places: list[tuple[int, int]] = [(0, 0)] * number
    pipe.send("ready")
    begin = pipe.recv()
    for n in range(number):
        record = next(source)
        while (left := begin + n / rate - time.monotonic()) > 0:
            producer.poll(0)
            time.sleep(max(left, 0.001))
        if record.key not in lanes:
            lanes[record.key] = lane_of(record.key.decode())

        def note(_: object, message: Any, n: int = n) -> None:
            places[n] = message.partition(), message.offset()

        put(producer, topic, record, lanes[record.key], note)
    assert producer.flush(60) == 0
    pipe.send(places)
    pipe.recv()  # until we are ended


def tables(found: dict[str, Any]) -> str:
    """The grid, and what the others waited for beside a flood."""
    runs, waits = Runs.from_json(found["runs"]), found["lock_waits"]
    rows = []
    for distance, measured_ms in found["distances"].items():
        for batch in found["batches"]:
            for workers in found["workers"]:
                names = {shape: _cell(shape, workers, batch, int(distance)) for shape in SHAPES}
                cells = [f"{runs.rate(names[shape]).median:,.0f}" for shape in SHAPES]
                ratios = [f"{runs.ratio(names[SHAPES[1]], names[to]).median:.2f}" for to in SHAPES[2:]]
                locks = [f"{Spread.of(waits[names[shape]]).median:.0%}" for shape in SHAPES[1:3]]
                rows.append([f"{measured_ms:.1f}", f"{batch:,}", str(workers), *cells, *ratios, *locks])
    head = [
        "round trip, ms", "batch", "workers", *(f"{shape}, /s" for shape in SHAPES),
        *(f"same of {shape}" for shape in SHAPES[2:]),
        *(f"{shape}, in lock waits" for shape in SHAPES[1:3]),
    ]  # fmt: skip
    said = f"{found['commands']:,} commands a cell, 4 partitions; medians of the rounds."
    return f"{said}\n\n{table(head, rows)}\n\n{_flood_table(found['floods'])}\n"


def _flood_table(floods: dict[str, list[dict[str, Any]]]) -> str:
    def spread(each: list[dict[str, Any]], what: str) -> str:
        values = [run[what] for run in each if run.get(what) is not None]
        return spread_cell(Spread.of(values), 0) if values else "-"

    rows = [
        [
            name,
            *(
                spread(each, what)
                for what in ("flood_rate", "own_p50", "own_p99", "shared_p50", "shared_p99")
            ),
        ]
        for name, each in floods.items()
    ]
    head = [
        "routing", "flood, /s", "others on their own lanes: p50, ms", "p99, ms",
        "others on the hot lane: p50, ms", "p99, ms",
    ]  # fmt: skip
    said = (
        f"{OTHERS_RATE} a second of 1,000 other goods, from the intended send time to visible, while one "
        f"item is flooded for {FLOOD_S} s at {FLOOD_OF_CAPACITY} times what one worker makes of it alone. "
        "Minimum / median / maximum."
    )
    return f"{said}\n\n{table(head, rows)}"


def plot(found: dict[str, Any]) -> None:
    """The tables say it."""
