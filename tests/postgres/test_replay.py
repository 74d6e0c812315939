"""`replay`: the events of a range as CloudEvents, in order, none twice, in flat memory; then on, live."""

import json
import signal
import subprocess
import sys
import time
from datetime import timedelta

import pytest

from ledger.domain.commands import ReceiveStock
from ledger.errors import UnreadableEvent
from ledger.history.events import Window, cloud_event, replay
from ledger.store.connection import database
from ledger.store.reads import history
from ledger.store.reads.history import Wanted
from stockledger import cli
from tests.support.batches import says
from tests.support.environment import inherited, unset
from tests.support.history import AWKWARD, CAFE
from tests.support.history import history as story

ALL = Wanted()
EVENTS = """
SELECT position, ordinal, stream, version, type, data, source, id, recorded_at
FROM ledger.events ORDER BY position, ordinal
"""
# 100 events an entry.
GROW = (
    """INSERT INTO ledger.journal
       SELECT p, p, 't', 0, 1, (p - 1) * 100, p * 100, 100, 0, 0, 0, 0, 0, now(), '', ''
       FROM generate_series(%(first)s / 100 + 1, %(last)s / 100) p""",
    """INSERT INTO ledger.event
       SELECT (n - 1) / 100 + 1, (n - 1) %% 100, 'goods-g' || n %% 500, n / 500 + 1, 'GoodsPurchased',
              json_build_object('user_id', 'u' || n, 'goods_id', 'g' || n %% 500, 'quantity', 1),
              -1, 'u' || n, 'shop', 'id-' || n
       FROM generate_series(%(first)s + 1, %(last)s) n""",
    "UPDATE ledger.head SET position = %(last)s / 100",
)


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        yield conn


@pytest.fixture
def lanes(conn):
    return story(conn)


@pytest.fixture
def environment(ledger_dsn):
    kept = inherited()
    return kept | {"STOCKLEDGER_DSN": ledger_dsn}


@pytest.fixture
def stockledger(ledger_dsn, monkeypatch, capfdbinary):
    """`stockledger("replay")` -> (code, stdout, stderr), in this process."""
    unset(monkeypatch)
    monkeypatch.setenv("STOCKLEDGER_DSN", ledger_dsn)

    def run(*arguments):
        code = cli.execute([str(argument) for argument in arguments])
        out, err = capfdbinary.readouterr()
        return code, out.decode(), err.decode()

    return run


def places(conn, within=Window(), wanted=ALL):  # noqa: B008 (a value)
    return [(e.position, e.ordinal) for piece in replay(conn, within, wanted) for e in piece.events]


@pytest.mark.parametrize("page", [1, 2, 5_000])
def test_every_event_in_order_once(conn, lanes, monkeypatch, page):
    """Whatever a page holds, the events come in (position, ordinal) order, none twice and none left out."""
    monkeypatch.setattr(history, "RANGE_EVENTS", page)
    stored = conn.execute(EVENTS).fetchall()
    assert places(conn) == [row[:2] for row in stored]
    assert len(stored) == 14
    for first in range(9):
        for last in range(9):
            expected = [row[:2] for row in stored if first <= row[0] <= last]
            assert places(conn, Window(first, last)) == expected


@pytest.mark.parametrize("page", [1, 5_000])
@pytest.mark.parametrize(
    "wanted",
    [
        Wanted("goods-tea"),
        Wanted(f"goods-{CAFE}"),
        Wanted("goods-none"),
        Wanted("user-anna"),
        Wanted(user="anna"),
        Wanted(type="StockReceived"),
        Wanted("goods-tea", "anna", "PurchaseCancelled"),
        Wanted("user-anna", "ben"),
    ],
)
def test_filters(conn, lanes, monkeypatch, wanted, page):
    """Each filter lets through what it names, wherever the pages end."""
    monkeypatch.setattr(history, "RANGE_EVENTS", page)
    rows = conn.execute(EVENTS).fetchall()
    expected = [
        row[:2]
        for row in rows
        if wanted.stream in (None, row[2])
        and wanted.type in (None, row[4])
        and wanted.user in (None, row[5].get("user_id"))
    ]
    assert places(conn, wanted=wanted) == expected
    assert places(conn, Window(3, 4), wanted) == [place for place in expected if 3 <= place[0] <= 4]


def test_times(conn, lanes):
    """`since` takes in what was recorded at that time, `until` leaves it out."""
    times = dict(conn.execute("SELECT position, recorded_at FROM ledger.journal").fetchall())
    assert {p for p, _ in places(conn, Window(since=times[3]))} == {3, 4, 7}
    assert {p for p, _ in places(conn, Window(until=times[3]))} == {1, 2}
    assert places(conn, Window(since=times[7] + timedelta(seconds=1))) == []
    assert places(conn, Window(until=times[1])) == []
    with pytest.raises(ValueError, match="offset from UTC"):
        places(conn, Window(since=times[3].replace(tzinfo=None)))


def test_going_on_from_any_piece(conn, lanes, monkeypatch):
    """Going on from a piece's next position misses nothing, and repeats nothing but a piece of one entry."""
    monkeypatch.setattr(history, "RANGE_EVENTS", 2)
    everything = places(conn)
    for wanted in (ALL, Wanted("goods-tea")):
        expected, taken = places(conn, wanted=wanted), []
        for piece in replay(conn, Window(), wanted):
            taken += [(e.position, e.ordinal) for e in piece.events]
            rest = places(conn, Window(piece.next_position), wanted)
            assert sorted({*taken, *rest}) == expected
            assert {place[0] for place in taken} & {place[0] for place in rest} <= {piece.next_position}
    assert len(everything) == 14


