"""`project` and `rebuild` as people and scripts use them: one JSON object, exit codes, Ctrl-C."""

import signal
import subprocess
import sys
import time

import pytest

from ledger.store import database
from tests.support.cli import Cli
from tests.support.projections import forge, is_right, purchases, rows, shop


@pytest.fixture
def conn(ledger_dsn, seed):
    with database.connect(ledger_dsn, purpose="test") as conn:
        lanes = shop(conn)
        for n in range(5):
            lanes.apply(1, *purchases(seed, f"p{n}", 20))
        yield conn


@pytest.fixture
def stockledger(ledger_dsn):
    return Cli(ledger_dsn, "localhost:9", "none")


def test_a_projection_is_followed_rebuilt_and_rolled_back(conn, stockledger):
    """The way through: follow, see what a rebuild would do, do it, go back, drop; with facts each time."""
    [(events,)] = rows(conn, "SELECT count(*) FROM ledger.event")
    applied = stockledger("project", "--until-caught-up")["applied"]
    assert applied == {"stock": 0, "purchases_by_user": events, "sales_by_day": events}
    plan = stockledger("rebuild", "purchases_by_user")
    assert (plan["dry_run"], plan["events"], plan["generation"], plan["resumes"]) == (True, events, 2, False)
    done = stockledger("rebuild", "purchases_by_user", "--yes", "--jobs", 2, "--max-rate", 100_000)
    assert (done["swapped"], done["generation"], done["events"], done["differences"]) == (True, 2, events, [])
    assert done["lock_ms"] < 50
    assert "purchases_by_user" in done["next"]
    assert stockledger("rebuild", "purchases_by_user", "--rollback")["generation"] == 1
    assert stockledger("rebuild", "purchases_by_user", "--drop-old")["dropped"] == [2]
    assert stockledger("rebuild", "purchases_by_user", "--cancel")["dropped"] == []
    assert is_right(conn, "purchases_by_user")


def test_what_cant_be_done_says_so(conn, stockledger):
    """Exit 4 with a code and what to do: differing rows, an event that is unknown, an unknown name, nothing
    to go back to; exit 2 for switches that exclude each other."""
    conn.execute("UPDATE ledger.stock SET on_hand = on_hand + 1 WHERE goods_id = 'goods3'")
    differs = stockledger("rebuild", "stock", "--yes", exits=4)["error"]
    assert differs["code"] == "SL-PRJ-003"
    assert "goods3: live on_hand" in differs["message"]
    position = forge(conn, "GoodsRenamed")
    fault = stockledger("project", "purchases_by_user", "--until-caught-up", exits=4)["error"]
    assert fault["code"] == "SL-PRJ-001"
    assert f"position {position}" in fault["message"]
    assert stockledger("rebuild", "nothing", exits=4)["error"]["code"] == "SL-PRJ-004"
    assert stockledger("rebuild", "sales_by_day", "--rollback", exits=4)["error"]["code"] == "SL-PRJ-005"
    assert stockledger("rebuild", "stock", "--cancel", "--rollback", exits=2)["error"]["code"] == "SL-CLI-001"


def test_a_reader_waits_for_its_position(conn, stockledger):
    """`--min-position` answers once the journal is there, and exits 3 if it doesn't come."""
    assert stockledger("stock", "goods0", "--min-position", 6)["goods_id"] == "goods0"
    assert stockledger("outcome", "p0-0", "--min-position", 6)["outcomes"]


def test_a_projector_ends_at_ctrl_c(conn, stockledger):
    """Interrupted, it finishes its transaction, says what it did and ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stockledger", "project"],
        env=stockledger.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not is_right(conn, "purchases_by_user"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 130, said
