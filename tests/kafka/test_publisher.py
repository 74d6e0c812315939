"""What goes into Kafka, and that nothing of it is lost in silence."""

import json
import re
import socket
import subprocess
import sys
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient

from ledger.domain.commands import CloseUser, MessageKey, PurchaseGoods, ReceiveStock, RegisterUser
from ledger.domain.envelope import decode, request
from ledger.errors import BadSettings, BrokerUnavailable, Defect, TopicUnfit
from producer.jsonl import Item
from producer.publish import publish_lines
from producer.publisher import Publisher
from producer.tally import Tally
from stockledger.embedded.kafka import EmbeddedKafka
from tests.support.cli import Cli

ROOT = Path(__file__).parents[2]
PRODUCE = 0  # the protocol's key of the request
SHORT = {"message.timeout.ms": "2000"}

# Java's hashes of these keys: org.apache.kafka.common.utils.UtilsTest
MURMUR2 = {
    "21": -973932308,
    "foobar": -790332482,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    "abc": 479470107,
}


@pytest.fixture
def publisher_of(services):
    """`publisher_of(topic, **properties)`: a publisher on the tests' broker."""

    def make(topic, properties=None, source="shop"):
        servers = {"bootstrap.servers": services.kafka.bootstrap_servers}
        return Publisher(servers | (properties or {}), topic, source)

    return make


@pytest.fixture
def records_of(services):
    """`records_of(topic)`: all records, from the first to the last, of all partitions."""

    def read(topic, partitions=4):
        return read_all(services.kafka.bootstrap_servers, topic, partitions)

    return read


@pytest.fixture
def broker():
    """A broker of this test's own, which may fail."""
    with EmbeddedKafka({"commands": 4}) as broker:
        yield broker


def read_all(servers, topic, partitions):
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "none", "enable.partition.eof": True})
    try:
        consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
        records, ends = [], 0
        while ends < partitions:
            record = consumer.poll(20)
            assert record is not None, "the broker doesn't answer"
            if error := record.error():
                assert error.code() == KafkaError._PARTITION_EOF
                ends += 1
            else:
                records.append(record)
        return records
    finally:
        consumer.close()


def refused_port():
    """A port of this machine where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def stock(number):
    return ReceiveStock(goods_id=f"g{number}", quantity=1)


# On the wire


def test_a_record_carries_the_command_and_its_envelope(publisher_of, records_of, topic):
    """CloudEvents in binary mode: the headers, the fields as JSON, the key that the command's lane needs."""
    name = topic()
    command = PurchaseGoods(user_id="17850", goods_id="Tee é", quantity=6, unit_price_minor=255)
    before = datetime.now(UTC) - timedelta(milliseconds=1)  # a record's time has no more digits
    with publisher_of(name) as publisher:
        receipt = publisher.send(command, id="536365-1", source="shop-uk")
    [record] = records_of(name)
    headers = dict(record.headers())
    assert len(headers) == len(record.headers())
    sent_at = headers.pop("ce_time").decode()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", sent_at)
    assert before < datetime.fromisoformat(sent_at) <= datetime.now(UTC)
    assert headers == {
        "ce_specversion": b"1.0",
        "ce_id": b"536365-1",
        "ce_source": b"shop-uk",
        "ce_type": b"stockledger.PurchaseGoods.v1",
        "ce_subject": "Tee é".encode(),
        "content-type": b"application/json",
    }
    assert record.key() == "Tee é".encode()
    key = MessageKey("shop-uk", "536365-1")
    assert decode(record.headers(), record.value()) == request(key, command)
    assert (receipt.key, receipt.partition, receipt.offset) == (key, record.partition(), record.offset())
    assert receipt.fingerprint == request(key, command).fingerprint


