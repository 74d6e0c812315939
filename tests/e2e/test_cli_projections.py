"""`project` and `rebuild` as people and scripts use them: one JSON object, exit codes, Ctrl-C."""

import json
import signal
import subprocess
import sys
import time

import pytest
from psycopg.conninfo import make_conninfo

from examples.own_projection import BestCustomers
from ledger.store.connection import database
from tests.support.cli import Cli
from tests.support.projections import follow, forge, is_right, purchases, rows, shop


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
    assert applied == {"stock": 0, "purchases_by_user": events, "sales_by_day": events, "user_events": events}
    plan = stockledger("rebuild", "purchases_by_user")
    assert (plan["dry_run"], plan["events"], plan["generation"], plan["resumes"]) == (True, events, 2, False)
    done = stockledger("rebuild", "purchases_by_user", "--yes", "--jobs", 2, "--max-rate", 100_000)
    assert (done["swapped"], done["generation"], done["events"], done["differences"]) == (True, 2, events, [])
    assert done["lock_ms"] > 0
    assert done["next"] == "stockledger verify"  # not --drop-old, which nobody can take back
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
    deadline = time.monotonic() + 90
    while not is_right(conn, "purchases_by_user"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 130, said


class Projecting:
    """`project` in a process of its own, and what it logs."""

    def __init__(self, stockledger, *words):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stockledger", "project", "--log-format", "json", *words],
            env=stockledger.environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.communicate()

    def says(self, event):
        """The next line that it logs; it must be this one."""
        assert self._process.stderr
        line = json.loads(self._process.stderr.readline())
        assert line["event"] == event, line
        return line


def test_a_projector_says_what_it_waits_for_and_that_it_goes_on(conn, stockledger):
    """Like `run`: ready; its session ended, as by a restart: waiting, once, with cause and code, then on."""
    with Projecting(stockledger, "purchases_by_user") as projecting:
        assert projecting.says("ready")["projections"] == ["purchases_by_user"]
        ended = conn.execute(
            """SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name LIKE 'stockledger/project%'"""
        ).fetchall()
        assert ended == [(True,)]
        waiting = projecting.says("waiting")
        assert (waiting["code"], bool(waiting["cause"]), bool(waiting["next"])) == ("SL-DB-001", True, True)
        projecting.says("goes on")
    follow_on = stockledger("project", "--until-caught-up")
    assert follow_on["applied"]["sales_by_day"]
    assert is_right(conn, "purchases_by_user")


def test_a_wrong_password_is_said_at_once(ledger_dsn):
    """Not the silence of a program that tries again for ever: the first line has the cause and the code."""
    refused = Cli(
        make_conninfo(ledger_dsn, password="wrong", user="nobody_of_this_name"), "localhost:9", "none"
    )
    with Projecting(refused) as projecting:
        assert projecting.says("waiting")["code"] in ("SL-DB-002", "SL-DB-006")  # as the server lets us know


def test_a_projection_is_dropped_by_name(conn, stockledger):
    """What a package left that isn't installed any more goes by its name; a shipped one doesn't."""
    follow(conn.info.dsn + " password=" + conn.info.password, BestCustomers())
    assert stockledger("project", "--drop", "best_customers")["dropped"] == [1]
    assert stockledger("project", "--drop", "best_customers", exits=4)["error"]["code"] == "SL-PRJ-004"
    assert stockledger("project", "--drop", "stock", exits=4)["error"]["code"] == "SL-PRJ-005"
    assert stockledger("project", "stock", "--drop", "stock", exits=2)["error"]["code"] == "SL-CLI-001"


def test_a_package_that_is_broken_is_named_and_harms_nobody(conn, ledger_dsn, tmp_path):
    """An installed package whose entry point leads nowhere: `project` follows the shipped ones, names it with
    its code and exits 4; `rebuild` of a shipped one doesn't notice."""
    described = tmp_path / "broken_shop-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-shop\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[stockledger.projections]\nmine = no_such_module:Mine\n")
    broken = Cli(ledger_dsn, "localhost:9", "none")
    broken.environment["PYTHONPATH"] = str(tmp_path)
    projected = broken("project", "--until-caught-up", exits=4)
    assert projected["error"]["code"] == "SL-PRJ-006"
    for word in ("mine", "no_such_module:Mine", "broken-shop"):
        assert word in projected["error"]["message"]
    assert projected["applied"]["purchases_by_user"]
    assert broken("rebuild", "stock", "--yes")["swapped"] is True
    assert broken("rebuild", "mine", exits=4)["error"]["code"] == "SL-PRJ-006"
    broken("project", "sales_by_day", "--until-caught-up")
