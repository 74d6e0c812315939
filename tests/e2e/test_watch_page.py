"""The how-to on watching, typed line by line; each metric that it asks for is one that there is."""

import re
from functools import partial
from pathlib import Path

import pytest

from ledger.telemetry import names
from stockledger.embedded.postgres import free_port
from tests.support import pages
from tests.support.cli import Cli
from tests.support.pages import ANYTHING, ENDS_BY_CTRL_C, Command, Reader
from tests.support.watching import Watcher
from tests.support.workers import wait_for

PAGE = Path(__file__).parents[2] / "docs/how-to/watch.md"
METRIC = re.compile(r"\b(?:stockledger|kafka_consumergroup)_[a-z_]+")
PART = re.compile(r"_(bucket|sum|count)$")


def is_ready(watcher):
    try:
        return watcher.ready
    except OSError:  # on a machine out of breath an answer may take longer than there is for a request
        return False


@pytest.mark.real_kafka
def test_the_page(services, ledger_dsn, topic, kafka_settings, tmp_path):
    """A worker and a projector are asked for all of their pages."""
    name = topic(2)
    stockledger = Cli(ledger_dsn, services.kafka.bootstrap_servers, name, GROUP=name, **kafka_settings)
    settings = {n: v for n, v in stockledger.environment.items() if n.startswith("STOCKLEDGER_")}
    instead = {port: str(free_port()) for port in ("9464", "9465")}
    with Reader(tmp_path, settings, instead) as reader:
        for line in pages.typed(PAGE.read_text("utf-8")):
            if line.language != "sh" or line.text.startswith("pip "):
                continue
            if ENDS_BY_CTRL_C.search(line.text):
                reader.goes_on(line.text)
                [port] = re.findall("--http ([0-9]+)", line.text)
                wait_for("readiness", partial(is_ready, Watcher(f"http://127.0.0.1:{reader.here(port)}")))
            else:
                reader.types(Command(line.text, ANYTHING))
        reader.interrupts()


def test_what_the_page_asks_for_is_there():
    """A misspelt name would show an empty chart for ever."""
    asked = set(METRIC.findall(PAGE.read_text("utf-8")))
    assert asked
    assert {
        name for name in asked if name not in names.FAMILIES and PART.sub("", name) not in names.FAMILIES
    } == set()