def test_users_have_their_own_key(publisher_of, records_of, topic):
    """A user's commands have the user as their key, so that they stay in order."""
    name = topic()
    with publisher_of(name) as publisher:
        publisher.send(RegisterUser(user_id="u", name="Ann"))
        publisher.send(CloseUser(user_id="u"))
    register, close = records_of(name)
    assert register.key() == close.key() == b"u"
    assert register.partition() == close.partition()


def test_a_command_without_an_id_gets_a_uuid7(publisher_of, records_of, topic):
    """The id that a command was given is in its receipt; ids rise with time."""
    name = topic(partitions=1)
    with publisher_of(name) as publisher:
        receipts = [publisher.send(stock(0)) for _ in range(3)]
    ids = [receipt.key.id for receipt in receipts]
    assert [dict(record.headers())["ce_id"].decode() for record in records_of(name, 1)] == ids
    assert ids == sorted(set(ids))
    assert all(
        re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", id) for id in ids
    )


@pytest.mark.parametrize(
    "key", [{"id": ""}, {"id": "a b"}, {"id": "x" * 129}, {"source": "ü"}, {"source": ""}]
)
def test_a_key_that_would_be_dead_is_never_sent(publisher_of, topic, key):
    """An id or source that the ledger couldn't accept is refused before it is sent."""
    with publisher_of(topic()) as publisher:
        with pytest.raises(ValueError, match="visible ASCII"):
            publisher.send(stock(0), **key)
        assert publisher.tally == (0, 0, 0)


@pytest.mark.parametrize("partitions", [4, 7])
def test_keys_go_where_java_sends_them(publisher_of, topic, partitions):
    """murmur2 over the key, as Java's clients, Connect and Spring partition."""
    name = topic(partitions=partitions)
    with publisher_of(name) as publisher:
        receipts = {key: publisher.send(ReceiveStock(goods_id=key, quantity=1)) for key in MURMUR2}
    for key, hashed in MURMUR2.items():
        assert receipts[key].partition == (hashed & 0x7FFFFFFF) % partitions


# Accounts


def test_every_report_is_accounted_for(publisher_of, records_of, topic):
    """Acknowledged means: in the topic, once, at the receipt's partition and offset."""
    name = topic()
    with publisher_of(name) as publisher:
        receipts = [publisher.send(stock(number % 50), id=str(number)) for number in range(2000)]
        assert publisher.flush() == Tally(acknowledged=2000, failed=0, unknown=0)
        publisher.check()
        assert publisher.partitions == 4
    found = {(r.partition(), r.offset()): dict(r.headers())["ce_id"].decode() for r in records_of(name)}
    assert found == {(receipt.partition, receipt.offset): receipt.key.id for receipt in receipts}


def test_what_is_posted_is_the_same_record_and_accounted_for(publisher_of, records_of, topic):
    """Without a receipt a command is the same record but for its time, and each report is counted."""
    name = topic(partitions=1)
    with publisher_of(name) as publisher:
        publisher.send(stock(0), id="0", source="shop")
        for _ in range(250):
            publisher.post(Item("shop", None, stock(0)).ready(), "0")
        assert publisher.flush() == Tally(acknowledged=251, failed=0, unknown=0)
    records = records_of(name, 1)
    assert len(records) == 251
    fixed = [[header for header in record.headers() if header[0] != "ce_time"] for record in records]
    assert all((r.key(), r.value()) == (records[0].key(), records[0].value()) for r in records)
    assert all(headers == fixed[0] for headers in fixed)


def test_a_full_queue_slows_the_sender_down(publisher_of, records_of, topic):
    """With room for ten commands in the queue, five hundred go out, in the order in which they were sent."""
    name = topic(partitions=1)
    with publisher_of(name, {"queue.buffering.max.messages": "10"}) as publisher:
        for number in range(500):
            publisher.send(stock(number), id=str(number))
    assert [dict(record.headers())["ce_id"] for record in records_of(name, 1)] == [
        b"%d" % n for n in range(500)
    ]


