"""A newcomer's way through the command line, every answer read as a script would: exit code and `--json`."""

import base64
import json
import uuid
from contextlib import closing, contextmanager

import psycopg
import pytest
from psycopg import sql

from consumer import admin
from ledger.domain.delivery import Lane
from tests.support.cli import Cli
from tests.support.publish import Publisher, buys, says, shop

PARTITIONS = 3
SHOP = shop(users=["anna", "ben"], goods=["tea", "cup"], stock=10)
ORDERS = [
    buys("order-1", "tea", 4),
    buys("order-2", "tea", 7),  # more than is left
    buys("order-3", "cup", 1, user="ben"),
    buys("order-4", "cup", 1, user="carl"),  # nobody knows him
    says("CancelPurchase", "return-1", goods_id="tea", purchase_id="order-1"),
]


@pytest.fixture
def stockledger(services, ledger_dsn, topic, kafka_settings):
    """The command, with a topic and a migrated ledger of this test's own."""
    name = topic(PARTITIONS)
    return Cli(ledger_dsn, services.kafka.bootstrap_servers, name, GROUP=name, **kafka_settings)


@pytest.fixture
def newcomer(services, kafka_settings):
    """The command where nothing is set up yet: an empty database, and a topic that isn't there.

    (It is there on the mock broker, which takes no request to make one.)
    """
    name = f"newcomer-{uuid.uuid4().hex[:12]}"
    if not services.kafka.real:
        services.kafka.create_topic(name, PARTITIONS)
    with empty_database(services, name.replace("-", "_")) as dsn:
        yield Cli(dsn, services.kafka.bootstrap_servers, name, GROUP=name, **kafka_settings)
    services.kafka.delete_topic(name)


@contextmanager
def empty_database(services, name):
    with closing(psycopg.connect(services.postgres.dsn(), autocommit=True)) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield services.postgres.dsn(name)
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def in_topic(services):
    """`in_topic(stockledger) -> int`: how many records its topic holds."""

    def count(stockledger):
        kafka = {"bootstrap.servers": services.kafka.bootstrap_servers}
        name = stockledger.environment["STOCKLEDGER_TOPIC"]
        return sum(
            each.end
            for each in admin.watermarks(kafka, [Lane(name, p) for p in range(PARTITIONS)]).all().values()
        )

    return count


@pytest.fixture
def file(tmp_path):
    """`file(*lines) -> path`: a file of JSON lines; text goes in as it is."""

    def write(*lines, name="orders.jsonl"):
        path = tmp_path / name
        text = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        path.write_text("".join(line + "\n" for line in text))
        return path

    return write


def test_from_an_empty_database_to_proven_answers(newcomer, services, file):
    """`migrate`, `publish`, `run`, then every question has its answer: each command's outcome for good, the
    stock, what was no command (byte for byte), and that all of the topic is accounted for."""
    stockledger, topic = newcomer, newcomer.environment["STOCKLEDGER_TOPIC"]
    unready = stockledger("status", exits=4)["error"]
    assert unready["remedy"] == "stockledger migrate"
    assert stockledger("migrate", "--check", exits=1)["pending"]
    its_topic = ("--topic", topic, "--partitions", PARTITIONS) if services.kafka.real else ()
    made = stockledger("migrate", *its_topic)
    assert made["topics"][0]["partitions"] == PARTITIONS if its_topic else made["applied"]
    assert stockledger("migrate", *its_topic)["applied"] == []

    assert stockledger("publish", file(*SHOP, name="shop.jsonl"))["published"] == len(SHOP)
    waiting = stockledger("status")
    assert (waiting["lag"], waiting["position"]) == (len(SHOP), 0)
    assert stockledger("run", "--until-caught-up")["deliveries"]["applied"] == len(SHOP)
    assert stockledger("publish", file(*ORDERS))["published"] == len(ORDERS)
    stranger = Publisher({"bootstrap.servers": services.kafka.bootstrap_servers}, topic)
    stranger.send_raw(b"\xff no JSON", [("ce_id", b"odd")], key=b"\x00key", partition=1)
    stranger.flush()
    ran = stockledger("run", "--until-caught-up", "--workers", 2)
    assert ran["deliveries"] == {"applied": 3, "rejected": 2, "duplicate": 0, "conflict": 0, "dead": 1}

    status = stockledger("status")
    assert status["lag"] == 0
    assert status["rejections"] == {"insufficient_stock": 1, "user_not_found": 1}
    assert status["letters"]["parked"] == 1
    told = {id_: stockledger("outcome", id_)["outcomes"][0] for id_ in ("order-1", "order-2")}
    assert (told["order-1"]["outcome"], told["order-1"]["reason"]) == ("applied", None)
    assert (told["order-2"]["outcome"], told["order-2"]["reason"]) == ("rejected", "insufficient_stock")
    assert stockledger("stock", "tea")["on_hand"] == 10
    assert stockledger("stock", "cup")["on_hand"] == 9

    [letter] = stockledger("dlq", "list")["dead_letters"]
    shown = stockledger("dlq", "show", f"{letter['partition']}@{letter['offset']}")
    assert base64.b64decode(shown["value"]["base64"]) == b"\xff no JSON"
    assert base64.b64decode(shown["key"]["base64"]) == b"\x00key"
    assert [(h["name"], h["text"]) for h in shown["headers"]] == [("ce_id", "odd")]
    proved = stockledger("verify", "--topic")["checks"][-1]
    assert proved["figure"].startswith(f"{len(SHOP) + len(ORDERS) + 1} records, 0 no longer")


