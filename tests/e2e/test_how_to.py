"""The how-tos, typed line by line: every command that they show ends well where the page says that it helps.

Others: `test_publish_page.py`; up to the restored dump, `tests/postgres/test_restore_page.py`.
"""

import json
import shutil
import tomllib
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from psycopg.conninfo import make_conninfo

from stockledger.embedded.postgres import EmbeddedPostgres
from tests.conftest import database
from tests.support import pages
from tests.support.cli import Cli
from tests.support.pages import HowTo, Reader
from tests.support.parked import listing, park
from tests.support.publish import Publisher, buys, shop

ROOT = Path(__file__).parents[2]
GOODS = "85123A"
JQ = """python -c 'import json, sys; print(json.load(open(sys.argv[2]))[sys.argv[1][1:]])' "$@" """
ACCESS = """SELECT pg_has_role('worker', 'stockledger_writer_shop', 'MEMBER'),
                   pg_has_role('analyst', 'stockledger_reader_shop', 'MEMBER')"""


def page(name):
    return ROOT / "docs/how-to" / name


@pytest.fixture
def stockledger(services, ledger_dsn, topic, kafka_settings):
    """The command line on a ledger and a topic of the test's own."""
    name = topic(4)
    return cli(ledger_dsn, services, name, kafka_settings)


def cli(dsn, services, topic, settings):
    return Cli(dsn, services.kafka.bootstrap_servers, topic, GROUP=topic, SOURCE="shop", **settings)


@pytest.fixture
def sender(services, stockledger):
    """A producer of that topic."""
    return Publisher(
        {"bootstrap.servers": services.kafka.bootstrap_servers}, stockledger.environment["STOCKLEDGER_TOPIC"]
    )


@pytest.fixture
def reader(stockledger, tmp_path):
    """Somebody who has these settings."""
    with Reader(tmp_path, settings_of(stockledger), {}) as made:
        yield made


def settings_of(stockledger):
    return {name: value for name, value in stockledger.environment.items() if name.startswith("STOCKLEDGER_")}


@pytest.fixture
def applied(stockledger, sender):
    """A shop and some purchases, all applied."""
    sender.send(*shop(goods=(GOODS,)), *(buys(f"p{n}", GOODS) for n in range(20)), partition=0)
    sender.flush()
    stockledger("run", "--until-caught-up")


@pytest.mark.slow
def test_production(services, topic, tmp_path, kafka_settings):
    """From a database that holds nothing to a ledger that is proven, and asked for its past."""
    name = f"{topic(1)}-12"
    instead = {"purchase-commands": name, "18403": "0"}
    stands_in = {} if shutil.which("jq") else {"jq": JQ}
    with EmbeddedPostgres() as server:
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("CREATE DATABASE shop")
        dsn = make_conninfo(server.dsn(), dbname="shop")
        stockledger = cli(dsn, services, name, kafka_settings)
        try:
            with Reader(tmp_path, settings_of(stockledger), instead, stands_in) as reader:
                how_to = HowTo(reader, page("production.md"))
                how_to.up_to("stockledger doctor")
                with psycopg.connect(dsn, autocommit=True) as admin:
                    for line in pages.typed(page("production.md").read_text("utf-8")):
                        if line.language == "sql":
                            admin.execute(line.text)
                    assert admin.execute(ACCESS).fetchone() == (True, True)
                stockledger("publish", "-", stdin=lines(*shop(goods=(GOODS,))))
                stockledger("run", "--until-caught-up")  # its lanes aren't the purchase's
                stockledger("publish", "-", stdin=lines(buys("p1", GOODS)))
                how_to.up_to("stockledger stock")
                reader.instead["2026-11-01"] = str(stockledger("status")["position"])
                how_to.rest()
                assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 4
                reader.interrupts()
        finally:
            with suppress(KafkaException):
                services.kafka.delete_topic(name)


def lines(*commands):
    return "\n".join(map(json.dumps, commands))