def test_leaving_the_block_waits_for_the_acknowledgements(publisher_of, topic):
    """What was sent is in the topic when the block is left."""
    with publisher_of(topic(), {"linger.ms": "300"}) as publisher:
        receipt = publisher.send(stock(0))
        assert receipt.offset is None
        assert publisher.tally == (0, 0, 1)
    assert receipt.offset == 0


def test_an_exception_drops_what_is_still_queued(publisher_of, records_of, topic):
    """A program that fails doesn't go on publishing behind its own back."""
    name = topic()
    publisher = publisher_of(name, {"linger.ms": "60000", "message.timeout.ms": "90000"})

    def fail():
        with publisher:
            publisher.send(stock(0))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert publisher.tally == (0, 0, 1)
    assert records_of(name) == []


def test_a_refused_record_is_a_failure_of_its_own(broker):
    """A record that the broker refuses is counted as failed, not as possibly sent, and nothing follows it."""
    with Publisher({"bootstrap.servers": broker.bootstrap_servers}, "commands", "shop") as publisher:
        broker.push_request_errors(PRODUCE, KafkaError.INVALID_RECORD)
        publisher.send(stock(0))
        assert publisher.flush() == (0, 1, 0)
        with pytest.raises(Defect, match="1 refused"):
            publisher.check()
        with pytest.raises(Defect):
            publisher.send(stock(1))


# Forgotten, forked

FORGETTING = """
import multiprocessing, os, sys, threading
from ledger.domain.commands import ReceiveStock
from producer.publisher import Publisher

def publisher():
    slow = {"linger.ms": 60000, "message.timeout.ms": 90000}
    return Publisher({"bootstrap.servers": sys.argv[1]} | slow, "commands", "shop")

def send(publisher):
    for number in range(20):
        publisher.send(ReceiveStock(goods_id="g%d" % number, quantity=1), id=str(number))
    return publisher

"""
FORGETFUL = {
    "the end of the program": "kept = send(publisher())",
    "the end of a function": "send(publisher()); os._exit(0)",
    "sys.exit": "kept = send(publisher()); sys.exit(0)",
    "an exception": "kept = send(publisher()); raise ValueError",
    "a cycle": "kept = send(publisher()); kept.itself = kept; del kept",
    "a receipt that outlives it": "kept = publisher().send(ReceiveStock(goods_id='g0', quantity=1), id='0')",
    "a thread": "thread = threading.Thread(target=lambda: send(publisher())); thread.start()",
    "a process of multiprocessing": "def work():\n    global kept\n    kept = send(publisher())\n"
    "child = multiprocessing.get_context('fork').Process(target=work); child.start(); child.join()",
    "a with block that a fork leaves too": "with publisher() as kept:\n    send(kept)\n    child = os.fork()",
}


@pytest.mark.parametrize("program", FORGETFUL)
def test_a_forgotten_publisher_loses_nothing(broker, program):
    """Without `close` or a `with` block all that was sent is in the topic once the program has ended."""
    words = [sys.executable, "-W", "default", "-c", FORGETTING + FORGETFUL[program], broker.bootstrap_servers]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == (1 if "raise" in FORGETFUL[program] else 0), done.stderr
    ids = Counter(dict(r.headers())["ce_id"] for r in read_all(broker.bootstrap_servers, "commands", 4))
    assert ids == {b"%d" % number: 1 for number in range(1 if "receipt" in program else 20)}
    assert ("ResourceWarning: a Publisher of commands wasn't closed" in done.stderr) == (
        "with" not in program
    )


