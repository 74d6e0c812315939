"""A ledger that is dumped while workers run, and restored elsewhere: whole, mended, and in nobody's way."""

import subprocess
import threading
from pathlib import Path

import pytest

from ledger.errors import RestoredCopy
from ledger.store.connection import database
from ledger.store.schema import migrate, rights
from ledger.store.tables import identity
from ledger.verify.run import BUDGETS, verify
from stockledger.embedded.cluster import binaries
from stockledger.embedded.postgres import EmbeddedPostgres
from tests.support.batches import Lanes
from tests.support.history import buys, history
from tests.support.services import DEBIAN_POSTGRES


@pytest.fixture
def fresh():
    """Another server, on which nothing was ever made."""
    with EmbeddedPostgres() as server:
        yield server


def test_a_restored_copy_is_whole_and_waits(services, ledger_dsn, fresh):
    """`pg_dump | pg_restore --no-owner` beside a busy worker, into a fresh server: after one `migrate` verify
    is green; the copy doesn't join the group until it is told to take the original's place."""
    with database.connect(ledger_dsn, purpose="test") as conn:
        history(conn)
        identity.claim(conn, "stockledger", "cluster")
        stop = threading.Event()
        written: list[int] = []
        writer = threading.Thread(target=write, args=(ledger_dsn, stop, written))
        writer.start()
        try:
            while not written and writer.is_alive():
                stop.wait(0.01)
            copy(ledger_dsn, fresh.dsn())
        finally:
            stop.set()
            writer.join()
        identity.claim(conn, "stockledger", "cluster")
    with database.connect(fresh.dsn(), purpose="test", budgets=BUDGETS) as conn:
        assert migrate.migrate(conn).left == []
        assert [found for found in verify(conn) if not found.ok] == []
        writer_role = rights.roles(conn)[0].name
        may = conn.execute("SELECT has_table_privilege(%s, 'ledger.event', 'INSERT')", (writer_role,))
        assert may.fetchone() == (True,)
        with pytest.raises(RestoredCopy) as refused:
            identity.claim(conn, "stockledger", "cluster")
        assert refused.value.remedy.endswith("stockledger migrate --adopt")
        assert identity.adopt(conn)
        assert not identity.adopt(conn)
        identity.claim(conn, "stockledger", "cluster")
        lanes = Lanes(conn)
        assert lanes.apply(1, buys("after", "anna", 1)).position
        assert [found for found in verify(conn) if not found.ok] == []


def write(dsn: str, stop: threading.Event, written: list[int]) -> None:
    with database.connect(dsn, purpose="test") as conn:
        lanes = Lanes(conn)
        while not stop.is_set():
            written.append(lanes.apply(0, buys(f"w{len(written)}", "anna", 1)).position)


def copy(source: str, target: str) -> None:
    """With the programs of the how-to: the dump by the source's own version, as another one may write down
    what it doesn't know of. PostgreSQL 15.20 keeps a version with each column, which that of 18.6 dumps as an
    option that no server takes."""
    with database.connect(source, purpose="test") as conn:
        of_its_own = Path(DEBIAN_POSTGRES.format(conn.info.server_version // 10_000))
    dump = (of_its_own if of_its_own.exists() else binaries()) / "pg_dump"
    restore = binaries() / "pg_restore"
    with subprocess.Popen([dump, "--format=custom", source], stdout=subprocess.PIPE) as dumped:
        command = [str(restore), "--no-owner", "--exit-on-error", "--no-privileges", f"--dbname={target}"]
        done = subprocess.run(command, stdin=dumped.stdout, capture_output=True, text=True, check=False)
    assert (dumped.returncode, done.returncode) == (0, 0), done.stderr
