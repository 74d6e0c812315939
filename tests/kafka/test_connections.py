"""How many connections of Postgres each process has: what docs/how-to/capacity.md says, a page to plan by."""

import re
from pathlib import Path

import pytest

from stockledger.relay_topics import make
from tests.support.doorstep import Served, settings_of
from tests.support.environment import inherited
from tests.support.workers import Process, wait_for

PAGE = Path(__file__).parents[2] / "docs/how-to/capacity.md"
OURS = """SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'stockledger/%%'"""
pytestmark = pytest.mark.real_kafka


def told():
    """The page's table: how many, by the command line."""
    text = (
        PAGE.read_text("utf-8").partition("<!-- connections: begin")[2].partition("<!-- connections: end")[0]
    )
    return {name: int(number) for name, number in re.findall(r"^\| `([^`]+)` \| (\d+) \|", text, re.M)}


@pytest.fixture
def group(new_group):
    return new_group(partitions=1)


def has(group, count):
    wait_for(f"{count} connections", lambda: group.ask(OURS) == [(count,)])


@pytest.mark.parametrize("line", told())
def test_a_process_has_as_many_connections_as_the_page_says(group, sender, services, tmp_path, line):
    """Once it is ready, and after it has worked; none is left when it has ended."""
    verb, *words = line.replace("DIR", str(tmp_path / "stock")).split()
    assert group.ask(OURS) == [(0,)]
    if verb == "serve":
        with Served(group, "--source", "shop") as served:
            served.ready()
            has(group, told()[line])
        return
    if verb == "relay":
        make(settings_of(group), group.topic, 1)
    environment = inherited() | {
        "STOCKLEDGER_DSN": group.dsn,
        "STOCKLEDGER_TOPIC": group.topic,
        "STOCKLEDGER_GROUP": group.name,
        "STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS": group.kafka["bootstrap.servers"],
    }
    process = Process(words, environment, verb=verb)
    try:
        process.says("ready")
        has(group, told()[line])
        process.terminates()
        has(group, 0)
    finally:
        process.close()
        for what in ("events", "outcomes", "stock", "relay") if verb == "relay" else ():
            services.kafka.delete_topic(f"{group.topic}-{what}")