def test_what_a_forgotten_publisher_loses_is_told(broker):
    """Where the broker doesn't acknowledge, the account is on stderr, whatever filters warnings have."""
    lose = "kept = publisher(); kept.connect(); print(flush=True); input(); send(kept)"
    text = (FORGETTING + lose).replace("90000", "1500").replace("60000", "5")
    with subprocess.Popen(
        [sys.executable, "-c", text, broker.bootstrap_servers], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as program:  # fmt: skip
        assert program.stdout
        program.stdout.readline()
        broker.set_down()
        _, said = program.communicate("\n", timeout=60)
    assert "of 20 sent: 0 acknowledged, 0 refused, 20 in the topic or not" in said


FORKING = """
kept = publisher()
kept.connect()
child = os.fork()
if child == 0:
    for use in (lambda: send(kept), kept.flush, kept.check, kept.connect, kept.close):
        try:
            use()
        except Exception as error:
            print(type(error).__name__, flush=True)
    sys.exit(7)
print("child ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
send(kept)
kept.close()
"""


def test_a_fork_is_noticed(broker):
    """In a process that was forked off nothing seems to succeed, and it ends itself; the parent goes on."""
    program = [sys.executable, "-W", "error", "-c", FORGETTING.replace("60000", "5") + FORKING]
    done = subprocess.run(
        [*program, broker.bootstrap_servers],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines() == ["Forked"] * 5 + ["child ended 7"], done.stderr
    assert (done.returncode, done.stderr) == (0, "")
    assert len(read_all(broker.bootstrap_servers, "commands", 4)) == 20


def test_a_closed_publisher_sends_no_more(broker):
    """What is sent after `close` would be lost in silence; closing twice is harmless."""
    publisher = Publisher({"bootstrap.servers": broker.bootstrap_servers}, "commands", "shop")
    receipt = publisher.send(stock(0))
    publisher.close()
    publisher.close()
    assert receipt.offset == 0
    with pytest.raises(ValueError, match="closed"):
        publisher.send(stock(0))


# A broker in trouble


def test_no_broker_is_found_out_in_time():
    """Nobody listens: the error names address, cause, time and the step, and that nothing was published."""
    port = refused_port()
    with Publisher({"bootstrap.servers": f"127.0.0.1:{port}"} | SHORT, "commands", "shop") as publisher:
        with pytest.raises(BrokerUnavailable) as caught:
            publisher.send(stock(0))
        assert publisher.tally == (0, 0, 0)
    for part in (f"127.0.0.1:{port}", "Connection refused", "nothing was published"):
        assert part in caught.value.message
    assert re.search(r"tried \d+ s;", caught.value.message)
    assert caught.value.remedy == "start the broker, or correct bootstrap.servers"


def test_an_unknown_host_is_named():
    """DNS: the error says which name could not be resolved."""
    publisher = Publisher({"bootstrap.servers": "nowhere.invalid:9092"} | SHORT, "commands")
    with pytest.raises(BrokerUnavailable, match=r"resolve 'nowhere\.invalid:9092'") as caught:
        publisher.connect()
    assert "host name" in caught.value.remedy


def test_a_port_that_does_not_speak_kafka_is_named():
    """An HTTP server behind the port isn't reported as a message that is too large."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        servers = f"127.0.0.1:{server.getsockname()[1]}"
        publisher = Publisher({"bootstrap.servers": servers}, "commands")
        with pytest.raises(BrokerUnavailable, match="does not speak Kafka") as caught:
            publisher.connect()
        server.shutdown(socket.SHUT_RDWR)
    assert "port" in caught.value.remedy


def test_an_unknown_topic_is_found_before_anything_is_sent(publisher_of, services):
    """The topic isn't made by publishing to it; the remedy makes it."""
    publisher = publisher_of("no-such-topic")
    with pytest.raises(TopicUnfit, match="nothing was published") as caught:
        publisher.send(stock(0))
    assert caught.value.remedy == "stockledger migrate --partitions 12 --topic no-such-topic"
    admin = AdminClient({"bootstrap.servers": services.kafka.bootstrap_servers})
    assert "no-such-topic" not in admin.list_topics(timeout=60).topics


def test_a_topic_that_was_just_made_is_waited_for(broker):
    """A new topic that this broker doesn't know yet isn't taken for a missing one."""
    publisher = Publisher({"bootstrap.servers": broker.bootstrap_servers}, "new")
    making = threading.Timer(0.3, broker.create_topic, ("new", 2))
    making.start()
    publisher.connect()
    making.join()
    assert publisher.partitions == 2


def test_a_misspelt_topic_is_guessed(publisher_of, topic):
    """The name that was probably meant is in the message."""
    name = topic()
    with publisher_of(name[:-1]) as publisher, pytest.raises(TopicUnfit, match=f"did you mean {name}"):
        publisher.connect()


def test_what_is_never_acknowledged_is_unknown(broker):
    """The broker goes while commands are under way: they may be in the topic, the error says how many, and
    sending again with the same ids reaches the topic."""
    servers = {"bootstrap.servers": broker.bootstrap_servers}
    publisher = Publisher(servers | SHORT, "commands", "shop")

    def publish():
        with publisher:
            publisher.send(stock(0), id="0")
            assert publisher.flush().is_complete
            broker.set_down()
            for number in range(1, 6):
                publisher.send(stock(number), id=str(number))

    with pytest.raises(BrokerUnavailable) as caught:
        publish()
    assert "of 6 sent: 1 acknowledged, 0 refused, 5 in the topic or not" in caught.value.message
    assert "same ids" in caught.value.remedy
    assert publisher.tally == (1, 0, 5)
    broker.set_up()
    assert "make a new Publisher, this one sends no more" in caught.value.remedy  # and so it is:
    with pytest.raises(BrokerUnavailable, match="of 6 sent"):
        publisher.send(stock(0))
    with Publisher(servers, "commands", "shop") as again:
        for number in range(6):
            again.send(stock(number), id=str(number))
    ids = Counter(dict(r.headers())["ce_id"] for r in read_all(broker.bootstrap_servers, "commands", 4))
    assert set(ids) == {b"%d" % number for number in range(6)}


def test_flush_hands_the_account_to_the_caller(broker, monkeypatch):
    """After `flush` the caller knows what isn't acknowledged; leaving the block then waits for nothing."""
    with Publisher({"bootstrap.servers": broker.bootstrap_servers}, "commands", "shop") as publisher:
        publisher.connect()
        broker.set_down()
        publisher.send(stock(0))
        assert publisher.flush(0.5) == (0, 0, 1)
        with pytest.raises(BrokerUnavailable, match="no report yet") as caught:
            publisher.check()
        assert "flush again" in caught.value.remedy
        broker.set_up()
        assert publisher.flush() == (1, 0, 0)
        publisher.check()
        monkeypatch.setattr(publisher, "flush", lambda *_: pytest.fail("it waits again"))


def test_a_lost_connection_costs_no_command(broker):
    """Cut connections and passing errors are retried by the client, each command arrives once."""
    with Publisher({"bootstrap.servers": broker.bootstrap_servers}, "commands", "shop") as publisher:
        broker.push_request_errors(PRODUCE, KafkaError._TRANSPORT, KafkaError.NOT_ENOUGH_REPLICAS)
        for number in range(100):
            publisher.send(stock(number), id=str(number))
    records = read_all(broker.bootstrap_servers, "commands", 4)
    assert Counter(dict(r.headers())["ce_id"] for r in records) == {b"%d" % n: 1 for n in range(100)}


@pytest.mark.real_kafka
def test_a_frozen_broker_is_unknown_and_a_rerun_completes(services, publisher_of, records_of, topic):
    """A broker that stops answering: no command is claimed as published; the rerun brings all of them."""
    name = topic()
    with publisher_of(name, SHORT) as publisher:
        publisher.connect()
        services.kafka.pause()
        try:
            for number in range(20):
                publisher.send(stock(number), id=str(number))
            assert publisher.flush() == (0, 0, 20)
        finally:
            services.kafka.resume()
        with pytest.raises(BrokerUnavailable):
            publisher.check()
    with publisher_of(name) as again:
        for number in range(20):
            again.send(stock(number), id=str(number))
    assert {dict(r.headers())["ce_id"] for r in records_of(name)} == {b"%d" % number for number in range(20)}


# Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("acks", "1"),
        ("request.required.acks", "0"),
        ("enable.idempotence", "false"),
        ("allow.auto.create.topics", "true"),
        ("transactional.id", "t"),
        ("delivery.report.only.error", "true"),
        ("retries", "0"),
        ("max.in.flight", "6"),
        ("partitioner", "dice"),
        ("linger.ms", "-1"),
        ("dr_cb", "x"),
    ],
)
def test_a_setting_that_would_break_the_promise_is_refused(name, value):
    """The property and its variable are named; nothing connects."""
    with pytest.raises(BadSettings) as caught:
        Publisher({"bootstrap.servers": "127.0.0.1:1", name: value}, "commands")
    shown = "acks" if name.endswith("acks") else name
    assert (
        f"{shown} (-X {shown} or STOCKLEDGER_KAFKA_{shown.upper().replace('.', '_')})" in caught.value.message
    )


