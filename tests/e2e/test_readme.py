"""README.md, done word for word: each of its blocks is executed, or held against what it describes."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import KafkaException

from ledger.domain import commands, envelope
from ledger.domain.delivery import Request
from stockledger.embedded.cluster import binaries
from stockledger.embedded.postgres import EmbeddedPostgres, free_port
from tests.e2e.test_compose import compose as compose  # the fixture
from tests.e2e.test_compose import projections_are_current
from tests.support import pages
from tests.support.cli import Cli
from tests.support.environment import inherited
from tests.support.workers import wait_for

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PATH = "Five minutes with your own Kafka and Postgres"
TOPIC = "purchase-commands"
TIMEOUT_S = 400
UP_TIMEOUT_S = 540
MAKE = 'echo "$@" >>made'


def blocks():
    """All of the README's, in order."""
    return pages.blocks(README)


def shell(*, own_services):
    """The path's commands as one script. Those that run until Ctrl-C go on beside the others and get it at
    the end. With services of one's own the database is made by `psql`, else by compose."""
    left_out = "docker-compose" if own_services else "psql"
    lines = ["set -em", "trap 'kill $(jobs -p) 2>/dev/null' EXIT"]
    for block in blocks():
        if block.heading == PATH and not block.language and not block.text.startswith(left_out):
            for line in block.text.splitlines():
                command = line.partition(" #")[0].rstrip()
                lines.append(f'{command} & going="$going $!"' if "until Ctrl-C" in line else line)
    lines += [
        "touch all-done; read -r _",  # until the test has looked at everything
        "for pid in $going; do kill -INT $pid; wait $pid && exit 1 || [ $? = 130 ]; done",
        "trap - EXIT",
    ]
    return "\n".join(lines)


class Walk:
    """The README's path at work, in a folder with what its commands find in a checkout. `stands_in` are
    commands that take the place of those on the PATH: the real `make` is tested elsewhere."""

    def __init__(self, folder, script, kafka, stands_in, environment):
        client = binaries()  # psql, if there is none
        path = os.pathsep.join([str(pages.made(folder, stands_in)), os.environ["PATH"], str(client)])
        self.environment = inherited() | {"PATH": path, **environment}
        self.folder = folder
        self._kafka = kafka
        (folder / "examples").symlink_to(ROOT / "examples")
        (folder / ".venv").symlink_to(sys.prefix)
        self._said = (folder / "said").open("w+")
        self._process = self._start(["bash", "-c", self._addressed(script)], stdin=subprocess.PIPE)

    def _addressed(self, text):
        """The text with the broker's address; that of Postgres comes by PGPORT."""
        assert text.count("localhost:9092") == 1
        return text.replace("localhost:9092", self._kafka)

    def _start(self, command, **streams):
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            **streams,
        )

    def said(self):
        self._said.seek(0)
        return self._said.read()

    def arrives(self):
        """Wait until every command that ends has ended well."""
        wait_for(
            "the end of the path", lambda: self._ended() or (self.folder / "all-done").exists(), TIMEOUT_S
        )
        assert not self._ended(), self.said()

    def _ended(self):
        return self._process.poll() is not None

    def runs_python(self):
        """The programs of the README print an outcome."""
        for block in blocks():
            if block.language == "python":
                program = [sys.executable, "-c", self._addressed(block.text)]
                assert self._start(program).wait(TIMEOUT_S) == 0, self.said()

    def sells_over_http(self):
        """The gateway of the README answers its request with an outcome, and ends at Ctrl-C."""
        [block] = [block for block in blocks() if block.heading == "Over HTTP"]
        serve, _, asks = block.text.replace("8080", str(port := free_port())).partition("\n")
        script = [
            f"{serve.partition(' #')[0]} --port {port} & served=$!",
            f"curl -sSf --retry 300 --retry-delay 1 --retry-all-errors http://127.0.0.1:{port}/readyz",
            asks,
            "kill -INT $served; wait $served || [ $? = 130 ]",
        ]
        [dsn] = re.findall(r"^export STOCKLEDGER_DSN=(\S+)", README, re.MULTILINE)
        kafka = {"STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS": self._kafka}
        self.environment |= {"STOCKLEDGER_DSN": dsn, **kafka}
        assert self._start(["bash", "-emc", "\n".join(script)]).wait(TIMEOUT_S) == 0, self.said()
        assert '"id":"order-44","outcome":"applied"' in self.said()

    def ends(self):
        """At Ctrl-C, what goes on ends as interrupted."""
        self._process.communicate("\n", TIMEOUT_S)
        assert self._process.returncode == 0, self.said()

    def close(self):
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._said.close()


