"""docs/how-to/restore.md, done line by line: dumped on one server, restored on another that is empty."""

import os
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from ledger.store.connection import database
from ledger.store.schema.migrate import migrate
from stockledger.embedded.cluster import binaries
from stockledger.embedded.postgres import EmbeddedPostgres
from tests.support import pages
from tests.support.history import history
from tests.support.pages import ANYTHING, Command, Reader

PAGE = Path(__file__).parents[2] / "docs/how-to/restore.md"


def lines(heading):
    """The commands under this heading of the page."""
    text = PAGE.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [line for block in pages.indented(text) for line in block.splitlines()]


def server_of(postgres):
    """libpq's own variables, which the programs of Postgres and stockledger read alike."""
    given = conninfo_to_dict(postgres.dsn())
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD"}
    return {variable: str(given[name]) for name, variable in names.items() if given.get(name)}


@pytest.fixture
def servers():
    """The one that is dumped, and one that is empty."""
    with EmbeddedPostgres() as original, EmbeddedPostgres() as empty:
        yield original, empty


@pytest.mark.slow
def test_the_page_restores_what_it_has_dumped(servers, tmp_path):
    """Each command ends well; the restored ledger is green, and holds to the original's anchor."""
    original, empty = servers
    path = {"PATH": f"{binaries()}{os.pathsep}{os.environ['PATH']}", "PGDATABASE": "shop"}
    with Reader(tmp_path, path | server_of(original), {}) as reader:
        reader.types(Command("createdb shop", []))
        with database.connect(original.dsn("shop"), purpose="test") as conn:
            migrate(conn)
            history(conn)
        reader.types(Command("stockledger verify --anchor anchor.json", ANYTHING))
        for line in lines("Back up"):
            reader.types(Command(line, []))
        reader.environment |= server_of(empty)
        restore = lines("Restore a dump")
        assert restore[-1] == "stockledger verify --against anchor.json"
        for line in restore:
            reader.types(Command(line, ANYTHING))
