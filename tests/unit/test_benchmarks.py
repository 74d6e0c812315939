"""The pure parts of the benchmarks: what they measure with must itself be right."""

import json
import os
import time
import uuid
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import hot, measure, report, result
from benchmarks.__main__ import ALL
from benchmarks.latency import Sightings, waits
from benchmarks.measure import Run, Spread, percentile
from benchmarks.peers import STREAMS
from benchmarks.plot import Series, chart
from benchmarks.result import Runs
from benchmarks.workload import Record, Workload, encoded
from ledger.domain import envelope
from ledger.domain.delivery import Request
from ledger.domain.structs import PurchaseGoodsStruct

SVG = "{http://www.w3.org/2000/svg}"
COMMANDS = 4_000
MIXED = Workload(COMMANDS, duplicates=0.3, rejections=0.2, hot=0.5, registrations=0.1)


def ids(load):
    return [dict(record.headers)["ce_id"].decode() for record in load.records]


def test_the_same_workload_is_the_same_bytes():
    """Two contenders read equal records, the ids included; another seed shares no id."""
    first = encoded(MIXED)
    encoded.cache_clear()
    again = encoded(MIXED)
    assert first is not again
    assert first == again
    assert not set(ids(first)) & set(ids(encoded(replace(MIXED, seed=8))))


def test_a_workload_says_what_each_delivery_comes_to():
    """A duplicate repeats an earlier record; only sold-out goods are refused; the pieces add up."""
    load = encoded(MIXED)
    seen: dict[str, Record] = {}
    for record, id_, outcome, pieces in zip(load.records, ids(load), load.outcomes, load.pieces, strict=True):
        request = envelope.decode(record.headers, record.value)
        assert isinstance(request, Request)
        assert (outcome == "duplicate") == (id_ in seen)
        assert seen.setdefault(id_, record) == record
        if outcome != "duplicate":
            assert (outcome == "rejected") == record.key.startswith(b"gone")
        sold = request.command.quantity if isinstance(request.command, PurchaseGoodsStruct) else 0
        assert pieces == (sold if outcome == "applied" else 0)
    assert load.head(10).expected == Counter(load.outcomes[:10])


def test_the_shares_of_a_workload_are_the_ones_asked_for():
    """Duplicates, registrations, rejections and the hot goods, each within a few per cent of its share."""
    load = encoded(MIXED)
    fresh = [
        record for record, outcome in zip(load.records, load.outcomes, strict=True) if outcome != "duplicate"
    ]
    keys = Counter(record.key for record in fresh)
    registered = sum(number for key, number in keys.items() if key.startswith(b"new"))
    purchases = len(fresh) - registered
    sold = [number for key, number in keys.items() if key.startswith(b"sku")]
    assert load.expected["duplicate"] / COMMANDS == pytest.approx(0.3, abs=0.03)
    assert registered / len(fresh) == pytest.approx(0.1, abs=0.03)
    assert load.expected["rejected"] / purchases == pytest.approx(0.2, abs=0.03)
    assert keys[b"sku0000000"] / sum(sold) == pytest.approx(0.5, abs=0.04)


def test_zipf_prefers_the_first_goods():
    """With exponent 1.1 over 100 goods the first has 24 % of the purchases and the second 0.47 times that."""
    keys = Counter(record.key for record in encoded(Workload(COMMANDS, goods=100, zipf=1.1)).records)
    first, second = keys[b"sku0000000"], keys[b"sku0000001"]
    assert first / COMMANDS == pytest.approx(1 / sum(rank**-1.1 for rank in range(1, 101)), abs=0.03)
    assert second / first == pytest.approx(2**-1.1, abs=0.1)


@pytest.mark.parametrize("version", [7, 4])
def test_ids_are_uuids_of_the_version_asked_for(version):
    """Version 7 rises as text does, which is the order of the register's primary key; 4 does not."""
    found = ids(encoded(Workload(1_000, id_version=version)))
    assert {(uuid.UUID(each).version, uuid.UUID(each).variant) for each in found} == {
        (version, uuid.RFC_4122)
    }
    assert len(set(found)) == 1_000
    assert (found == sorted(found)) == (version == 7)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([5], 0.5, 5),
        ([1, 2, 3, 4], 0.5, 2),
        (range(1, 1001), 0.99, 990),
        (range(1, 1001), 0.999, 999),
        (range(1, 11), 0.999, 10),
        ([1, 2, 3], 0, 1),
    ],
)
def test_a_percentile_is_a_value_that_was_measured(values, share, expected):
    """The smallest one that the share of all values doesn't exceed; nothing between two values."""
    assert percentile(values, share) == expected


