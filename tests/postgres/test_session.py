"""A session lets its owner work while the server is busy, and answers as if nothing had been done."""

import time

import psycopg
import pytest

from ledger.domain.commands import ListGoods
from ledger.store.connection import database, roundtrip
from ledger.store.connection.copy import Rows, TableLines
from tests.support.batches import Lanes, says


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        yield conn


def test_a_pause_never_ends_the_session(ledger_dsn):
    """Whatever the database's `idle_session_timeout`: a quiet topic costs no lane, a throttle no rebuild."""
    with psycopg.connect(ledger_dsn, autocommit=True) as owner:
        [(name,)] = owner.execute("SELECT quote_ident(current_database())")
        owner.execute(f"ALTER DATABASE {name} SET idle_session_timeout = '60s'")
    with database.connect(ledger_dsn, purpose="test") as conn:
        assert conn.execute("SHOW idle_session_timeout").fetchone() == ("0",)


def test_other_work_is_done_while_the_server_is_busy(conn):
    """Piece after piece until the answer is there, and then no more."""
    pieces = []

    def work() -> bool:
        pieces.append(time.monotonic())
        time.sleep(0.001)
        return True

    conn.meanwhile = work
    begun = time.monotonic()
    assert conn.execute("SELECT pg_sleep(0.2), 5").fetchone() == ("", 5)
    assert len(pieces) > 20
    assert pieces[-1] - begun < 0.2 + 0.1


def test_without_more_work_it_waits_as_ever(conn):
    """Once there is nothing to do it isn't asked again for this answer: no busy waiting."""
    asked = []

    def nothing():
        asked.append(1)
        return False

    conn.meanwhile = nothing
    assert conn.execute("SELECT pg_sleep(0.1), 5").fetchone() == ("", 5)
    assert 1 <= len(asked) <= 3


def test_an_answer_that_is_there_is_not_kept_waiting(conn):
    """A large answer comes in many parts: work goes on only between those that aren't there yet."""
    conn.meanwhile = lambda: True
    assert len(conn.execute("SELECT repeat('x', 1000) FROM generate_series(1, 5000)").fetchall()) == 5000


def test_work_goes_on_while_rows_are_sent(conn):
    """COPY of more than the socket takes at once: every row arrives."""
    conn.meanwhile = lambda: True
    conn.execute("CREATE TEMP TABLE many (text text)")
    rows = Rows("COPY many FROM STDIN", TableLines(["x" * 1000 + "\n"] * 20_000))
    assert len(roundtrip.finish(conn, roundtrip.Before([rows]), b"SELECT", ())) == 1
    assert conn.execute("SELECT count(*) FROM many").fetchone() == (20_000,)


def test_an_interrupt_during_the_work_leaves_no_half_transaction(conn, ledger_dsn):
    """Ctrl-C in the middle of a piece: the batch is whole or absent, and the session is fit or closed.

    (Whole, where the server was quick in all that comes before the COMMIT: then it is what was waited for.)
    """
    lanes = Lanes(conn)
    lanes.claim(0)

    def interrupted() -> bool:
        raise KeyboardInterrupt

    conn.meanwhile = interrupted
    with pytest.raises(KeyboardInterrupt):
        lanes.apply(0, says("list", ListGoods(goods_id="tea")))
    with psycopg.connect(ledger_dsn) as other:
        found = other.execute("SELECT next_offset, (SELECT count(*) FROM ledger.outcomes) FROM ledger.lane")
        assert found.fetchone() in {(0, 0), (1, 1)}
    conn.meanwhile = None
    assert conn.closed or conn.execute("SELECT 1").fetchone() == (1,)
