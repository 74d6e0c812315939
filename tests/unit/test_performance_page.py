"""PERFORMANCE.md and README.md say what was measured: their figures are those of benchmarks/results."""

import re
from pathlib import Path

import pytest

from benchmarks import result
from benchmarks.measure import Spread
from benchmarks.result import Runs

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/PERFORMANCE.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
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


def spread(name, contender, to):
    found = runs(name).ratio(contender, to)
    return [found.min, found.median, found.max]


def middle(name, contender, what):
    return runs(name).middle(contender, what)


def latency(contender, what):
    return Spread.of([each[what] for each in found("latency")["latency"][contender]]).median


CODECS = ("python", "native")
CODEC_CPU = [middle("codec", each, "cpu_worker_us") for each in CODECS]
STREAMS = "Kafka Streams, 2 threads"
PEERS = [f"ours {size}, {codec}" for size in ("1 x 5000", "2 x 20000") for codec in CODECS]
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
    ("The native codec", "the worker's CPU"): [*CODEC_CPU, CODEC_CPU[1] / CODEC_CPU[0]],
    ("The native codec", "commands/s"): [
        *(rate("codec", each) for each in CODECS),
        ratio("codec", "native", "python"),
    ],
    ("The native codec", "rate, of"): [ratio("codec", each, "limit") for each in CODECS],
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


def lines(page, section):
    """The rows of a section's tables, in order."""
    text = re.split(rf"^## {section}\n", page, flags=re.MULTILINE)[1].split("\n## ")[0]
    return [line for line in text.splitlines() if line.startswith("| ")]


def figures(line):
    """A row's, from the second column on."""
    return NUMBER.findall(line.split("|", 2)[2])


@pytest.mark.parametrize(("section", "row"), MEASURED)
def test_a_row_of_a_table_is_what_was_measured(section, row):
    """Its figures, from the second column on, are the medians that the result file has."""
    [line] = [line for line in lines(PAGE, section) if line.startswith(f"| {row}")]
    shown = figures(line)
    measured = MEASURED[section, row]
    assert [a for a, b in zip(shown, measured, strict=False) if not agrees(a, b)] == [], measured
    assert len(shown) >= len(measured)


def test_the_peers_are_what_was_measured():
    """Each contender's rate beside Kafka Streams, in the page and in the README, is that of the last run."""
    measured = [[*spread("peers", each, STREAMS), middle("peers", each, "cpu_worker_us")] for each in PEERS]
    measured.append([1, *(middle("peers", STREAMS, cost) for cost in ("cpu_worker_us", "cpu_broker_us"))])
    two = PEERS[3], PEERS[2]
    measured += [[ratio("peers", each, to) for each in two] for to in (STREAMS, "executemany", "naive")]
    rows = [row for line in lines(PAGE, "Beside Kafka Streams") if (row := figures(line))]
    quoted = [figures(line) for line in lines(README, "How fast")[1:]]
    measured += [[ratio("peers", each, STREAMS)] for each in ("naive", "executemany", STREAMS, *PEERS)]
    for shown, found in zip(rows + quoted, measured, strict=True):
        assert all(agrees(a, b) for a, b in zip(shown, found, strict=True)), (shown, found)


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