@pytest.mark.parametrize(
    ("name", "closest"),
    [("acks.typo", "acks"), ("compresion.type", "compression.type"), ("sasl.user.name", "sasl.username")],
)
def test_an_unknown_setting_is_answered_with_the_closest(name, closest):
    """A misspelt property isn't ignored; the right one is suggested."""
    with pytest.raises(BadSettings, match=re.escape(name)) as caught:
        Publisher({"bootstrap.servers": "127.0.0.1:1", name: "x"}, "commands")
    assert caught.value.remedy == f"did you mean {closest}?"


def test_settings_that_only_clash_together_are_refused():
    """Where no property alone is to blame, librdkafka's own words are passed on."""
    with pytest.raises(BadSettings, match="linger"):
        Publisher(
            {"bootstrap.servers": "127.0.0.1:1", "linger.ms": "9", "message.timeout.ms": "5"}, "commands"
        )


@pytest.mark.parametrize("servers", [{}, {"bootstrap.servers": ""}])
def test_a_broker_must_be_named(servers):
    """Without bootstrap servers the remedy names their variable."""
    with pytest.raises(BadSettings) as caught:
        Publisher(servers, "commands")
    assert "STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS" in caught.value.remedy


NOWHERE = {"bootstrap.servers": "127.0.0.1:1"}


