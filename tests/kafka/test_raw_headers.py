"""Header names that aren't UTF-8: they don't count beside valid ones, and are kept byte for byte."""

import ctypes
import json

import pytest
from confluent_kafka import cimpl

from ledger import codec
from ledger.domain import envelope
from ledger.domain.delivery import Bad
from tests.support.publish import buys, fields_of, headers_of
from tests.support.workers import wait_for

pytestmark = pytest.mark.real_kafka
ODD = b"trace\xff\xfe"


@pytest.fixture
def group(new_group):
    return new_group(partitions=1)


class OddProducer:
    """Sends headers with names of any bytes, by librdkafka's own interface: the binding's has only text."""

    def __init__(self, kafka):
        self._rd = rd = ctypes.CDLL(cimpl.__file__)
        rd.rd_kafka_conf_new.restype = rd.rd_kafka_new.restype = rd.rd_kafka_headers_new.restype = (
            ctypes.c_void_p
        )
        conf = ctypes.c_void_p(rd.rd_kafka_conf_new())
        servers = kafka["bootstrap.servers"].encode()
        rd.rd_kafka_conf_set(conf, b"bootstrap.servers", servers, None, 0)
        self._client = ctypes.c_void_p(rd.rd_kafka_new(0, conf, None, 0))

    def send(self, topic, value, headers):
        rd, c_int = self._rd, ctypes.c_int
        made = ctypes.c_void_p(rd.rd_kafka_headers_new(ctypes.c_size_t(8)))
        for name, content in headers:
            rd.rd_kafka_header_add(
                made, name, ctypes.c_ssize_t(len(name)), content, ctypes.c_ssize_t(len(content))
            )
        error = rd.rd_kafka_producev(
            self._client,
            c_int(1), topic.encode(),
            c_int(3), ctypes.c_int32(0),
            c_int(4), value, ctypes.c_size_t(len(value)),
            c_int(7), c_int(2),  # copy the value
            c_int(10), made,
            c_int(0),
        )  # fmt: skip
        assert error == 0
        assert rd.rd_kafka_flush(self._client, c_int(30_000)) == 0

    def close(self):
        self._rd.rd_kafka_destroy(self._client)


@pytest.fixture
def odd(kafka):
    producer = OddProducer(kafka)
    yield producer
    producer.close()


def command(line):
    headers = [(name.encode(), value) for name, value in headers_of(line)]
    return json.dumps(fields_of(line)).encode(), headers


def test_other_headers_dont_count_whatever_their_names(group, sender, odd):
    """The purchase is applied; what is no command is dead, with every header as it was, in its place."""
    for name in ("one", "two"):
        value, headers = command(buys(name))
        odd.send(group.topic, value, [*headers, (ODD, b"x")])
    odd.send(group.topic, b"no JSON", [(b"ce_id", b"three"), (ODD, b"\xff"), (b"last", b"")])
    sender.send(buys("four"), partition=0)
    sender.flush()
    for _ in range(2):  # and what identifies the last applied record is the same at the next start
        assert group.catch_up().caught_up
    assert (
        group.ask("SELECT outcome FROM ledger.outcomes WHERE id = ANY('{one,two,four}')")
        == [("applied",)] * 3
    )
    [(names, values)] = group.ask("SELECT header_names, header_values FROM ledger.dead_letters")
    assert list(zip(names, values, strict=True)) == [(b"ce_id", b"three"), (ODD, b"\xff"), (b"last", b"")]
    checks = {each["name"]: each for each in group.cli("verify", "--topic")["checks"]}
    assert checks["topic"]["ok"]


def test_a_lane_that_ends_in_such_a_record_is_known_again(group, sender, odd):
    """Its mark covers the headers: no false halt when reading begins at it."""
    value, headers = command(buys("one"))
    odd.send(group.topic, value, [*headers, (ODD, b"x")])
    for _ in range(2):
        assert group.catch_up().caught_up
    with group.running() as running:
        running.says("assigned")
        value, headers = command(buys("two"))
        odd.send(group.topic, value, [*headers, (ODD, b"x")])
        wait_for("both", lambda: group.next_offsets() == {0: 5})


def test_such_a_record_stays_parked_and_holds_up_no_other(group, sender, odd, monkeypatch):
    """Dead to an older version, valid for this one: the client can't send it, which is said before and after;
    the others are redriven, and its command counts when it is published anew."""
    value, headers = command(buys("one"))
    odd.send(group.topic, value, [*headers, (ODD, b"x")])
    odd.send(group.topic, *command(buys("two")))
    with monkeypatch.context() as older:
        older.setattr(codec, "named", lambda _: codec.PYTHON)  # the native one wouldn't ask
        older.setattr(envelope, "decode", lambda *_: Bad("unknown_type", "not known to this version"))
        group.catch_up()
    assert group.cli("dlq", "redrive", "--all")["prospects"] == {"unsendable": 1, "valid": 1}
    told = group.cli("dlq", "redrive", "--all", "--yes", exits=1)
    assert [letter["offset"] for letter in told["redriven"]] == [4]
    assert (told["error"]["code"], told["error"]["remedy"].split()[-1]) == ("SL-CLI-003", "0@3")
    assert "UTF-8" in told["error"]["message"]
    assert group.cli("dlq", "show", "0@3")["now"] == "a valid command"
    assert [letter["offset"] for letter in group.cli("dlq", "list")["dead_letters"]] == [3]
    odd.send(group.topic, value, headers)
    group.catch_up()
    assert group.ask("SELECT outcome FROM ledger.outcomes WHERE id IN ('one', 'two')") == [("applied",)] * 2