def test_questions_without_an_answer_say_so(stockledger):
    """What isn't there is exit code 4, what makes no sense 2, what can't be reached 3; each names a next
    step, and `ok` is false."""
    assert stockledger("outcome", "never-sent", exits=4)["error"]["remedy"]
    assert stockledger("stock", "never-listed", exits=4)["error"]["remedy"]
    assert stockledger("dlq", "show", "0@0", exits=4)["error"]["remedy"]
    assert stockledger("outcome", exits=2)["error"]["remedy"]
    assert stockledger("run", "--workers", 0, exits=2)["error"]["remedy"]
    nowhere = "postgresql://127.0.0.1:1/nowhere"
    gone = stockledger("outcome", "order-1", "--dsn", nowhere, exits=3)["error"]
    assert gone["retryable"]


def test_one_bad_line_and_nothing_is_published(stockledger, in_topic, file):
    """A file is published as a whole or not at all, unless `--skip-bad` says otherwise; `--dry-run` publishes
    nothing. The bad lines are named with line and column, and set aside as they are."""
    bad = '{"type":"PurchaseGoods", "id":"bad-1", "source":"shop", "goods_id":"tea", "quantity":-1}'
    path = file(*SHOP, ORDERS[0], bad, ORDERS[1])
    refused = stockledger("publish", path, exits=4)
    [line] = refused["bad_lines"]
    assert (line["line"], line["field"]) == (len(SHOP) + 2, "quantity")
    assert bad[line["column"] - 1 :].startswith('"quantity"')
    assert in_topic(stockledger) == 0

    dry = stockledger("publish", "--dry-run", "--skip-bad", path, exits=1)
    assert (dry["published"], dry["bad"]) == (0, 1)
    assert stockledger("publish", "--dry-run", file(*SHOP, name="shop.jsonl"))["lines"] == len(SHOP)
    assert in_topic(stockledger) == 0

    stockledger("publish", file(*SHOP, name="shop.jsonl"))  # its lanes aren't the purchases'
    stockledger("run", "--until-caught-up")
    skipped = stockledger("publish", "--skip-bad", path, exits=1)
    good = len(SHOP) + 2
    assert (skipped["published"], skipped["bad"]) == (good, 1)
    assert path.with_name("orders.bad.jsonl").read_text() == bad + "\n"
    assert in_topic(stockledger) == len(SHOP) + good
    counts = stockledger("run", "--until-caught-up")["deliveries"]
    assert counts == {"applied": 1, "rejected": 1, "duplicate": len(SHOP), "conflict": 0, "dead": 0}


def test_ten_times_the_same_file_counts_once(stockledger, in_topic, file):
    """However often a file is published, its commands are applied once; also the lines without an id, which
    get theirs before the first send and keep it."""
    unnamed = [{k: v for k, v in line.items() if k != "id"} for line in (ORDERS[0], ORDERS[2], ORDERS[2])]
    stockledger("publish", file(*SHOP, name="shop.jsonl"))
    stockledger("run", "--until-caught-up")
    path = file(ORDERS[0], *unnamed)
    published = [stockledger("publish", path) for _ in range(10)]
    assert [(p["published"], p["ids_made"]) for p in published] == [(4, 3)] + [(4, 0)] * 9
    assert in_topic(stockledger) == len(SHOP) + 40
    counts = stockledger("run", "--until-caught-up")["deliveries"]
    assert counts == {"applied": 4, "rejected": 0, "duplicate": 36, "conflict": 0, "dead": 0}
    assert stockledger("stock", "tea")["on_hand"] == 10 - 4 - 4
    assert stockledger("stock", "cup")["on_hand"] == 10 - 1 - 1
    stockledger("verify", "--topic")


def test_standard_input_is_as_good_as_a_file(stockledger, in_topic, tmp_path):
    """`publish -` takes the same lines; those without an id need a place to keep it, and then count once."""
    shop_lines = "".join(json.dumps(line) + "\n" for line in SHOP)
    assert stockledger("publish", "-", stdin=shop_lines)["published"] == len(SHOP)
    order = '{"type":"PurchaseGoods","user_id":"anna","goods_id":"tea","quantity":3}\n'
    homeless = stockledger("publish", "-", "--source", "till", stdin=order, exits=4)
    assert "--ids" in homeless["error"]["remedy"]
    assert in_topic(stockledger) == len(SHOP)
    for _ in range(2):
        stockledger("publish", "-", "--source", "till", "--ids", tmp_path / "till.ids", stdin=order)
    stockledger("run", "--until-caught-up")
    assert stockledger("status")["deliveries"]["duplicate"] == 1