def test_a_stall_counts_for_everyone_who_waited_behind_it():
    """No coordinated omission: time runs from when a command was meant to be sent."""
    lanes = [0, 1, 0, 0, 1]  # one every 0.1 s, from 100.0 on
    sightings = Sightings()
    for now, seen in (
        (99.9, [(0, None), (1, 0)]),
        (100.05, [(0, 1), (1, 0)]),
        (100.9, [(0, 1), (1, 2)]),
        (101.0, [(0, 3), (1, 2)]),
        (102.0, [(0, 3), (1, 2)]),
    ):
        sightings.note(seen, now)
    assert waits(lanes, 10, 100.0, sightings) == pytest.approx([0.05, 0.8, 0.8, 0.7, 0.5])
    assert (sightings.commands, sightings.last) == (5, 101.0)


def test_a_ratio_is_taken_inside_a_round():
    """A machine that is twice as fast in one round is so for both."""
    ours, limit = (10, 60, 20), (100, 200, 50)
    runs = Runs({"ours": [Run(rate, 1.0) for rate in ours], "limit": [Run(rate, 1.0) for rate in limit]})
    kept = Runs.from_json(json.loads(json.dumps(runs.as_json())))
    assert kept.ratio("ours", "limit") == Spread(0.1, 0.3, 0.4)
    assert kept.rate("ours") == Spread(10, 20, 60)


def test_rounds_run_every_contender_in_turn(capsys):
    """Every second round runs backwards, so that drift hits all alike."""
    order = []

    def run(name):
        order.append(name)
        return Run(1, 1.0)

    Runs().play(2, {name: partial(run, name) for name in "abc"})
    assert "".join(order) == "abccba"
    assert "round 2" in capsys.readouterr().out


def test_the_readme_has_a_place_for_each_benchmark_and_keeps_the_rest():
    """Only what is between the markers is replaced; without markers nothing is."""
    readme = report.README.read_text()
    for name in ALL:
        changed = report.between_markers(readme, name, "new\n")
        assert "new\n" in changed
        assert changed.partition(f"<!-- {name}: begin")[0] == readme.partition(f"<!-- {name}: begin")[0]
        assert changed.partition(f"<!-- {name}: end")[2] == readme.partition(f"<!-- {name}: end")[2]
    with pytest.raises(ValueError, match="other"):
        report.between_markers(readme, "other", "new\n")


CELLS = [f"{shape}, 2 workers, batches of 500, 2 ms" for shape in hot.SHAPES]


def found_by(name):
    """What a benchmark would have found, in two rounds."""
    run = Run(1_000, 0.5, cpu_worker_us=3.4, wal_bytes=416.0)
    percentiles = {"p50": 7.0, "p99": 15.0, "p99.9": 30.0}
    timing = {**percentiles, "sent_rate": 99.0, "applied_rate": 98.0, "sender_late_ms": 1.0, "commands": 100}
    names = {
        "throughput": ["naive", "executemany"]
        + [f"{stage} {n} x 100" for stage in ("limit", "consume", "decode", "ours") for n in (1, 2)],
        "growth": ["UUIDv7 0", "UUIDv4 0"],
        "repeats": ["clean"],
        "codec": ["python", "native", "limit"],
        "natural": ["a grown ledger, analysed", "a fresh ledger"],
        "shapes": ["uniform, 1,000 goods"],
        "hot": CELLS,
        "cache": ["get, update", "HostCache.get", "a worker alone", "beside 20 polling caches"],
        "peers": ["naive", "executemany", "limit 1 x 5000", "ours 1 x 5000, python", STREAMS],
        "producer": ["publish", "raw, reports", "raw"],
        "relay": ["relay", "raw", "a worker alone", "beside a relay", "the relay meanwhile"],
    }
    more: dict[str, dict[str, Any]] = {
        "throughput": {"batches": {"100": 1_000}, "fdatasync_us": {"median": 120.0}},
        "latency": {"rates": {"100": 1.0}, "latency": {"ours 100": [timing, timing]}},
        "growth": {"sizes": [0], "latency": {"UUIDv7 0": [timing], "UUIDv4 0": [timing]}},
        "shapes": {
            "singles": {"batch of 1, 1 workers": [run.as_json()]},
            "fdatasync_us": [{"median": 100.0}] * 2,
        },
        "natural": {"commands": 1_000},
        "soak": {
            "asked_rate": 2_000,
            "commands": 1_200,
            "seconds": 600.0,
            "reads": 9,
            "tokens": 2,
            "decreases": 0,
            "faults": 0,
            "compared": 10,
            "rounds_compared": 1,
            "ages": {"1": 1, "2": 2_000, "0": 3},
        },
        "hot": {
            "commands": 1_000,
            "workers": [2],
            "batches": [500],
            "distances": {"2": 2.3},
            "lock_waits": {cell: [0.1, 0.2] for cell in CELLS},
            "floods": {"by goods, 1 workers": [{"flood_rate": 2_000.0, "own_p50": 1.0, "own_p99": 2.0}] * 2},
        },
        "cache": {
            "seen": [{"p50": 5.0, "p99": 12.0, "rate": 20_000}] * 2,
            "loads": [{"update_s": 2.0, "update_mb": 200.0, "host_s": 3.0, "host_mb": 40.0}] * 2,
            "goods": 1_000_000,
        },
        "gateway": {
            "rate": 500,
            "latency": [{"p50": 9.0, "p99": 30.0, "max": 41.0, "rate": 500.0, "cpu_us": 800.0}] * 2,
            "slow": [{"p50": 9.5, "p99": 31.0, "max": 42.0, "rate": 200.0}] * 2,
            "capacity": {
                name: [rate] * 2
                for name, rate in (
                    ("purchases", 1_000.0),
                    ("constant, purchases", 2_000.0),
                    ("stock", 1_900.0),
                    ("constant, stock", 2_000.0),
                )
            },
        },
        "producer": {"lines": 1_000, "file_bytes": 2_000_000},
        "relay": {"commands": 1_000},
    }
    return {"runs": Runs({each: [run, run] for each in names.get(name, [])}).as_json(), **more.get(name, {})}


