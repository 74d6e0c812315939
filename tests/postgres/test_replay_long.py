"""What runs for long outlives what it reads, and says how far it came: restarts, full disks."""

import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager

import psycopg
import pytest

from ledger.domain.commands import ReceiveStock
from ledger.store.connection import database
from tests.postgres.test_replay import GROW
from tests.support.batches import says
from tests.support.environment import inherited
from tests.support.history import history as story

TIMEOUT_S = 60
SESSIONS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        yield conn


@pytest.fixture
def environment(ledger_dsn):
    return inherited() | {"STOCKLEDGER_DSN": ledger_dsn}


@contextmanager
def running(environment, *words, **how):
    """The verb in a process of its own, ended in any case."""
    command = [sys.executable, "-m", "stockledger", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **(pipes | how)) as process:
        try:
            yield process
        finally:
            process.kill()


def end_sessions(conn, purpose):
    """What a restart does to the verb's connection."""
    pids = [pid for (pid,) in conn.execute(SESSIONS, (f"stockledger/{purpose}",))]
    for pid in pids:
        conn.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    return pids


def test_follow_goes_on_after_a_restart(environment, conn):
    """Each event once, over as many lost connections as there are; each is said once, with the position."""
    lanes = story(conn)
    with running(environment, "replay", "--follow") as process:
        seen = [json.loads(process.stdout.readline())["id"] for _ in range(14)]
        for number in range(3):
            assert end_sessions(conn, "replay")
            lanes.apply(1, says(f"more-{number}", ReceiveStock(goods_id="tea", quantity=1)))
            seen.append(json.loads(process.stdout.readline())["id"])
        process.send_signal(signal.SIGINT)
        rest, said = process.communicate(timeout=TIMEOUT_S)
    assert (rest, process.returncode) == ("", 130)
    expected = conn.execute("SELECT position || '.' || ordinal FROM ledger.events ORDER BY position, ordinal")
    assert seen == [place for (place,) in expected]
    assert said.count("waiting  SL-DB-001") == 3
    assert said.count("goes on: the database answers again") == 3
    assert "goes on with --from 8" in said
    assert "next: stockledger replay --from 11 --follow" in said


def test_watch_goes_on_after_a_restart(environment, conn):
    """`status --watch` connects again by itself; where it can't, it says so once."""
    with running(environment | {"STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS": ""}, "status", "--watch") as process:
        assert process.stdout.readline().startswith("position 0"), process.stderr.read()
        assert end_sessions(conn, "api")
        while not process.stdout.readline().startswith("position 0"):
            pass
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0


def test_a_replay_that_ends_early_names_where_to_go_on(environment, conn):
    """Without --follow a lost connection is its end, and the next command goes on with the same wishes."""
    for statement in GROW:
        conn.execute(statement, {"first": 0, "last": 100_000})
    words = ["replay", "--type", "GoodsPurchased", "--to", "1000"]
    with running(environment, *words) as process:
        lines = [process.stdout.readline()]
        assert end_sessions(conn, "replay")
        lines += process.stdout.readlines()
        said = process.stderr.read()
    assert process.wait(TIMEOUT_S) == 3
    assert lines[-1].endswith("}\n")
    first = json.loads(lines[-1])["position"] + 1
    assert f"next: stockledger replay --from {first} --to 1000 --type GoodsPurchased" in said


def test_a_full_disk_leaves_whole_lines(environment, conn, tmp_path):
    """The partial line is cut off, and the command that is named brings exactly the rest."""
    for statement in GROW:
        conn.execute(statement, {"first": 0, "last": 20_000})
    file = tmp_path / "it's all.jsonl"

    def fill_up():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_333_333, 3_333_333))

    with running(environment, "replay", "--into", file, "--json", preexec_fn=fill_up) as process:
        out, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 4
    answer = json.loads(out)
    assert answer["error"]["code"] == "SL-CLI-008"
    written = file.read_text().splitlines()
    assert answer["events"] == len(written) >= 5_000
    onward = answer["error"]["remedy"]
    assert f"--from {answer['next_position']} " in onward
    environment = environment | {"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
    subprocess.run(onward, shell=True, env=environment, check=True, timeout=TIMEOUT_S)
    [other] = [each for each in tmp_path.iterdir() if each != file]
    ids = [json.loads(line)["id"] for line in written + other.read_text().splitlines()]
    assert len(ids) == len(set(ids)) == 20_000


def test_what_strangers_wrote_is_escaped_in_lines(environment, conn):
    """A terminal gets none of it; whoever parses the line gets all of it."""
    story(conn)
    text = "\u202e\x85\u2028\u200f\U000e0041"
    conn.execute("ALTER TABLE ledger.event DISABLE TRIGGER ALL")
    conn.execute(
        "UPDATE ledger.event SET payload = json_build_object('goods_id', 'tea', 'name', %s::text) "
        "WHERE type = 'GoodsListed' AND stream = 'goods-tea'",
        (text,),
    )
    with running(environment, "replay", "--type", "GoodsListed", "--goods", "tea") as process:
        out, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    assert not set(text) & set(out)
    assert json.loads(out)["data"]["name"] == text


def test_the_database_is_named_where_it_never_was(environment):
    """`--follow` waits for what it had; what it never had is an error, with its cause."""
    dsn = psycopg.conninfo.make_conninfo(environment["STOCKLEDGER_DSN"], port=1)
    with running(environment | {"STOCKLEDGER_DSN": dsn}, "replay", "--follow") as process:
        _, said = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 3
    assert "nothing listens at" in said