@pytest.mark.parametrize(
    ("kind", "named", "arguments"),
    [
        (ValueError, "source", (NOWHERE, "commands", "my shop")),
        (TypeError, "source", (NOWHERE, "commands", 7)),
        (TypeError, "topic", (NOWHERE, None)),
        (ValueError, "topic", (NOWHERE, "")),
        (TypeError, "kafka", ("127.0.0.1:1", "commands")),
        (TypeError, "kafka", (None, "commands")),
        (TypeError, "linger.ms", (NOWHERE | {"linger.ms": None}, "commands")),
        (TypeError, "acks", (NOWHERE | {"acks": ["all"]}, "commands")),
        (TypeError, "name", (NOWHERE | {7: "x"}, "commands")),
    ],
)
def test_a_publisher_names_the_argument_that_is_wrong(kind, named, arguments):
    """Each argument is checked once, at once, not in each line."""
    with pytest.raises(kind, match=named):
        Publisher(*arguments)


@pytest.mark.parametrize(
    "said",
    [
        {"enable.idempotence": True, "acks": -1, "linger.ms": 0.5, "message.timeout.ms": 4000},
        {"acks": "all", "allow.auto.create.topics": False, "request.required.acks": -1, "retries": 9},
    ],
)
def test_properties_may_be_what_the_client_takes(said):
    """Numbers and booleans are properties as the client reads them."""
    Publisher(NOWHERE | said, "commands").close()


