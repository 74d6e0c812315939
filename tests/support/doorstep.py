"""In front of the HTTP door: a gateway, in this process or in one of its own, and a client.

Whatever the client is told, its status and its media type are those that the OpenAPI document has for it.
"""

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from gateway.app import application
from gateway.door import Door, Reads
from gateway.server import ServerTerms, serve
from gateway.till import Till
from gateway.tokens import Caller, Callers, Right
from ledger.api import Ledger
from ledger.cache.stock_cache import StockCache
from ledger.errors import BadSettings
from ledger.signals import Asked
from ledger.store.connection.lending import Lender
from producer.publisher import Publisher
from stockledger.reports.operations import LedgerOperations
from stockledger.settings import Settings, load
from tests.support.environment import inherited
from tests.support.workers import PATIENCE_S, Group, wait_for

SOURCE = "web"
ANYBODY = Caller("anybody", SOURCE, frozenset(Right))
JSON = "application/json"
DOCUMENT: Any = application(Door(None, None, 1, None), "").openapi()  # type: ignore[arg-type]
PURCHASE = {"user_id": "anna", "goods_id": "tea", "quantity": 1}


class Heard(NamedTuple):
    """An answer; `body` is what its JSON says, or its text."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def code(self) -> str:
        return str(self.body["code"])

    @property
    def replayed(self) -> bool:
        return self.headers.get("idempotent-replayed") == "true"


class Client:
    """Asks one gateway, each request on a connection of its own."""

    def __init__(
        self,
        address: str,
        token: str = "",
        trust: ssl.SSLContext | None = None,
        timeout_s: float = PATIENCE_S,
    ) -> None:
        self.address = address
        self.token = token
        self._timeout_s = timeout_s
        self._trust = trust

    def __call__(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] = {}) -> Heard:
        """Send it; what isn't bytes or text is sent as JSON."""
        place = urlsplit(self.address)
        given = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if body is not None and not isinstance(body, bytes | str):
            body = json.dumps(body)
        if body is not None:
            given["Content-Type"] = JSON
        encoded = body.encode() if isinstance(body, str) else body
        connection = self._connection(str(place.hostname), place.port)
        try:
            connection.request(method, path, encoded, {**given, **headers})
            answer = connection.getresponse()
            text, found = answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()
        return heard(method, path, answer.status, found, text)

    def _connection(self, host: str, port: int | None) -> http.client.HTTPConnection:
        if self._trust:
            return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._trust)
        return http.client.HTTPConnection(host, port, timeout=self._timeout_s)

    def buys(self, key: str, wait: int = 30, headers: Mapping[str, str] = {}, **fields: Any) -> Heard:
        """Anna buys a tea, or what is said otherwise."""
        given = {"Idempotency-Key": key, "Prefer": f"wait={wait}"}
        return self("POST", "/v1/purchases", PURCHASE | fields, {**given, **headers})


def heard(method: str, path: str, status: int, headers: Mapping[str, str], text: bytes) -> Heard:
    """The answer, if it is as the document has it."""
    media = headers.get("content-type", "").partition(";")[0]
    problem = media == "application/problem+json"
    assert problem == (status >= 400), (status, headers, text)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    if operation := _operation(method, path):
        told = operation["responses"].get(str(status))
        assert told, f"{method} {path} answered {status}, which isn't documented: {text!r}"
        assert media in told.get("content", {}), (media, path, status)
    body: Any = text.decode()
    if media == "application/x-ndjson":
        body = [*map(json.loads, text.splitlines())]
    elif not media.startswith("text/"):
        body = json.loads(text)
    if problem:
        assert body["status"] == status
        assert {"title", "detail", "code", "remedy", "retryable"} <= body.keys()
        assert body["retryable"] == ("retry-after" in headers)
    return Heard(status, headers, body)


def _operation(method: str, path: str) -> Any:
    template = template_of(path)
    return DOCUMENT["paths"][template].get(method.lower()) if template else None


def template_of(path: str) -> str | None:
    """The documented path that this one is of."""
    parts = path.partition("?")[0].split("/")
    for template in DOCUMENT["paths"]:
        wanted = template.split("/")
        if len(wanted) == len(parts) and all(
            theirs == ours or theirs.startswith("{") for theirs, ours in zip(wanted, parts, strict=True)
        ):
            return str(template)
    return None


