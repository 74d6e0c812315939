"""`compose.yaml`, as somebody meets it who has just cloned the project."""

import json
import os
import shlex
import shutil
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from stockledger.embedded.postgres import free_port
from tests.support import retail
from tests.support.cli import Cli
from tests.support.doorstep import Client
from tests.support.publish import buys, shop
from tests.support.workers import wait_for

UP_TIMEOUT_S = 540
"""The first time the image is built with everything that pip fetches."""
TIMEOUT_S = 120
PROGRAMS = ("migrate", "worker", "project", "gateway")
SHOP = shop(stock=5)
ORDERS = [buys("order-1", quantity=3), buys("order-2", quantity=3), buys("order-1", quantity=3)]


class Compose:
    """A project of its own in a copy of the checkout, on free ports, with an image of its own name."""

    def __init__(self, command: list[str], checkout: Path) -> None:
        self.ports = {name: free_port() for name in ("POSTGRES_PORT", "KAFKA_PORT", "GATEWAY_PORT")}
        self.name = f"stockledger-test-{os.getpid()}"
        own_image = {"services": {name: {"image": self.name} for name in PROGRAMS}}
        override = checkout / "override.json"  # JSON is YAML
        override.write_text(json.dumps(own_image))
        program = shutil.which(command[0]) or command[0]
        self._command = [program, *command[1:], "-p", self.name, "-f", "compose.yaml", "-f", override.name]
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

    def as_command(self) -> str:
        """What a shell's `docker-compose` has to do to mean this project."""
        return f'cd {self._checkout} && exec {shlex.join(self._command)} "$@"'

    def facts(self, service: str) -> dict[str, Any]:
        """What the engine says of the service's container, one that has ended included."""
        [container] = self("ps", "--all", "--quiet", service).split()
        said = run(["docker", "inspect", container])
        [facts] = json.loads(said.stdout)
        return dict(facts)

    def down(self) -> None:
        """Leave nothing behind but the layers that the next build begins with."""
        self("down", "--volumes", "--remove-orphans")
        remove = ["docker", "image", "rm", "--no-prune", self.name]
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
    projections_are_current(stockledger)
    the_gateway_sells(compose, stockledger)
    rights_are_the_least(compose, dsn)
    demo = run(["docker", "run", "--rm", "--network", "none", compose.name, "demo", "--json"])
    assert demo.returncode == 0, demo.stdout + demo.stderr


def projections_are_current(stockledger):
    """Somebody follows the journal, so what follows it doesn't lag for ever."""

    def lags():
        return {each["name"]: each["lag"] for each in stockledger("status")["projections"]}

    assert {"purchases_by_user", "sales_by_day"} <= lags().keys()
    wait_for("projections that are current", lambda: not any(lags().values()))


def the_gateway_sells(compose, stockledger):
    """It is healthy and lets nobody in, until somebody has made a token; then it sells."""
    door = Client(f"http://127.0.0.1:{compose.ports['GATEWAY_PORT']}")
    wait_for("its health", lambda: compose.facts("gateway")["State"]["Health"]["Status"] == "healthy")
    assert door.buys("refused").status == 401
    made = [
        "exec",
        "-T",
        "gateway",
        "stockledger",
        "token",
        "add",
        "web",
        "--source",
        "web",
        "--rights",
        "buy",
    ]
    door.token = json.loads(compose(*made, "--json"))["token"]
    told = wait_for("a token that is known", lambda: accepted(door.buys("by-compose")))
    assert (told.status, told.body["outcome"]) == (200, "applied")
    assert stockledger("outcome", "by-compose")["outcomes"][0]["source"] == "web"


def accepted(told):
    return told if told.status != 401 else None


def rights_are_the_least(compose, dsn):
    """No container may do what it doesn't need, no command line shows a password, and who applies commands
    is a role that is no superuser and owns nothing."""
    for service in (*PROGRAMS, "postgres", "kafka"):
        facts = compose.facts(service)
        host = facts["HostConfig"]
        assert host["CapDrop"] == ["ALL"], service
        assert host["SecurityOpt"] == ["no-new-privileges:true"], service
        assert not host["CapAdd"], service
        assert not host["Privileged"], service
        assert facts["Config"]["User"] not in ("", "0", "root"), service
        assert bool(host.get("Init")) == (service in PROGRAMS), service
        assert host["ReadonlyRootfs"] == (service != "kafka"), service
        words = " ".join([facts["Path"], *facts["Args"]])
        assert "stockledger_worker" not in words, service
        assert "PASSWORD" not in words.upper(), service
    as_worker = dsn.replace("stockledger:stockledger@", "stockledger_worker:stockledger_worker@")
    with closing(psycopg.connect(as_worker, autocommit=True)) as conn:
        [rights] = conn.execute(
            "SELECT rolsuper, rolcreaterole, rolcreatedb, rolbypassrls FROM pg_roles"
            " WHERE rolname = current_user"
        ).fetchall()
        assert rights == (False, False, False, False)
        assert conn.execute("SELECT FROM pg_class WHERE relowner = current_user::regrole").fetchall() == []
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("DELETE FROM ledger.event")
    with closing(psycopg.connect(dsn, autocommit=True)) as conn:
        owner = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
        assert conn.execute(owner).fetchone() == (False,)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(dsn.replace("stockledger:stockledger@", "postgres:stockledger@"))