def test_upgrade(reader, stockledger, sender):
    """What an older release parked as an unknown type is published again, and counts once."""
    park(stockledger.environment, listing("late", GOODS))
    HowTo(reader, page("upgrade.md")).rest()
    assert stockledger("run", "--until-caught-up")["deliveries"]["applied"] == 1


def test_restore(reader, stockledger, applied, services):
    """What is restored doesn't join the group, until the page's commands put it in the original's place."""
    with psycopg.connect(stockledger.environment["STOCKLEDGER_DSN"]) as conn:
        original = conn.info.dbname
    with database(services, "restored", original) as name:
        copy = {"STOCKLEDGER_DSN": services.postgres.dsn(name)}
        stockledger.environment |= copy
        reader.environment |= copy
        assert stockledger("run", "--until-caught-up", exits=4)["error"]["code"] == "SL-GRP-006"
        HowTo(reader, page("restore.md"), begin="Put it in the original's place").rest()
        reader.interrupts()
        stockledger("run", "--until-caught-up")


def test_partitioning(reader, stockledger, sender):
    """Orders with their users, published in every way of the page: each counts once, and all are applied."""
    sender.send(*shop(users=(), goods=(GOODS,)))
    sender.flush()
    stockledger("run", "--until-caught-up")
    orders = [*shop(goods=()), *(buys(f"p{n}", GOODS) for n in range(20))]
    (reader.folder / "orders.jsonl").write_text(lines(*orders))
    how_to = HowTo(reader, page("partitioning.md"))
    how_to.up_to("Hot goods")
    assert stockledger("run", "--until-caught-up")["deliveries"]["applied"] == len(orders)
    how_to.rest()
    deliveries = stockledger("run", "--until-caught-up")["deliveries"]
    assert (deliveries["applied"], deliveries["duplicate"]) == (0, 2 * len(orders))


def test_rebuild(reader, stockledger, applied):
    """Planned, built thrice, rolled back; after `--drop-old` and `--cancel` one generation is left."""
    stockledger("project", "--until-caught-up")
    HowTo(reader, page("rebuild.md")).rest()
    found = {p["name"]: p for p in stockledger("status")["projections"]}
    assert found["purchases_by_user"]["generation"] == 2


def test_capacity(reader, stockledger, applied):
    """An hour is published at its rate and applied; how many connections there are is another test's."""
    (reader.folder / "hour.jsonl").write_text(lines(*(buys(f"hour-{n}", GOODS) for n in range(20))) + "\n")
    HowTo(reader, page("capacity.md")).rest()
    assert stockledger("stock", GOODS)["on_hand"] == 1000 - 40


def test_dead_letters(reader, stockledger, sender):
    """Each of the three ways out, for letters of its kind."""
    park(stockledger.environment, *(listing(f"late-{n}", f"goods-{n}") for n in range(2)))
    how_to = HowTo(reader, page("dead-letters.md"))
    reader.instead["3@5512"] = "0@1"
    how_to.up_to("stockledger dlq discard")
    sender.send_raw(b"no json", partition=3)
    sender.flush()
    assert stockledger("run", "--until-caught-up")["deliveries"]["applied"] == 2
    reader.instead["3@5512"] = "3@0"
    how_to.rest()
    letters = stockledger("dlq", "list", "--status", "all")["dead_letters"]
    assert [letter["status"] for letter in letters] == ["redriven", "redriven", "discarded"]


def test_alerts(reader, stockledger, applied):
    """What the alerts have one look at, while all is well."""
    HowTo(reader, page("alerts.md")).rest()
    reader.interrupts()


@pytest.mark.real_kafka
def test_at_night(reader, stockledger, applied, sender, services):
    """Looked at while all is well, a lane whose records are gone accepted, and the workers started again."""
    how_to = HowTo(reader, page("at-night.md"))
    how_to.up_to("Records are gone")
    reader.interrupts()
    sender.send_raw(b"read by nobody", partition=3)
    sender.flush()
    lose(services, TopicPartition(sender.topic, 3, -1))
    assert stockledger("run", "--until-caught-up", exits=4)["error"]["code"] == "SL-GRP-002"
    how_to.rest()
    sender.send(buys("after", GOODS), partition=3)
    sender.flush()
    stockledger("run", "--until-caught-up")
    assert stockledger("stock", GOODS)["on_hand"] == 1000 - 21
    reader.interrupts()


