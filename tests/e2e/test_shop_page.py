"""examples/shop.py under uvicorn: what its page shows while purchases run, and while the database is away."""

import html
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import HTTPCookieProcessor, ProxyHandler, Request, build_opener

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ledger.api import Ledger
from stockledger.embedded.postgres import free_port
from tests.support.environment import inherited
from tests.support.proxy import Proxy
from tests.support.publish import Publisher, buys, says, shop
from tests.support.workers import PATIENCE_S, Group, wait_for

EXAMPLES = Path(__file__).parents[2] / "examples"
USER = "17850"
STOCK = 1_000_000
ODD = "<b>/é 1"
"""An id that a page must escape, and an address too."""


class Answer(NamedTuple):
    """What a browser was given in the end."""

    status: int
    text: str
    headers: Any

    def rows(self) -> dict[str, tuple[int, str]]:
        """By goods: the number that the page shows, and where its button leads."""
        found = re.findall(r"<tr><td>(.*?)<td>(\d+)<td><form method='post' action='(.*?)'>", self.text)
        return {html.unescape(name): (int(number), html.unescape(to)) for name, number, to in found}

    def token(self) -> str:
        """The position that the page is of."""
        [token] = re.findall(r"As of (\d+-[0-9a-f]+), [\d.]+ s old", self.text)
        return str(token)


class Visitor:
    """A browser: it keeps its cookies, and goes where it is sent."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._opener = build_opener(ProxyHandler({}), HTTPCookieProcessor(CookieJar()))

    def gets(self, path: str = "/", **headers: str) -> Answer:
        return self._asks(Request(self._address + path, headers=headers))

    def posts(self, path: str) -> Answer:
        return self._asks(Request(self._address + path, data=b"", method="POST"))

    def _asks(self, request: Request) -> Answer:
        try:
            with self._opener.open(request, timeout=PATIENCE_S) as answer:
                return Answer(answer.status, answer.read().decode(), answer.headers)
        except HTTPError as error:
            with error:
                return Answer(error.code, error.read().decode(), error.headers)


@contextmanager
def running(*arguments: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python module as a process of its own; it ends by SIGTERM, and if it doesn't, the test fails."""
    environment = inherited() | {f"STOCKLEDGER_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", *arguments]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        yield process
        process.terminate()
        assert process.wait(PATIENCE_S) in (0, -signal.SIGTERM)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def serving(group: Group, *arguments: str, **settings: str) -> Iterator[str]:
    """The shop under uvicorn, once it answers; its address."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    kafka = {"KAFKA_BOOTSTRAP_SERVERS": group.kafka["bootstrap.servers"], "TOPIC": group.topic}
    words = ["uvicorn", "--app-dir", str(EXAMPLES), "shop:app", "--port", str(port), *arguments]
    with running(*words, **{"DSN": group.dsn, **kafka, **settings}) as process:

        def answers() -> bool:
            assert process.poll() is None, "it ended"
            try:
                return Visitor(address).gets("/health").status == 200
            except URLError:
                return False

        wait_for("the shop's page", answers)
        yield address


@pytest.fixture
def group(services, ledger_dsn, topic, kafka_settings):
    """A worker of its own, and whatever else a test starts of it."""
    kafka = {"bootstrap.servers": services.kafka.bootstrap_servers}
    if kafka_settings:
        kafka["group.protocol"] = "consumer"
    made = Group(ledger_dsn, kafka, topic(2))
    made.start()
    yield made
    made.close()


@pytest.fixture
def sender(group):
    """Another publisher, by which the shop was set up."""
    made = Publisher(group.kafka, group.topic)
    made.send(*shop(users=(USER,), goods=("tea",), stock=STOCK), partition=0)
    made.send(says("ListGoods", "goods-odd", goods_id=ODD), partition=0)
    made.send(says("ReceiveStock", "stock-odd", goods_id=ODD, quantity=STOCK), partition=0)
    made.send(*shop(users=("ben",), goods=("cup",), stock=1), partition=0)
    made.flush()
    group.applies(made)
    return made


def id_of(action: str) -> str:
    return action.partition("?id=")[2]


@contextmanager
def selling(sender: Publisher, goods: str) -> Iterator[None]:
    """Somebody else buys the same goods, again and again."""
    ending = threading.Event()

    def buy() -> None:
        number = 0
        while not ending.is_set():
            sender.send(buys(f"other-{number}", goods, user="ben"))
            sender.flush()
            number += 1

    thread = threading.Thread(target=buy)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def shows_his_own_purchases(address: str, group: Group, sender: Publisher) -> None:
    visitor = Visitor(address)
    first = visitor.gets()
    assert {name: number for name, (number, _) in first.rows().items()} == {
        "tea": STOCK,
        ODD: STOCK,
        "cup": 1,
    }
    page, ids = first, []
    with selling(sender, "tea"), Ledger(group.dsn) as ledger:
        for _ in range(5):
            number, action = page.rows()["tea"]
            ids.append(id_of(action))
            page = visitor.posts(action)
            assert page.status == 200, page.text
            [bought] = ledger.outcome(ids[-1], "shop-page")
            level = ledger.stock("tea", as_of=page.token())
            assert level is not None
            assert bought.version is not None
            assert level.version >= bought.version
            assert page.rows()["tea"][0] == level.on_hand < number
    group.applies(sender)
    others = sum(
        record.line is not None and record.line["id"].startswith("other-") for record in sender.sent.values()
    )
    assert others
    with Ledger(group.dsn) as ledger:
        level = ledger.stock("tea")
        assert level is not None
        assert level.on_hand == STOCK - others - len(ids)


def test_a_visitor_sees_his_own_purchase_while_others_buy(group, sender):
    """The page lists all goods; after each purchase it shows the stock as of a position that has it."""
    with serving(group) as address:
        shows_his_own_purchases(address, group, sender)


def test_workers_that_share_one_copy_show_it_too(group, sender, tmp_path, monkeypatch):
    """Two processes of uvicorn read the folder of one feeder: the token is good in both."""
    folder = str(tmp_path / "stock")
    monkeypatch.setenv("SHOP_CACHE_DIR", folder)
    with (
        running("stockledger", "cache", "--into", folder, DSN=group.dsn),
        serving(group, "--workers", "2") as address,
    ):
        shows_his_own_purchases(address, group, sender)
        assert json.loads(Visitor(address).gets("/health").text)["strategy"] == "host"


def test_a_click_counts_once_and_a_no_has_its_reason(group, sender):
    """The same button twice is one purchase; unknown goods, no stock, and another's id are told."""
    with serving(group) as address:
        visitor = Visitor(address)
        rows = visitor.gets().rows()
        odd, cup = rows[ODD][1], rows["cup"][1]
        assert [visitor.posts(odd).rows()[ODD][0] for _ in range(2)] == [STOCK - 1, STOCK - 1]
        assert visitor.posts(cup).rows()["cup"][0] == 0
        sold_out = visitor.posts(visitor.gets().rows()["cup"][1])
        assert (sold_out.status, "insufficient stock" in sold_out.text) == (409, True)
        other = visitor.posts(f"/buy/tea?id={id_of(odd)}")
        assert (other.status, "conflict" in other.text) == (409, True)
        unknown = visitor.posts(f"/buy/{'%3Cb%3E' * 200}?id={id_of(odd)}")
        assert (unknown.status, "<b>" in unknown.text) == (404, False)
        assert visitor.posts("/buy/tea?id=1").status == 422
        assert visitor.gets().rows()["tea"][0] == STOCK


