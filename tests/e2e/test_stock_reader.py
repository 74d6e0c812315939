"""The example in Java that keeps the stock by the relay's topic, and what it mustn't believe."""

import json
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer

from tests.support import java_kafka
from tests.support.cli import Cli
from tests.support.pages import Reader
from tests.support.publish import Publisher, buys, shop

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/how-to/relay.md"
HEADING = "## A cache in another language"
GOODS = ("85123A", "größe/ü")
TIMEOUT_S = 400
TOPICS = ("events", "outcomes", "stock", "relay")
pytestmark = [pytest.mark.slow, pytest.mark.real_kafka, pytest.mark.timeout(2 * TIMEOUT_S)]


@pytest.fixture
def stockledger(services, ledger_dsn, topic):
    """The command line on a ledger whose stock was relayed after some purchases."""
    try:
        java_kafka.java()
    except java_kafka.NotUsable as reason:
        pytest.skip(str(reason))
    if not shutil.which("mvn"):
        pytest.skip("no mvn on the PATH to fetch Kafka's client")
    name = topic(2)
    made = Cli(ledger_dsn, services.kafka.bootstrap_servers, name, GROUP=name)
    sender = Publisher({"bootstrap.servers": services.kafka.bootstrap_servers}, name)
    sender.send(*shop(goods=GOODS), partition=0)
    sender.send(*(buys(f"p{number}", GOODS[number % 2]) for number in range(7)), partition=0)
    sender.flush()
    made("run", "--until-caught-up")
    made("migrate", "--partitions", "2", "--relay", name)
    made("relay", "--until-caught-up")
    yield made
    for what in TOPICS:
        with suppress(KafkaException):
            services.kafka.delete_topic(f"{name}-{what}")


@pytest.fixture
def reader(stockledger, tmp_path):
    """Somebody with the examples, and with the client that the page has them fetch."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    instead = {
        "localhost:9092": stockledger.environment["STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS"],
        "purchase-commands": stockledger.environment["STOCKLEDGER_TOPIC"],
    }
    with Reader(tmp_path, {}, instead) as made:
        yield made


def test_the_reader_knows_the_stock(stockledger, reader):
    """The page ends as it says. An aborted or older record changes nothing; a tombstone makes it forget."""
    reader.follows(PAGE.read_text("utf-8").partition(HEADING)[2].partition("\n## ")[0])
    told = read(reader, stockledger)
    assert told == known(stockledger)
    spoil(stockledger, "aborted", value(GOODS[0], 5, 1_000), commits=False)
    spoil(stockledger, "older", value(GOODS[0], 6, 1), commits=True)
    assert read(reader, stockledger) == told
    spoil(stockledger, "gone", None, commits=True)
    assert read(reader, stockledger) == {name: each for name, each in told.items() if name != GOODS[0]}


def known(stockledger):
    """What the ledger says."""
    return {each["goods_id"]: str(each["on_hand"]) for each in stockledger("stock")["goods"]}


def read(reader, stockledger):
    """What the example prints."""
    servers, topic = (
        stockledger.environment[f"STOCKLEDGER_{name}"] for name in ("KAFKA_BOOTSTRAP_SERVERS", "TOPIC")
    )
    done = subprocess.run(
        [
            java_kafka.java(), "-Dfile.encoding=UTF-8", "-Dsun.stdout.encoding=UTF-8", "-cp", "libs/*",
            "examples/stock-reader/StockReader.java", servers, f"{topic}-stock", "--until-caught-up",
        ],
        cwd=reader.folder, capture_output=True, encoding="utf-8", timeout=TIMEOUT_S, check=True,
    )  # fmt: skip
    return {name: on_hand for name, on_hand, *_ in (line.split("\t") for line in done.stdout.splitlines())}


def value(goods_id, on_hand, version):
    return json.dumps(
        {"goods_id": goods_id, "on_hand": on_hand, "version": version, "token": "1-" + "0" * 16}
    )


def spoil(stockledger, name, said, *, commits):
    """A record of somebody else's, in a transaction."""
    producer = Producer(
        {
            "bootstrap.servers": stockledger.environment["STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS"],
            "transactional.id": f"{name}-{stockledger.environment['STOCKLEDGER_TOPIC']}",
            "partitioner": "murmur2_random",
        }
    )
    producer.init_transactions(TIMEOUT_S)
    producer.begin_transaction()
    producer.produce(f"{stockledger.environment['STOCKLEDGER_TOPIC']}-stock", said, GOODS[0])
    producer.flush(TIMEOUT_S)
    (producer.commit_transaction if commits else producer.abort_transaction)(TIMEOUT_S)