def judge(walk, kafka, dsn):
    """What the README says is so: the order that was sent twice is bought once, and nothing lags."""
    stockledger = Cli(dsn, kafka, TOPIC)
    assert stockledger("outcome", "536365-1")["outcomes"][0]["outcome"] == "applied"
    assert stockledger("outcome", "order-42")["outcomes"][0]["outcome"] == "applied"
    assert stockledger("outcome", "order-43")["outcomes"][0]["outcome"] == "applied"
    assert stockledger("stock", "85123A")["on_hand"] == 100 - 5 * 6
    assert stockledger("status")["deliveries"]["duplicate"] == 1
    projections_are_current(stockledger)
    assert "outcome='applied'" in walk.said().replace("<Outcome.APPLIED: 'applied'>", "'applied'")
    assert (walk.folder / "made").read_text() == "demo\n"


@pytest.mark.slow
@pytest.mark.real_kafka
@pytest.mark.timeout(2 * TIMEOUT_S)
def test_the_path_on_services_of_ones_own(services, tmp_path):
    """A Postgres that holds nothing and a Kafka: role, database, schema and topic are made by the commands
    that are shown, and each of them ends well, in the order in which they stand there."""
    with EmbeddedPostgres() as server:
        superuser = psycopg.conninfo.conninfo_to_dict(server.dsn())
        settings = {"PGPORT": str(server.port), "PGPASSWORD": superuser["password"]}
        kafka = services.kafka.bootstrap_servers
        walk = Walk(tmp_path, shell(own_services=True), kafka, {"make": MAKE}, settings)
        try:
            walk.arrives()
            walk.runs_python()
            walk.sells_over_http()
            judge(walk, kafka, f"postgresql://stockledger:stockledger@localhost:{server.port}/stockledger")
            walk.ends()
        finally:
            walk.close()
            with suppress(KafkaException):
                services.kafka.delete_topic(TOPIC)


@pytest.mark.slow
@pytest.mark.timeout(UP_TIMEOUT_S + 2 * TIMEOUT_S)
def test_the_path_on_compose(compose, tmp_path_factory):
    """The same with what `docker-compose up -d --build` starts: names and passwords are those shown."""
    folder = tmp_path_factory.mktemp("walk")
    kafka, port = f"localhost:{compose.ports['KAFKA_PORT']}", compose.ports["POSTGRES_PORT"]
    stands_in = {"make": MAKE, "docker-compose": compose.as_command()}
    settings = {name: str(number) for name, number in compose.ports.items()} | {"PGPORT": str(port)}
    walk = Walk(folder, shell(own_services=False), kafka, stands_in, settings)
    try:
        walk.arrives()
        walk.runs_python()
        walk.sells_over_http()
        judge(walk, kafka, f"postgresql://stockledger:stockledger@localhost:{port}/stockledger")
        walk.ends()
    finally:
        walk.close()


def test_no_block_is_left_out():
    """Each block of the README is one that a test here executes or compares."""
    kinds = [
        "first screen" if block == blocks()[0]
        else "path" if block.heading == PATH and not block.language
        else "file" if block.language == "json"
        else block.language or block.heading
        for block in blocks()
    ]  # fmt: skip
    assert set(kinds) == {"first screen", "path", "file", "python", "Over HTTP", "From any other language"}
    assert kinds.count("file") == 2


