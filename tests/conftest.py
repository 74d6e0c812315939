"""Services once a run, a ledger of its own for each test, a topic whenever one asks; and an honest last word.

Unit tests (`tests/unit`) never start the services. `pytest -n 4` runs tests side by side: see
`tests.support.side_by_side`.
"""

import itertools
import os
import random
import signal
import sys
import uuid
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg import sql

from ledger import codec
from stockledger.settings import load
from tests.support.lending import Line
from tests.support.services import Services, find_services

UNIT = Path(__file__).parent / "unit"
SERVICES = pytest.StashKey[Services]()
DESCRIPTION = pytest.StashKey[str]()
SEED = pytest.StashKey[int]()
LINE = pytest.StashKey[Line]()
NUMBERS = itertools.count(1)

# No test is judged by how fast a machine makes or runs its examples.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, help="seed of the random tests; the header shows the one in use")


def pytest_configure(config):
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the services are stopped, too
    # as in an active environment: else programs name themselves by their place in what they print
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    codec.choose(load().codec)
    given = config.getoption("--seed")
    config.stash[SEED] = random.randrange(2**32) if given is None else given
    if told := getattr(config, "workerinput", None):  # this is a worker of several
        os.setpgid(0, 0)  # Ctrl-C comes by the first process, once
        config.stash[SEED] = told["seed"]
        config.stash[LINE] = Line(told["lender"], told["workerid"], told["alone"])
    elif config.getoption("tx", None):
        from tests.support.side_by_side import SideBySide

        config.pluginmanager.register(SideBySide(config.stash[SEED]), "side_by_side")


def pytest_unconfigure(config):
    if LINE in config.stash:
        config.stash[LINE].close()


def pytest_report_header(config):
    return f"seed: {config.stash[SEED]}, codec: {codec.in_use.name}"


def pytest_collection_modifyitems(items):
    for item in items:
        if UNIT in item.path.parents and "services" in getattr(item, "fixturenames", []):
            raise pytest.UsageError(f"{item.nodeid} is a unit test and asks for services")


@pytest.fixture
def seed(request):
    """The run's seed, an int; `--seed` repeats a run."""
    return request.config.stash[SEED]


@pytest.fixture(scope="session")
def services(pytestconfig):
    """Kafka and Postgres of the best rung that this machine offers."""
    if LINE in pytestconfig.stash:
        yield pytestconfig.stash[LINE].borrow()
        return
    found = find_services()
    pytestconfig.stash[SERVICES] = found
    pytestconfig.stash[DESCRIPTION] = found.describe()
    yield found
    found.stop()


@pytest.fixture(autouse=True)
def _real_kafka_or_skip(request):
    """Tests marked `real_kafka` run on a real broker or say why not."""
    if request.node.get_closest_marker("real_kafka"):
        kafka = request.getfixturevalue("services").kafka
        if not kafka.real:
            pytest.skip(f"needs a real broker, not {kafka.version}")


@pytest.fixture(scope="session")
def template_database(services):
    """An empty ledger, migrated once; `ledger_dsn` copies it."""
    from ledger.store.connection.database import connect
    from ledger.store.schema.migrate import migrate

    with database(services, "template") as name:
        with connect(services.postgres.dsn(name), purpose="test") as conn:
            migrate(conn)
        yield name


@pytest.fixture
def ledger_dsn(services, template_database):
    """A fresh, migrated ledger of this test's own: its connection string."""
    with database(services, str(next(NUMBERS)), template_database) as name:
        yield services.postgres.dsn(name)


@pytest.fixture
def topic(services):
    """`topic(partitions=4) -> name`: a new, empty topic; deleted after the test."""
    made = []

    def create(partitions=4):
        name = f"commands-{uuid.uuid4().hex[:12]}"
        services.kafka.create_topic(name, partitions)
        made.append(name)
        return name

    yield create
    for name in made:
        services.kafka.delete_topic(name)


@contextmanager
def database(services, suffix, template="template0"):
    """A database of this run's own, dropped at the end whoever is still connected; yields its name."""
    name = f"stockledger_test_{os.getpid()}_{suffix}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
    with psycopg.connect(services.postgres.dsn(), autocommit=True) as admin:
        admin.execute(create)
    yield name
    with psycopg.connect(services.postgres.dsn(), autocommit=True) as admin:
        admin.execute(drop)
        for kind in ("writer", "reader"):  # a ledger's roles outlive its database
            role = sql.Identifier(f"stockledger_{kind}_{name}")
            admin.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(role))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter, config):
    """Last, after pytest's own summary: what the tests ran on, and what that leaves unproved."""
    result = yield
    terminalreporter.section("services")
    for line in verdict(terminalreporter, config):
        terminalreporter.write_line(line)
    return result


def verdict(terminalreporter, config):
    side_by_side = config.pluginmanager.getplugin("side_by_side")
    if side_by_side and side_by_side.lender.services:
        config.stash[SERVICES] = side_by_side.lender.services
        config.stash[DESCRIPTION] = side_by_side.lender.described
    if SERVICES not in config.stash:
        return ["none were used: nothing was proved on Kafka or Postgres"]
    services = config.stash[SERVICES]
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if "real_kafka" in r.keywords]
    unproved = list(services.not_proved)
    if skipped:
        unproved.append(f"{len(skipped)} tests that need a real broker: skipped")
    if terminalreporter.stats.keys() & {"failed", "error"}:
        unproved.append(f"what failed above; repeat with --seed {config.stash[SEED]}")
    return [
        *(f"not used: {why}" for why in services.refused),
        f"used: {config.stash[DESCRIPTION]}",
        *(f"not proved: {what}" for what in unproved),
    ]
