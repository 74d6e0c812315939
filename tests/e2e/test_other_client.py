"""Commands come from anywhere: clients in other languages write CloudEvents, and the ledger applies them."""

import json
import shutil
import subprocess
from contextlib import closing

import psycopg
import pytest
from confluent_kafka import Producer

from tests.support import retail
from tests.support.cli import Cli
from tests.support.publish import buys, fields_of, says
from tests.support.services import KAFKA_IMAGE

TIMEOUT_S = 60
TEA = "Thé à la menthe №5"
PURCHASE = buys("order-1", TEA, 3)
LINES = [
    says("RegisterUser", "user-anna", user_id="anna"),
    says("ListGoods", "goods-5", goods_id=TEA),
    says("ReceiveStock", "stock-5", goods_id=TEA, quantity=10),
    PURCHASE,
    buys("order-2", TEA, 8),  # more than is left
    PURCHASE,  # sent again
    says("CancelPurchase", "return-1", goods_id=TEA, purchase_id="order-1"),
]


def headers_of(line):
    """Binary mode, as the documentation shows it."""
    return {
        "ce_specversion": "1.0",
        "ce_type": f"stockledger.{line['type']}.v1",
        "ce_source": line["source"],
        "ce_id": line["id"],
        "content-type": "application/json",
    }


def key_of(line):
    return line.get("goods_id") or line["user_id"]


def value_of(line):
    return json.dumps(fields_of(line), ensure_ascii=False)


def structured(line):
    """The whole event in the value, on one line."""
    event = {
        "specversion": "1.0",
        "type": f"stockledger.{line['type']}.v1",
        "source": line["source"],
        "id": line["id"],
        "datacontenttype": "application/json",
        "data": fields_of(line),
    }
    return json.dumps(event)


def librdkafka_binary(bootstrap_servers, topic):
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    for line in LINES:
        producer.produce(topic, value_of(line), key_of(line), headers=headers_of(line))
    assert producer.flush(TIMEOUT_S) == 0


def librdkafka_structured(bootstrap_servers, topic):
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    for line in LINES:
        headers: dict[str, str | bytes | None] = {
            "content-type": "application/cloudevents+json; charset=utf-8"
        }
        producer.produce(topic, structured(line), headers=headers)
    assert producer.flush(TIMEOUT_S) == 0


def kcat_binary(bootstrap_servers, topic):
    for line in LINES:
        headers = [word for name, text in headers_of(line).items() for word in ("-H", f"{name}={text}")]
        kcat(bootstrap_servers, topic, "-k", key_of(line), *headers, said=value_of(line))


def kcat_structured(bootstrap_servers, topic):
    said = "\n".join(map(structured, LINES))
    kcat(bootstrap_servers, topic, "-H", "content-type=application/cloudevents+json", said=said)


def kcat(bootstrap_servers, topic, *words, said):
    found = shutil.which("kcat") or shutil.which("kafkacat")
    if found is None:
        pytest.skip("kcat is not installed (Debian: apt-get install kcat)")
    produce([found, "-P", "-b", bootstrap_servers, "-t", topic, *words], said)


def java_console(bootstrap_servers, topic):
    """Kafka's own console producer: headers, key and value are in the line, set apart by tabs."""
    look = ["docker", "image", "inspect", KAFKA_IMAGE]
    if not shutil.which("docker") or subprocess.run(look, capture_output=True, check=False).returncode:
        pytest.skip(f"the image {KAFKA_IMAGE} isn't here")
    command = [
        "docker", "run", "--rm", "--interactive", "--network", "host", KAFKA_IMAGE,
        "/opt/kafka/bin/kafka-console-producer.sh", "--bootstrap-server", bootstrap_servers, "--topic", topic,
        "--reader-property", "parse.headers=true", "--reader-property", "parse.key=true",
    ]  # fmt: skip
    said = []
    for line in LINES:
        headers = ",".join(f"{name}:{text}" for name, text in headers_of(line).items())
        said.append("\t".join((headers, key_of(line), value_of(line))))
    produce(command, "\n".join(said))


def produce(command, said):
    done = subprocess.run(command, input=said.encode(), capture_output=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()[-2000:]


@pytest.mark.parametrize(
    "client",
    [
        librdkafka_binary,
        librdkafka_structured,
        kcat_binary,
        kcat_structured,
        pytest.param(java_console, marks=pytest.mark.real_kafka),
    ],
)
def test_commands_of_another_client_are_applied(client, services, ledger_dsn, topic, kafka_settings):
    """Any producer in any language: CloudEvents in binary or structured mode, with headers made by hand, are
    applied once and answered as ours are."""
    name = topic(1)
    client(services.kafka.bootstrap_servers, name)
    stockledger = Cli(ledger_dsn, services.kafka.bootstrap_servers, name, GROUP=name, **kafka_settings)
    stockledger("run", "--until-caught-up")
    with closing(psycopg.connect(ledger_dsn, autocommit=True)) as conn:
        retail.judge(conn, retail.model_of(LINES), len(LINES))
    assert stockledger("verify", "--topic")["checks"][-1]["figure"].startswith(f"{len(LINES)} records")