@pytest.mark.parametrize("token", [f"1-{'0' * 16}", f"999999-{'0' * 16}", "nonsense"])
def test_a_token_of_another_history_is_forgotten(group, sender, token):
    """After a restore, or with a made-up cookie, the page shows what there is and drops the cookie."""
    with serving(group) as address:
        page = Visitor(address).gets(Cookie=f"token={token}")
        assert page.rows()["tea"][0] == STOCK
        assert 'token=""' in page.headers["set-cookie"]


def test_the_page_says_why_it_doesnt_know_and_comes_back(group, sender):
    """The database doesn't answer: 503 with the cause, also to who buys; afterwards all is as it was."""
    server = conninfo_to_dict(group.dsn)
    with Proxy(str(server["host"]), int(str(server["port"]))) as proxy:
        dsn = make_conninfo(group.dsn, host="127.0.0.1", port=proxy.port)
        with serving(group, DSN=dsn) as address:
            visitor = Visitor(address)
            action = visitor.gets().rows()["tea"][1]
            proxy.stall()

            def told() -> Answer | None:
                page = visitor.gets()
                return page if page.status == 503 and "database" in page.text else None

            page = wait_for("a page that says why", told)
            assert "The stock isn't known right now" in page.text
            assert "refresh" in page.text
            refused = visitor.posts(action)
            assert (refused.status, "Reload this page" in refused.text) == (503, True)
            health = visitor.gets("/health")
            assert health.status == 503
            assert "database" in json.loads(health.text)["trouble"]
            proxy.resume()
            wait_for("the page", lambda: visitor.gets().status == 200)
            assert visitor.posts(action).rows()["tea"][0] == STOCK - 1
            assert json.loads(visitor.gets("/health").text)["loads"] == 1