@pytest.mark.real_kafka
def test_topics(reader, stockledger, applied, sender, services, tmp_path):
    """A second topic beside one that is at work: each command names what it is about."""
    hot = f"{sender.topic}-hot"
    (tmp_path / "orders.jsonl").write_text(lines(buys("hot-1", GOODS)) + "\n")
    reader.instead |= {"purchase-commands": sender.topic, "5512": "0"}
    how_to = HowTo(reader, page("topics.md"))
    try:
        how_to.up_to("stockledger status")
        reader.interrupts()
        other = Publisher({"bootstrap.servers": services.kafka.bootstrap_servers}, hot)
        other.send_raw(b"no json", partition=3)
        other.flush()
        both = ("--topic", sender.topic, "--topic", hot)
        assert stockledger("run", "--until-caught-up", *both)["deliveries"]["dead"] == 1
        how_to.up_to("stockledger gap accept")
        other.send_raw(b"read by nobody", partition=3)
        other.flush()
        lose(services, TopicPartition(hot, 3, -1))
        assert stockledger("run", "--until-caught-up", *both, exits=4)["error"]["code"] == "SL-GRP-002"
        how_to.rest()
        assert stockledger("run", "--until-caught-up", *both)["lag"] == 0
        assert stockledger("stock", GOODS)["on_hand"] == 1000 - 21
    finally:
        with suppress(KafkaException):
            services.kafka.delete_topic(hot)


@pytest.mark.real_kafka
def test_relay(reader, stockledger, applied, sender, services):
    """The topics are made, and all that the journal has is published; a second run has nothing to add."""
    reader.instead |= {"purchase-commands": sender.topic, "18402": "0"}
    try:
        HowTo(reader, page("relay.md")).rest()
        reader.interrupts()
        assert stockledger("relay", "--until-caught-up")["events"] == 0
    finally:
        for what in ("events", "outcomes", "stock", "relay"):
            with suppress(KafkaException):
                services.kafka.delete_topic(f"{sender.topic}-{what}")


def lose(services, before):
    admin = AdminClient({"bootstrap.servers": services.kafka.bootstrap_servers})
    admin.delete_records([before])[before].result(30)


def test_own_projection(reader, stockledger, applied, tmp_path):
    """The example, in a package with the page's entry point: begun, kept current, rebuilt, removed."""
    text = page("own-projection.md").read_text("utf-8")
    entry_points = tomllib.loads(
        "\n".join(line.text for line in pages.typed(text) if line.language == "toml")
    )
    install(tmp_path / "site", entry_points["project"]["entry-points"])
    reader.environment["PYTHONPATH"] = str(tmp_path / "site")
    how_to = HowTo(reader, page("own-projection.md"))
    how_to.up_to("stockledger project --drop")
    with psycopg.connect(stockledger.environment["STOCKLEDGER_DSN"]) as conn:
        assert conn.execute("SELECT user_id, pieces FROM ledger.best_customers").fetchall() == [("anna", 20)]
    reader.interrupts()
    del reader.environment["PYTHONPATH"]
    how_to.rest()


def install(site, entry_points):
    """Put the example there as the package that it names, without an installer."""
    [(group, entries)] = entry_points.items()
    described = site / "my_package-1.0.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    told = "".join(f"{name} = {value}\n" for name, value in entries.items())
    (described / "entry_points.txt").write_text(f"[{group}]\n{told}")
    for value in entries.values():
        module = site / (value.partition(":")[0].replace(".", "/") + ".py")
        module.parent.mkdir()
        shutil.copy(ROOT / "examples/own_projection.py", module)