def test_the_first_screen_has_two_commands():
    """`make demo` and `make test`, and both are there."""
    commands = [line.partition("#")[0].strip() for line in blocks()[0].text.splitlines()]
    assert commands == ["make demo", "make test"]
    for command in commands:
        done = subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_files_are_shipped_as_they_are_shown():
    """What a block shows under a file's name is that file."""
    shown = re.findall(r"\[(examples/\w+\.jsonl)\]\(\1\)[^`]*?```json\n(.*?)```", README, re.DOTALL)
    assert [name for name, _ in shown] == ["examples/setup.jsonl", "examples/orders.jsonl"]
    for name, text in shown:
        assert (ROOT / name).read_text() == text


def example():
    """The record of the section for other languages: key, headers, value."""
    [block] = [block for block in blocks() if block.heading == "From any other language"]
    fields = [line.split(maxsplit=2) for line in block.text.splitlines() if line.startswith("header")]
    parts = dict(line.split(maxsplit=1) for line in block.text.splitlines() if not line.startswith("header"))
    headers = [(name, value.encode()) for _, name, value in fields]
    return parts["key"], headers, parts["value"].encode()


def test_the_record_for_other_languages():
    """It is a command to the decoder, and to the last byte what our own publisher would have sent."""
    key, headers, value = example()
    decoded = envelope.decode(headers, value)
    assert isinstance(decoded, Request), decoded
    command = commands.PurchaseGoods(user_id="17850", goods_id="85123A", quantity=6)
    ours, payload = envelope.encode(commands.MessageKey("shop-uk", "order-43"), command)
    assert (dict(headers), value) == (dict(ours), payload)
    assert decoded == envelope.judge(ours, payload)
    assert key == commands.record_key(command)


@pytest.mark.parametrize("leave_out", ["ce_specversion", "ce_id", "ce_source", "ce_type"])
def test_no_header_of_it_is_shown_for_nothing(leave_out):
    """Those of CloudEvents are required, the content type isn't: without one the record is no command."""
    _, headers, value = example()
    assert not isinstance(envelope.decode([h for h in headers if h[0] != leave_out], value), Request)
    bare = [h for h in headers if h[0] != "content-type"]
    assert isinstance(envelope.decode(bare, value), Request)


def test_the_limits_are_those_of_the_decoder():
    """The numbers in the text are the ones in the code, and each of them is the last that passes."""
    for limit in (commands.KEY_PART_MAX, commands.QUANTITY_MAX, commands.PRICE_MINOR_MAX):
        assert f"1 to {limit:,}" in README or f"0 to {limit:,}" in README
    _, headers, _ = example()
    fields = {"user_id": "17850", "goods_id": "85123A", "quantity": 6}

    def is_command(**changes):
        value = json.dumps(fields | changes, ensure_ascii=False).encode()
        return isinstance(envelope.decode(headers, value), Request)

    for name, last, first_too_many in (
        ("user_id", "x" * 64, "x" * 65),
        ("goods_id", "é" * 64, "e\u0301"),
        ("quantity", commands.QUANTITY_MAX, commands.QUANTITY_MAX + 1),
        ("unit_price_minor", commands.PRICE_MINOR_MAX, commands.PRICE_MINOR_MAX + 1),
        ("quantity", 1, 0),
        ("quantity", 6, 6.0),
        ("goods_id", "a b", "a "),
    ):
        assert is_command(**{name: last}), (name, last)
        assert not is_command(**{name: first_too_many}), (name, first_too_many)
    assert not is_command(colour="red")


def test_every_command_of_the_table():
    """The table has the types that there are, each with its fields."""
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", README, re.MULTILINE))
    assert rows.keys() == commands.COMMANDS.keys()
    for name, text in rows.items():
        fields = commands.COMMANDS[name].model_fields
        shown = {word.strip(" ?"): word.endswith("?") for word in text.strip().split(", ")}
        assert shown == {field: not info.is_required() for field, info in fields.items()}
