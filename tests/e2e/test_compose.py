"""`compose.yaml`, as somebody meets it who has just cloned the project."""

import json
import os
import shutil
import subprocess
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from stockledger.embedded.postgres import free_port
from tests.support import retail
from tests.support.cli import Cli
from tests.support.publish import buys, shop

UP_TIMEOUT_S = 540
"""The first time the image is built with everything that pip fetches."""
TIMEOUT_S = 120
SHOP = shop(stock=5)
ORDERS = [buys("order-1", quantity=3), buys("order-2", quantity=3), buys("order-1", quantity=3)]


class Compose:
    """A project of its own in a copy of the checkout, on free ports, with an image of its own name."""

    def __init__(self, command: list[str], checkout: Path) -> None:
        self.ports = {"POSTGRES_PORT": free_port(), "KAFKA_PORT": free_port()}
        self._name = f"stockledger-test-{os.getpid()}"
        own_image = {"services": {name: {"image": self._name} for name in ("migrate", "worker")}}
        override = checkout / "override.json"  # JSON is YAML
        override.write_text(json.dumps(own_image))
        self._command = [*command, "-p", self._name, "-f", "compose.yaml", "-f", override.name]
        self._checkout = checkout

    def __call__(self, *words: str, timeout_s: int = TIMEOUT_S) -> str:
        """What the command prints; it must end well."""
        done = subprocess.run(
            [*self._command, *words],
            cwd=self._checkout,
            env={**os.environ, **{name: str(port) for name, port in self.ports.items()}},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {(done.stdout + done.stderr)[-4000:]}"
        return done.stdout

    def down(self) -> None:
        """Leave nothing behind but the layers that the next build begins with."""
        self("down", "--volumes", "--remove-orphans")
        remove = ["docker", "image", "rm", "--no-prune", self._name]
        subprocess.run(remove, capture_output=True, timeout=TIMEOUT_S, check=False)  # there may be none


def compose_command() -> list[str]:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and not run([*command, "version"]).returncode:
            return command
    pytest.skip("neither `docker compose` nor docker-compose is there")


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=retail.ROOT, capture_output=True, text=True, check=False)


def copy_checkout(to: Path) -> Path:
    """What git would hand to the next person: the files that are tracked, or would be, and no others."""
    listed = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
    if listed.returncode:
        pytest.skip("this is no git checkout, so there is no telling what belongs to it")
    for name in filter(None, listed.stdout.split("\0")):
        if (retail.ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(retail.ROOT / name, to / name)
    return to


@pytest.fixture
def compose(tmp_path):
    if not shutil.which("docker") or run(["docker", "info"]).returncode:
        pytest.skip("no Docker engine answers")
    project = Compose(compose_command(), copy_checkout(tmp_path))
    try:
        yield project
    finally:
        project.down()


@pytest.mark.slow
@pytest.mark.timeout(UP_TIMEOUT_S + 2 * TIMEOUT_S)
def test_a_clean_copy_comes_up_and_applies_what_the_host_publishes(compose):
    """`docker compose up --build` in a clean copy is all it takes: schema and topic are made, and what is
    published from the host is applied by the worker's container, once, and proven record by record."""
    compose("up", "--detach", "--build", timeout_s=UP_TIMEOUT_S)
    dsn = f"postgresql://stockledger:stockledger@localhost:{compose.ports['POSTGRES_PORT']}/stockledger"
    stockledger = Cli(dsn, f"localhost:{compose.ports['KAFKA_PORT']}", "purchase-commands")
    total = 0
    with closing(psycopg.connect(dsn, autocommit=True)) as conn:
        for lines in (SHOP, ORDERS):
            text = "".join(json.dumps(line) + "\n" for line in lines)
            total += stockledger("publish", "-", stdin=text)["published"]
            retail.wait_for_deliveries(conn, total)
        retail.judge(conn, retail.model_of([*SHOP, *ORDERS]), total)
        [(host,)] = conn.execute("SELECT DISTINCT owner_host FROM ledger.lane").fetchall()
    assert compose("ps", "--quiet", "worker").startswith(host)
    assert stockledger("status")["lag"] == 0
    assert stockledger("verify", "--topic")["checks"][-1]["name"] == "topic"