def test_a_line_is_a_cloud_event(stockledger, conn, lanes):
    """Each line has the required attributes, an id of its own, the command, and the event's fields."""
    code, out, _ = stockledger("replay")
    assert (code, out) == (0, stockledger("replay", "--into", "-")[1])
    lines = [json.loads(line) for line in out.splitlines()]
    rows = conn.execute(EVENTS).fetchall()
    for line, (position, ordinal, stream, version, type_, data, source, id_, at) in zip(
        lines, rows, strict=True
    ):
        assert line == {
            "specversion": "1.0",
            "id": f"{position}.{ordinal}",
            "source": "/stockledger",
            "type": f"stockledger.{type_}.v1",
            "subject": stream,
            "time": at.isoformat().replace("+00:00", "Z"),
            "datacontenttype": "application/json",
            "position": position,
            "ordinal": ordinal,
            "version": version,
            "causationsource": source,
            "causationid": id_,
            "data": data,
        }
    assert len({line["id"] for line in lines}) == len(lines)
    assert any(line["data"].get("name") == AWKWARD for line in lines)


def test_into_a_file(stockledger, lanes, tmp_path):
    """A file gets the same lines, `--json` the summary; a file that is there already is left as it is."""
    file = tmp_path / "events.jsonl"
    code, out, _ = stockledger("replay", "--to", 3, "--into", file, "--json")
    assert file.stat().st_mode & 0o777 == 0o600
    assert (code, json.loads(out)["events"], json.loads(out)["next_position"]) == (0, 11, 4)
    _, lines, _ = stockledger("replay", "--to", 3)
    assert file.read_text() == lines
    code, out, _ = stockledger("replay", "--into", file, "--json")
    assert (code, json.loads(out)["error"]["code"]) == (2, "SL-CLI-001")
    assert file.read_text() == lines
    _, rest, _ = stockledger("replay", "--from", 4)
    assert lines + rest == stockledger("replay")[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--json"],
        ["--check"],
        ["--commands"],
        ["--commands", "--check", "--from", 3],
        ["--since", "yesterday"],
        ["--since", "2026-01-01T00:00:00"],
        ["--until", "2026-02-30"],
        ["--goods", "tea", "--stream", "goods-tea"],
    ],
)
def test_what_makes_no_sense_is_refused(stockledger, arguments):
    """Usage errors end with 2 and say what to write instead."""
    code, out, err = stockledger("replay", *arguments)
    assert code == 2
    assert "SL-CLI-001" in err + out


def test_an_event_from_the_future_stops_it(stockledger, conn, lanes):
    """An unknown type ends the replay with position and type, after whatever comes before it; exit 4."""
    conn.execute("ALTER TABLE ledger.event DISABLE TRIGGER ALL")
    conn.execute("UPDATE ledger.event SET type = 'GoodsReserved' WHERE id = 'a1'")
    with pytest.raises(
        UnreadableEvent, match=r"GoodsReserved at position 2, ordinal 3 \(goods-tea version 3\)"
    ) as caught:
        [cloud_event(e, "") for piece in replay(conn, Window(), ALL) for e in piece.events]
    assert (caught.value.position, caught.value.type) == (2, "GoodsReserved")
    code, out, err = stockledger("replay")
    assert (code, "SL-EVT-001" in err) == (4, True)
    assert [json.loads(line)["id"] for line in out.splitlines()][-2:] == ["2.1", "2.2"]


def test_nothing_is_written(conn, ledger_dsn, lanes):
    """A read-only session can replay: no statement writes."""
    with database.connect(ledger_dsn, purpose="test") as other:
        other.execute("SET default_transaction_read_only = on")
        assert len(places(other)) == 14
        assert history.levels(other, 7)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_follow_shows_what_is_committed_later_and_ends_on_ctrl_c(environment, conn, lanes, number):
    """--follow goes on with each new entry; Ctrl-C is 130, after a whole line, and so is SIGTERM."""
    command = [sys.executable, "-m", "stockledger", "replay", "--from", "7", "--follow"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert json.loads(process.stdout.readline())["position"] == 7
        process.stdout.readline()
        for turn in range(3):
            lanes.apply(1, says(f"more-{turn}", ReceiveStock(goods_id="tea", quantity=1)))
            assert json.loads(process.stdout.readline())["causationid"] == f"more-{turn}"
        time.sleep(0.3)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, b"")
    assert b"replay --from 11" in err


def test_a_reader_that_has_enough_is_no_error(environment, conn):
    """`replay | head -1`: no traceback, no message."""
    for statement in GROW:
        conn.execute(statement, {"first": 0, "last": 20_000})
    command = [sys.executable, "-m", "stockledger", "replay"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert json.loads(process.stdout.readline())["id"] == "1.0"
        process.stdout.close()
        assert process.stderr
        assert process.stderr.read() == b""


# The peak of the process itself: what `wait4` says includes the parent's, from before the exec.
MEASURED = """
import re, sys
from stockledger import cli
code = cli.execute(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)
sys.exit(code)
"""


def peak_kib(environment, *arguments):
    """The most memory that the verb had."""
    command = [sys.executable, "-c", MEASURED, *arguments]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True
    )
    return int(done.stderr.split()[-1])


@pytest.mark.slow
def test_memory_is_flat(environment, conn):
    """220,000 events need no more memory than 20,000, give or take 8 MiB."""
    for statement in GROW:
        conn.execute(statement, {"first": 0, "last": 20_000})
    few = peak_kib(environment, "replay")
    for statement in GROW:
        conn.execute(statement, {"first": 20_000, "last": 220_000})
    start = time.monotonic()
    many = peak_kib(environment, "replay")
    print(f"20,000 events: {few} KiB, 220,000: {many} KiB in {time.monotonic() - start:.1f} s")
    assert many - few < 8 * 1024
