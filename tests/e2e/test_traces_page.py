"""The how-to on traces, typed line by line beside a collector; and what turns the traces on."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from consumer.traces import LINKS_MAX
from tests.support import pages
from tests.support.cli import Cli
from tests.support.environment import inherited
from tests.support.pages import ANYTHING, Command, Reader
from tests.support.publish import Publisher, buys, shop
from tests.support.spans import collector

PAGE = Path(__file__).parents[2] / "docs/how-to/traces.md"
COUNT = 20


@pytest.fixture
def stockledger(services, ledger_dsn, topic, kafka_settings):
    """The command line on a ledger and a topic of the test's own, with a shop in it."""
    name = topic(2)
    made = Cli(
        ledger_dsn, services.kafka.bootstrap_servers, name, GROUP=name, SOURCE="shop", **kafka_settings
    )
    sender = Publisher({"bootstrap.servers": services.kafka.bootstrap_servers}, name)
    sender.send(*shop(), partition=0)
    sender.flush()
    made("run", "--until-caught-up")
    return made


@pytest.fixture
def orders(tmp_path):
    """A file of orders."""
    path = tmp_path / "orders.jsonl"
    path.write_text("".join(json.dumps(buys(f"p{number}")) + "\n" for number in range(COUNT)))
    return path


def test_the_page(stockledger, orders, tmp_path):
    """The orders' spans and those of the batches that applied them come to the collector, with the links."""
    name = stockledger.environment["STOCKLEDGER_TOPIC"]
    settings = {n: v for n, v in stockledger.environment.items() if n.startswith("STOCKLEDGER_")}
    with collector() as collected:
        with Reader(tmp_path, settings, {"http://localhost:4318": collected.address}) as reader:
            for line in pages.typed(PAGE.read_text("utf-8")):
                if line.language == "sh" and not line.text.startswith("pip "):
                    reader.types(Command(line.text, ANYTHING))
        sent = [
            each
            for who, each in collected.spans
            if (who, each.name) == ("stockledger-publish", f"send {name}")
        ]
        done = [
            each
            for who, each in collected.spans
            if (who, each.name) == ("stockledger-run", f"process {name}")
        ]
    assert len({span.span_id for span in sent}) == COUNT
    linked = [link.span_id for span in done for link in span.links]
    assert sorted(linked) == sorted(span.span_id for span in sent)
    assert stockledger("status")["lanes"]


def test_each_worker_process_sends_its_own(stockledger, orders, kafka_settings):
    """What several workers applied is all in the collector, once they have ended."""
    environment = stockledger.environment
    kafka = {"bootstrap.servers": environment["STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS"]}
    if protocol := kafka_settings.get("KAFKA_GROUP_PROTOCOL"):
        kafka["group.protocol"] = protocol
    name = environment["STOCKLEDGER_TOPIC"]
    with collector() as collected:
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collected.address
        stockledger("publish", str(orders))
        stockledger("run", "--until-caught-up", "--workers", "2")
        applied = [
            each.value.int_value
            for who, span in collected.spans
            if (who, span.name) == ("stockledger-run", f"process {name}")
            for each in span.attributes
            if each.key == "stockledger.applied"
        ]
    assert sum(applied) == COUNT


def test_a_collector_that_is_away_holds_up_nobody(stockledger, orders):
    """Commands are published and applied as without; stdout has the answer alone."""
    stockledger.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
    assert stockledger("publish", str(orders))["acknowledged"] == COUNT
    assert stockledger("run", "--until-caught-up")["deliveries"]["applied"] == COUNT


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, ""),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, ""),
        ({"OTEL_TRACES_EXPORTER": "pigeon", "OTEL_SDK_DISABLED": "true"}, ""),
        ({"OTEL_TRACES_EXPORTER": "pigeon"}, "no traces: there is no exporter pigeon"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
         "no traces: there is no exporter otlp_proto_grpc"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_and_stops_nothing(variables, said):
    """Nothing is exported, what is done meanwhile is done, and the next step is named."""
    script = (
        "from ledger.telemetry.exporting import exported\nfrom ledger.telemetry.tracing import tracer\n"
        "with exported('x', print): print('done', tracer())"
    )
    environment = {n: v for n, v in inherited().items() if not n.startswith("OTEL_")} | variables
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    first = done.stdout.removesuffix("done None\n")
    assert first.startswith(said)
    assert bool(first) == bool(said)
    assert not said or "stockledger[otel]" in first


def test_the_bound_of_the_page_is_the_worker_s():
    """How many links a span has."""
    assert re.findall(r"at most (\d+) links", PAGE.read_text("utf-8")) == [str(LINKS_MAX)]
