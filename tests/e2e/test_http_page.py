"""The how-to on selling over HTTP, typed line by line, its Python run, beside a worker."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stockledger.embedded.postgres import free_port
from tests.support import pages
from tests.support.cli import Cli
from tests.support.pages import ANYTHING, ENDS_BY_CTRL_C, Command, Reader
from tests.support.publish import Publisher, shop

PAGE = Path(__file__).parents[2] / "docs/how-to/http.md"
SERVE = "stockledger serve --source shop-uk"
TIMEOUT_S = 120


@pytest.fixture
def stockledger(services, ledger_dsn, topic, kafka_settings):
    """The command line on a ledger of the test's own, with the user and the goods of the page."""
    name = topic(4)
    servers = services.kafka.bootstrap_servers
    made = Cli(ledger_dsn, servers, name, GROUP=name, **kafka_settings)
    sender = Publisher({"bootstrap.servers": servers}, name)
    sender.send(*shop(users=("17850",), goods=("85123A",)), partition=0)
    sender.flush()
    made("run", "--until-caught-up")
    return made


def said(reader, text, language, runs):
    """What the page's program in this language prints."""
    [program] = re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)
    client = [*runs, reader.here(program)]
    done = subprocess.run(client, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    return done.stdout


def test_the_page(stockledger, tmp_path):
    """Every line ends well; what is bought is bought once; a program repeats until it has the outcome."""
    port = free_port()
    instead = {SERVE: f"{SERVE} --port {port}", "127.0.0.1:8080": f"127.0.0.1:{port}"}
    settings = {n: v for n, v in stockledger.environment.items() if n.startswith("STOCKLEDGER_")}
    text = PAGE.read_text("utf-8")
    with Reader(tmp_path, settings, instead) as reader:
        reader.goes_on("stockledger run")
        for line in pages.typed(text):
            if line.language == "sh" and ENDS_BY_CTRL_C.search(line.text):
                reader.goes_on(line.text)
            elif line.language == "sh":
                reader.types(Command(line.text, ANYTHING))
        bought = ["order-100", "order-101", "stock-22720"]
        assert said(reader, text, "python", [sys.executable, "-c"]) == "applied\n"
        if node := shutil.which("node"):
            assert said(reader, text, "js", [node, "-e"]) == "applied\n"
            bought.append("order-102")
        reader.interrupts()
    for id in bought:
        [found] = stockledger("outcome", id)["outcomes"]
        assert (found["source"], found["outcome"]) == ("shop-uk", "applied")
    assert stockledger("stock", "85123A")["on_hand"] == 1000 - (len(bought) - 1) * 6
    tokens = json.loads((tmp_path / "tokens.json").read_text())["tokens"]
    assert tokens == []  # the page revokes the one that it made