@pytest.mark.parametrize("said", [{"enable.idempotence": False}, {"acks": 1}, {"acks": 0}])
def test_the_promise_is_held_whatever_the_type(said):
    """A false or a number can't break what a text can't."""
    with pytest.raises(BadSettings, match=next(iter(said))):
        Publisher(NOWHERE | said, "commands")


@pytest.mark.parametrize(
    ("kind", "named", "command", "key"),
    [
        (TypeError, "id must be text or a UUID, not int", stock(0), {"id": 17}),
        (TypeError, "id must be text or a UUID, not bytes", stock(0), {"id": b"17"}),
        (ValueError, "id must be 1 to 128", stock(0), {"id": ""}),
        (TypeError, "source must be text, not int", stock(0), {"source": 17}),
        (
            TypeError,
            "command must be one of .*PurchaseGoods.*, not dict",
            {"goods_id": "g", "quantity": 1},
            {},
        ),
        (TypeError, "command .* not str", "RegisterUser", {}),
        (TypeError, "command .* not NoneType", None, {}),
        (TypeError, "command .* not ModelMetaclass", ReceiveStock, {}),
        (ValueError, "command: ReceiveStock.quantity", stock(0).model_copy(update={"quantity": 0}), {}),
        (ValueError, "command: ReceiveStock.quantity", ReceiveStock.model_construct(goods_id="g"), {}),  # type: ignore[call-arg]
        (
            ValueError,
            "command: ReceiveStock.quantity",
            ReceiveStock.model_construct(goods_id="g", quantity=True),
            {},
        ),
    ],
)
def test_what_cannot_be_sent_is_named(kind, named, command, key):
    """Nothing that would be a dead letter is sent, and no broker is asked about it."""
    publisher = Publisher(NOWHERE, "commands", "shop")
    with pytest.raises(kind, match=named):
        publisher.send(command, **key)
    assert publisher.tally == (0, 0, 0)


@pytest.mark.parametrize(
    ("kind", "wrong"), [(TypeError, "5"), (TypeError, True), (ValueError, -1), (ValueError, float("nan"))]
)
def test_a_time_that_is_none_is_named(kind, wrong):
    """`flush` names its argument."""
    with pytest.raises(kind, match="timeout_s"):
        Publisher(NOWHERE, "commands").flush(wrong)


def test_a_uuid_is_an_id(publisher_of, records_of, topic):
    """A UUID, of whichever version, is sent as its text."""
    name, id = topic(partitions=1), uuid4()
    with publisher_of(name) as publisher:
        assert publisher.send(stock(0), id=id).key.id == str(id)
    [record] = records_of(name, 1)
    assert dict(record.headers())["ce_id"] == str(id).encode()


def test_the_settings_of_the_promise_may_be_repeated(publisher_of, topic):
    """What is set anyway may be said again, under any of its names; the partitioner may be another one."""
    said = {"request.required.acks": "-1", "enable.idempotence": "True", "partitioner": "consistent_random"}
    with publisher_of(topic(), said | {"delivery.timeout.ms": "4000"}) as publisher:
        publisher.send(stock(0))
    assert publisher.timeout_s == 4


# Files


def test_a_file_published_twice_keeps_its_ids(publisher_of, records_of, topic, tmp_path):
    """End to end: lines without an id go out twice under the same ids."""
    name = topic()
    orders = tmp_path / "orders.jsonl"
    orders.write_bytes(
        b"".join(b'{"type":"RegisterUser","user_id":"u%d"}\n' % number for number in range(100))
    )
    for made in (100, 0):
        with publisher_of(name) as publisher:
            result = publish_lines(publisher, orders)
        assert (result.published, result.ids_made, result.partitions) == (100, made, 4)
    keys = Counter((record.key(), dict(record.headers())["ce_id"]) for record in records_of(name))
    assert len(keys) == 100
    assert set(keys.values()) == {2}