def records(group: Group) -> int:
    """How many records its topic has."""
    admin = AdminClient({"bootstrap.servers": group.kafka["bootstrap.servers"], "log_level": 0})
    partitions = admin.list_topics(group.topic, timeout=PATIENCE_S).topics[group.topic].partitions
    asked = {TopicPartition(group.topic, number): OffsetSpec.latest() for number in partitions}
    return sum(each.result(PATIENCE_S).offset for each in admin.list_offsets(asked).values())


class Log:
    """What a gateway says."""

    def __init__(self) -> None:
        self.address = ""
        self.lines: list[str] = []
        self.listens = threading.Event()

    def ready(self, address: str) -> None:
        self.address = address
        self.listens.set()

    def ending(self, in_hand: int) -> None:
        self.lines.append(f"ending {in_hand}")

    def failed(self, method: str, path: str, fault: BaseException) -> None:
        self.lines.append(f"failed {method} {path} {fault!r}")

    def unreadable(self, error: BadSettings) -> None:
        self.lines.append(str(error))


def settings_of(group: Group, **given: object) -> Settings:
    """The settings by which the verbs reach the group's ledger and topic."""
    servers = f"bootstrap.servers={group.kafka['bootstrap.servers']}"
    named = {"dsn": group.dsn, "topic": group.topic, "group": group.name, "source": SOURCE}
    return load(named | given, [servers])


@contextmanager
def gateway(
    group: Group,
    *,
    dsn: str = "",
    tokens: Path | None = None,
    log: Log | None = None,
    environment: str | None = None,
    anchor: Path | None = None,
    **terms: Any,
) -> Iterator[Client]:
    """A gateway in threads of this process, on a port of its own."""
    log, stop, faults = log or Log(), Asked(), list[BaseException]()
    servers = {"bootstrap.servers": group.kafka["bootstrap.servers"]}
    till = Till(partial(Publisher, servers, group.topic), group.topic, dsn or group.dsn)
    callers = Callers(tokens, None if tokens else ANYBODY, log.unreadable)

    def run() -> None:
        try:
            cache = StockCache(dsn or group.dsn, partition="value", poll_s=0.01)
            lender = closing(Lender(dsn or group.dsn, "serve"))
            with cache, Ledger(dsn or group.dsn) as ledger, lender as lends:
                operations = LedgerOperations(settings_of(group, environment=environment), ledger, anchor)
                reads = Reads(cache, ledger, lends, operations)
                listens = ServerTerms("127.0.0.1", 0, **terms)
                serve(till, reads, callers, listens, "0", stop, log)
        except BaseException as fault:  # noqa: BLE001 (raised below)
            faults.append(fault)
            log.listens.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert log.listens.wait(PATIENCE_S)
        if not faults:
            wait_for("a connection to Kafka", lambda: till.sender.trouble is None)
            yield Client(log.address)
    finally:
        stop.set()
        thread.join(PATIENCE_S)
        till.close(5)
    if faults:
        raise faults[0]


class Served:
    """`stockledger serve` in a process of its own, and all that it has said; it may open so many `files`."""

    def __init__(
        self, group: Group, *arguments: str, port: int = 0, files: int | None = None, **settings: str
    ) -> None:
        named = {
            "DSN": group.dsn,
            "TOPIC": group.topic,
            "KAFKA_BOOTSTRAP_SERVERS": group.kafka["bootstrap.servers"],
            **settings,
        }
        environment = inherited() | {f"STOCKLEDGER_{name}": value for name, value in named.items()}
        words = ["serve", "--port", str(port), "--json", "--log-format", "json", *arguments]
        self.said: list[str] = []
        limit = f"ulimit -n {files}; " if files else ""
        self.process = subprocess.Popen(
            ["sh", "-c", f'{limit}exec "$@"', "sh", sys.executable, "-m", "stockledger", *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as stream:
            self.said.extend(stream)

    def ready(self) -> str:
        """Its address, once it listens and has connected."""

        def address() -> str:
            assert self.process.poll() is None, self.said
            lines = [json.loads(line) for line in list(self.said) if line.startswith("{")]
            return next((str(line["address"]) for line in lines if line.get("event") == "ready"), "")

        found: str = wait_for("an address", address)
        wait_for("its readiness", lambda: Client(found)("GET", "/readyz").status == 200)
        return found

    def ends(self, number: signal.Signals | None = None) -> int:
        """Its exit code, once it has got the signal."""
        if number:
            os.killpg(self.process.pid, number)
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.ends(signal.SIGKILL)
        self._reader.join(PATIENCE_S)
