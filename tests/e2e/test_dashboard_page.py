"""The how-to on the dashboard, typed line by line, and its clicks, beside a worker."""

from pathlib import Path
from urllib.parse import urlencode

import pytest

from ledger.projections.registry import find
from ledger.rebuilding.projector import Projector
from stockledger.embedded.postgres import free_port
from tests.support import pages
from tests.support.cli import Cli
from tests.support.doorstep import Client
from tests.support.pages import ANYTHING, ENDS_BY_CTRL_C, Command, Reader
from tests.support.projections import connector
from tests.support.publish import Publisher, buys, shop
from tests.support.visitor import Visitor
from tests.support.workers import wait_for

PAGE = Path(__file__).parents[2] / "docs/how-to/dashboard.md"
SERVE = "stockledger serve --source shop-uk"


@pytest.fixture
def stockledger(services, ledger_dsn, topic, kafka_settings):
    """The command line on a ledger of the test's own, in which the customer's order came twice."""
    name = topic(4)
    servers = services.kafka.bootstrap_servers
    made = Cli(ledger_dsn, servers, name, GROUP=name, **kafka_settings)
    sender = Publisher({"bootstrap.servers": servers}, name)
    again = [buys("order-42", user="17850")] * 2
    sender.send(*shop(users=("17850",)), *again, partition=0)
    sender.flush()
    made("run", "--until-caught-up")
    Projector(connector(ledger_dsn), [find("user_events")], until_caught_up=True).run()
    return made


@pytest.mark.slow
def test_the_page(stockledger, tmp_path):
    """Every line ends well; three clicks lead from the customer's id to the one order and its repeat."""
    port = free_port()
    settings = {n: v for n, v in stockledger.environment.items() if n.startswith("STOCKLEDGER_")}
    text = PAGE.read_text("utf-8")
    address = f"http://127.0.0.1:{port}"
    with Reader(tmp_path, settings, {SERVE: f"{SERVE} --port {port}"}) as reader:
        for line in pages.typed(text):
            if line.language == "sh" and ENDS_BY_CTRL_C.search(line.text):
                reader.goes_on(line.text)
            elif line.language == "sh":
                reader.types(Command(line.text, ANYTHING))
        wait_for("the gateway", lambda: is_ready(address))
        look = Visitor(address)
        order = look(look(f"/ui/find?{urlencode({'q': '17850'})}").link("order-42"))
        assert "counted once" in order.said
        every = look(order.link("Find every delivery, repeats too"))
        assert "1 applied, 1 repeats that changed nothing" in every.said
        reader.interrupts()
    assert stockledger("outcome", "order-42")["outcomes"][0]["outcome"] == "applied"


def is_ready(address):
    try:
        return Client(address)("GET", "/readyz").status == 200
    except OSError:
        return False