def test_the_account_of_a_run_whose_file_was_edited_and_its_remedy(broker, tmp_path):
    """On the command line: `--json` has the account, and who does what the remedy says sends each line once
    under one id."""
    orders = tmp_path / "orders.jsonl"
    fields = {"type": "RegisterUser", "name": "n" * 150}
    lines = [json.dumps(fields | {"user_id": f"u{number}"}) + "\n" for number in range(300)]
    orders.write_text("".join(lines))
    stockledger = Cli("", broker.bootstrap_servers, "commands", SOURCE="shop")
    words = [sys.executable, "-m", "stockledger", "publish", orders, "--rate", "50", "--json"]
    with subprocess.Popen(
        words, env=stockledger.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        while not orders.with_name("orders.jsonl.ids").exists():
            assert run.poll() is None
        while not read_all(broker.bootstrap_servers, "commands", 4):
            assert run.poll() is None
        orders.write_text("".join(line.replace(': "u', ': "v') for line in lines))
        out, said = run.communicate(timeout=60)
    answer = json.loads(out)
    sent = len(read_all(broker.bootstrap_servers, "commands", 4))
    assert (run.returncode, answer["error"]["code"]) == (4, "SL-IN-001"), said
    account = {"sent": sent, "acknowledged": sent, "failed": 0, "unknown": 0, "bad": 0}
    assert answer.items() >= account.items()
    assert "back as it was" in answer["error"]["remedy"]
    edited = stockledger("publish", orders, exits=4)
    assert (edited["error"]["code"], edited["sent"]) == ("SL-IN-002", 0)
    orders.write_text("".join(lines))
    again = stockledger("publish", orders)
    assert (again["sent"], again["acknowledged"], again["ids_made"]) == (300, 300, 0)
    records = read_all(broker.bootstrap_servers, "commands", 4)
    assert len({(record.key(), dict(record.headers())["ce_id"]) for record in records}) == 300
    assert len(records) == 300 + sent


def test_without_a_broker_the_ids_are_kept(tmp_path):
    """The rerun after an outage finds the ids that the first run made."""
    orders = tmp_path / "orders.jsonl"
    orders.write_bytes(b'{"type":"RegisterUser","user_id":"u"}\n')
    servers = {"bootstrap.servers": f"127.0.0.1:{refused_port()}"}
    with pytest.raises(BrokerUnavailable), Publisher(servers | SHORT, "commands", "shop") as publisher:
        publish_lines(publisher, orders)
    assert (tmp_path / "orders.jsonl.ids").read_bytes().count(b"\n") == 1


PUBLISHING = """
import sys
from pathlib import Path
from producer.publish import publish_lines
from producer.publisher import Publisher

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

with Publisher({"bootstrap.servers": sys.argv[1]}, sys.argv[2], "shop") as publisher:
    publisher.connect()
    before, most = resident_mb(), 0
    def watch(progress):
        global most
        most = max(most, resident_mb())
    result = publish_lines(publisher, Path(sys.argv[3]), progress=watch)
print(result.published, result.ids_made, round(most - before))
"""


@pytest.mark.slow
def test_a_long_file_takes_little_memory(services, topic, tmp_path):
    """Two hundred thousand lines without ids: the process grows by no more than its queue."""
    orders = tmp_path / "orders.jsonl"
    lines = (
        b'{"type":"ReceiveStock","goods_id":"g%d","quantity":1}\n' % (number % 997)
        for number in range(200_000)
    )
    with orders.open("wb") as file:
        file.writelines(lines)
    arguments = [sys.executable, "-c", PUBLISHING, services.kafka.bootstrap_servers, topic(), orders]
    told = subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    published, ids_made, grown_mb = map(int, told.split())
    assert (published, ids_made) == (200_000, 200_000)
    assert grown_mb < 40
