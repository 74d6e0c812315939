"""PERFORMANCE.md says what was measured: its figures of whole runs are those of benchmarks/results."""

import re
from pathlib import Path

import pytest

from benchmarks import result
from benchmarks.measure import Spread
from benchmarks.result import Runs

PAGE = (Path(__file__).parents[2] / "docs/PERFORMANCE.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def found(name):
    kept = result.kept(name)
    assert kept, f"no benchmarks/results/{name}.json"
    return kept


def runs(name):
    return Runs.from_json(found(name)["runs"])


def rate(name, contender):
    return runs(name).rate(contender).median


def ratio(name, contender, to):
    return runs(name).ratio(contender, to).median


def middle(name, contender, what):
    return runs(name).middle(contender, what)


def latency(contender, what):
    return Spread.of([each[what] for each in found("latency")["latency"][contender]]).median


ONE, TWO, LIMIT = "ours 1 x 5000", "ours 2 x 5000", "limit 1 x 5000"
MEASURED = {
    ("Throughput", "one worker, batches"): [rate("throughput", ONE), ratio("throughput", ONE, LIMIT)],
    ("Throughput", "two workers |"): [rate("throughput", TWO), ratio("throughput", TWO, "limit 2 x 5000")],
    ("Throughput", "the usual way, 500"): [
        rate("throughput", "executemany"),
        ratio("throughput", "executemany", LIMIT),
    ],
    ("Throughput", "the usual way, one"): [rate("throughput", "naive"), ratio("throughput", "naive", LIMIT)],
    ("Throughput", "0.40 of the limit"): [ratio("throughput", ONE, LIMIT)],
    ("Throughput", "90 times one transaction"): [
        ratio("throughput", ONE, "naive"),
        ratio("throughput", TWO, "naive"),
    ],
    ("Throughput", "4 times executemany"): [
        ratio("throughput", ONE, "executemany"),
        ratio("throughput", TWO, "executemany"),
    ],
    ("Throughput", "two workers 1.15"): [ratio("throughput", TWO, ONE)],
    ("Latency", "2,000"): [latency("ours 2000", "p50"), latency("ours 2000", "p99")],
    ("Latency", "20,000"): [latency("ours 20000", "p50"), latency("ours 20000", "p99")],
    ("Latency", "50,000"): [latency("ours 50000", "p50"), latency("ours 50000", "p99")],
    ("Random ids", "UUIDv7"): [ratio("growth", "UUIDv7 10000000", "UUIDv7 0")],
    ("Random ids", "UUIDv4"): [ratio("growth", "UUIDv4 10000000", "UUIDv4 0")],
    ("Publishing", "`publish`"): [
        rate("producer", "publish"),
        middle("producer", "publish", "cpu_worker_us"),
        middle("producer", "publish", "memory_mb"),
    ],
    ("Publishing", "librdkafka's producer"): [
        rate("producer", "raw, reports"),
        middle("producer", "raw, reports", "cpu_worker_us"),
        middle("producer", "raw, reports", "memory_mb"),
    ],
}
TOLD = {
    r"Duplicates are faster than what is applied, up to ([\d.]+)": ratio(
        "repeats", "100% duplicates", "clean"
    ),
    r"Rejections are so up to ([\d.]+)": ratio("repeats", "100% rejections (sold out)", "clean"),
    r"only inserts has a p50 of ([\d.]+) ms": latency("inserts 2000", "p50"),
    r"missed: (0\.\d+) \| 4,844 bytes": ratio("growth", "UUIDv4 10000000", "UUIDv7 10000000"),
    r"\| ([\d,]+) bytes \|\n\| UUIDv4": middle("growth", "UUIDv7 10000000", "wal_bytes"),
    r"0\.44 \| ([\d,]+) bytes": middle("growth", "UUIDv4 10000000", "wal_bytes"),
    r"on all lanes make (0\.\d+)": ratio("shapes", "the same goods on all lanes", "uniform, 1,000 goods"),
    r"A million goods make (0\.\d+)": ratio("shapes", "uniform, 1,000,000 goods", "uniform, 1,000 goods"),
    r"That is (0\.\d+), where the goal was a half": ratio("producer", "publish", "raw, reports"),
}


def agrees(shown, measured):
    """Whether the figure is the measured one, to the digits that it shows or to three."""
    decimals = len(shown.partition(".")[2])
    difference = abs(float(shown.replace(",", "")) - measured)
    return difference <= max(0.5 * 10**-decimals, 0.005 * measured)


@pytest.mark.parametrize(("section", "row"), MEASURED)
def test_a_row_of_a_table_is_what_was_measured(section, row):
    """Its figures, from the second column on, are the medians that the result file has."""
    text = re.split(rf"^## {section}\n", PAGE, flags=re.MULTILINE)[1].split("\n## ")[0]
    [line] = [line for line in text.splitlines() if line.startswith(f"| {row}")]
    shown = NUMBER.findall(line.split("|", 2)[2])
    measured = MEASURED[section, row]
    assert [a for a, b in zip(shown, measured, strict=False) if not agrees(a, b)] == [], measured
    assert len(shown) >= len(measured)


@pytest.mark.parametrize("sentence", TOLD)
def test_a_sentence_tells_what_was_measured(sentence):
    """So are those in sentences, and in cells between words."""
    [shown] = re.findall(sentence, PAGE)
    assert agrees(shown, TOLD[sentence]), TOLD[sentence]


@pytest.mark.parametrize(
    ("shown", "measured", "same"),
    [("90,700", 90_742, True), ("90,700", 91_742, False), ("0.41", 0.412, True), ("0.41", 0.418, False)],
)
def test_the_comparing_of_figures(shown, measured, same):
    """A figure that is rounded agrees, one of another run doesn't."""
    assert agrees(shown, measured) == same