def test_a_section_says_how_it_was_measured_and_what_was_skipped():
    """Figures never stand without the machine, the services and what couldn't be measured."""
    machine = {
        "cores": 2, "memory_gb": 24, "load_average": 0.54, "services": "java: Kafka, PostgreSQL",
        "python": "3.11", "librdkafka": "2.16", "psycopg": "3.3", "settings": {"fsync": "on"},
    }  # fmt: skip
    found = {"machine": machine, "rounds": 3, "skipped": ["CPU time of the broker"]}
    shown = report.section("latency", found, "| a |\n|-|", True)
    for part in ("3 rounds", "2 cores", "load 0.5", "java: Kafka, PostgreSQL", "fsync on", "| a |"):
        assert part in shown
    assert "Skipped: CPU time of the broker.\n" in shown
    assert "](results/latency.svg)" in shown
    assert ".svg" not in report.section("latency", found, "", False)


@pytest.mark.parametrize("name", list(ALL))
def test_each_result_can_be_shown(name):
    """As a Markdown table whose rows are as long as its head, and as a plot where there is one."""
    found = found_by(name)
    shown, svg = ALL[name].tables(found), ALL[name].plot(found)
    figure = {"latency": "7.0 / 7.0 / 7.0", "soak": "| 2,000 |"}.get(name, "2,000 / 2,000 / 2,000")
    assert figure in shown
    widths = [line.count("|") for line in shown.splitlines() if line.startswith("|")]
    assert len(widths) > 2
    assert name in ("throughput", "shapes", "hot", "gateway") or len(set(widths)) == 1
    assert svg is None or ElementTree.fromstring(svg).tag == SVG + "svg"


def test_what_was_not_measured_is_shown_as_missing():
    """A figure that this machine can't give is a dash, never a 0."""
    assert result.cell(None) == "-"
    assert Runs({"naive": [Run(1, 1.0)]}).middle("naive", "cpu_broker_us") is None


def test_a_plot_puts_more_above_less_and_a_decade_as_far_as_the_next():
    """Both axes are logarithmic; text is escaped."""
    svg = ElementTree.fromstring(
        chart("t < u", "x", "y", [Series("a & b", [(1, 10), (10, 100), (100, 1_000)])])
    )
    x, y = ([float(circle.get(name, "")) for circle in svg.iter(SVG + "circle")] for name in ("cx", "cy"))
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.2)
    assert y[0] - y[1] == pytest.approx(y[1] - y[2], abs=0.2)
    assert x[0] < x[1]
    assert y[0] > y[1]
    assert {"t < u", "a & b"} <= {text.text for text in svg.iter(SVG + "text")}


def test_a_plot_of_nothing_is_refused():
    """A 0 has no place on a logarithmic axis."""
    with pytest.raises(ValueError, match="nothing"):
        chart("t", "x", "y", [Series("a", [(0, 1)])])


@pytest.mark.skipif(not measure.PROC.exists(), reason="this machine has no /proc")
def test_cpu_time_and_memory_are_the_process_own():
    """Work is CPU time; sleep is none."""
    me = {os.getpid()}
    before, begun = measure.cpu_s(me), time.process_time()
    while time.process_time() - begun < 0.3:
        pass
    worked = measure.cpu_s(me)
    time.sleep(0.2)
    assert worked - before == pytest.approx(0.3, abs=0.05)
    assert measure.cpu_s(me) - worked < 0.1
    peak_mb = measure.memory_peak_mb(me)
    assert peak_mb
    assert peak_mb > 10
    assert measure.memory_peak_mb({2**30}) is None
