"""docs/tutorial.md, done word for word on a Postgres that holds nothing: each file, command and answer."""

import os
import sys
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import KafkaException

from stockledger.embedded.cluster import binaries
from stockledger.embedded.postgres import EmbeddedPostgres
from tests.support.cli import Cli
from tests.support.pages import Reader

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.real_kafka
@pytest.mark.timeout(900)
def test_the_tutorial_is_as_it_says(services, tmp_path):
    """Every command ends well and answers what the page shows; the order that was sent four times over is
    bought once."""
    topic = f"tutorial-{os.getpid()}"
    kafka = services.kafka.bootstrap_servers
    instead = {
        "localhost:9092": kafka,
        "purchase-commands": topic,
        "next: stockledger doctor": f"next: stockledger doctor --topic {topic}",
    }
    with EmbeddedPostgres() as server:
        password = str(psycopg.conninfo.conninfo_to_dict(server.dsn())["password"])
        client = binaries()
        settings = {
            "PGPORT": str(server.port),
            "PGPASSWORD": password,
            "PATH": f"{os.environ['PATH']}{os.pathsep}{client}",
            "STOCKLEDGER_TOPIC": topic,
        }
        (tmp_path / ".venv").symlink_to(sys.prefix)
        try:
            with Reader(tmp_path, settings, instead, {"make": "exit 0"}) as reader:
                reader.follows(PAGE)
                dsn = f"postgresql://stockledger:stockledger@localhost:{server.port}/stockledger"
                assert Cli(dsn, kafka, topic)("status")["deliveries"]["duplicate"] == 2
                reader.interrupts()
        finally:
            with suppress(KafkaException):
                services.kafka.delete_topic(topic)
