"""A `Ledger` lives long: over lost connections, on a caller's connection or pool, and for several threads."""

import threading
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from ledger.api import Ledger
from ledger.domain.commands import MessageKey
from ledger.errors import LedgerError, Unavailable
from ledger.store.connection import database
from ledger.store.connection.lending import WAITS
from ledger.store.connection.pinned import SETTINGS
from ledger.store.tables.dead_letter import LetterStatus
from tests.support.history import history
from tests.support.proxy import Proxy

TIMEOUT_S = 60
OURS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@pytest.fixture
def dsn(ledger_dsn):
    """A ledger with a history."""
    with database.connect(ledger_dsn, purpose="test") as conn:
        history(conn)
    return ledger_dsn


@pytest.fixture
def admin(dsn):
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture
def pool(dsn):
    """A pool of two connections, opened."""
    psycopg_pool = pytest.importorskip("psycopg_pool")
    with psycopg_pool.ConnectionPool(dsn, min_size=2, max_size=2, timeout=TIMEOUT_S) as pool:
        pool.wait()
        yield pool


def end_sessions(admin):
    """What a restart does to those who are connected."""
    found = [pid for (pid,) in admin.execute(OURS)]
    for pid in found:
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    return found


@contextmanager
def no_connections(services, name):
    """The database lets nobody in, and whoever was in is out."""
    with psycopg.connect(services.postgres.dsn(), autocommit=True) as admin:
        rule = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        admin.execute(rule.format(sql.Identifier(name), sql.SQL("false")))
        admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (name,)
        )
        try:
            yield
        finally:
            admin.execute(rule.format(sql.Identifier(name), sql.SQL("true")))


def everything(ledger):
    """Each question that there is, asked once; how long a lane stands still is another at each time."""
    [parked, *_] = ledger.dead_letters()
    lanes = [lane._replace(still_s=None) for lane in ledger.status().lanes]
    return [
        ledger.outcome("p4"), ledger.wait(MessageKey("shop", "p4"), 1), ledger.wait_for_position(1, 1),
        ledger.stock("tea"), ledger.stock("tea", as_of=3), ledger.stock_levels(as_of=3), ledger.moment(),
        ledger.why("tea", 5), lanes, ledger.dead_letter(parked.lane, parked.offset),
        ledger.gaps(),
    ]  # fmt: skip


def settings_of(conn):
    """Everything that a session may set, as this one has it."""
    return dict(conn.execute("SELECT name, setting FROM pg_settings").fetchall())


def test_a_lost_connection_is_made_again(dsn, admin):
    """The server ended it: the next question is answered as if nothing had been, and so is an order."""
    with Ledger(dsn) as ledger:
        before = everything(ledger)
        assert end_sessions(admin)
        assert everything(ledger) == before
        letter = ledger.dead_letters()[0]
        assert end_sessions(admin)
        assert ledger.mark(letter, LetterStatus.DISCARDED)


def test_a_cut_network_is_a_lost_connection(dsn):
    """The other end is gone without a word."""
    place = psycopg.conninfo.conninfo_to_dict(dsn)
    with Proxy(str(place["host"]), int(str(place["port"]))) as proxy:
        there = psycopg.conninfo.make_conninfo(dsn, host="127.0.0.1", port=proxy.port)
        with Ledger(there) as ledger:
            before = everything(ledger)
            proxy.cut()
            assert everything(ledger) == before


def test_while_the_database_is_away_it_says_so_and_then_goes_on(dsn, services):
    """Unavailable with the cause and a step, as often as it is asked; once it is back, the answer."""
    with Ledger(dsn) as ledger:
        before = everything(ledger)
        with no_connections(services, psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]):
            for _ in range(3):
                with pytest.raises(Unavailable) as away:
                    ledger.status()
                assert "ALLOW_CONNECTIONS true" in away.value.remedy
        assert everything(ledger) == before


def test_an_order_isnt_given_twice(dsn, admin):
    """Whether a lost order took effect isn't known, so it is the caller's to ask."""
    with Ledger(dsn) as ledger:
        letter = ledger.dead_letters()[0]
        orders = []

        def order(conn):
            orders.append(1)
            end_sessions(admin)
            return conn.execute("SELECT 1")

        with pytest.raises(Unavailable):
            ledger._lender.tell(order)
        assert orders == [1]
        assert ledger.mark(letter, LetterStatus.DISCARDED)


def test_a_closed_one_stays_closed(dsn):
    """It doesn't connect again."""
    ledger = Ledger(dsn)
    ledger.close()
    with pytest.raises(Unavailable, match="closed") as closed:
        ledger.status()
    assert closed.value.remedy == "make a new Ledger"


@pytest.mark.parametrize("autocommit", [True, False])
@pytest.mark.parametrize("in_transaction", [True, False])
def test_a_connection_of_the_callers(dsn, autocommit, in_transaction):
    """Whatever its rows look like and its session means: the same answers; it is given back as it was."""
    with Ledger(dsn) as own:
        expected = everything(own)
    with psycopg.connect(dsn, autocommit=autocommit, row_factory=dict_row) as conn:
        conn.execute("SET TimeZone = 'Asia/Tokyo'")
        conn.execute("SET DateStyle = 'SQL, DMY'")
        conn.execute("SET search_path = nowhere")
        conn.execute("SET client_encoding = 'LATIN1'")
        conn.commit()
        if in_transaction:
            conn.execute("BEGIN" if autocommit else "SELECT 1")
        with psycopg.ClientCursor(conn, row_factory=psycopg.rows.tuple_row) as cursor:
            before = settings_of(cursor)
            state = conn.info.transaction_status
            if not in_transaction:
                conn.commit()
                state = conn.info.transaction_status
            with Ledger(conn) as ledger:
                assert everything(ledger) == expected
                assert conn.info.transaction_status == state
                letter = ledger.dead_letters()[0]
                assert ledger.mark(letter, LetterStatus.DISCARDED)
            assert conn.info.transaction_status == state
            assert settings_of(cursor) == before
        assert conn.row_factory is dict_row
        assert not conn.closed


def test_a_mark_belongs_to_the_callers_transaction(dsn):
    """Rolled back with it."""
    with psycopg.connect(dsn) as conn:
        conn.execute("SELECT 1")
        ledger = Ledger(conn)
        letter = ledger.dead_letters()[0]
        assert ledger.mark(letter, LetterStatus.DISCARDED)
        conn.rollback()
        [again] = [found for found in ledger.dead_letters() if found.offset == letter.offset]
        assert again.status is LetterStatus.PARKED


def test_a_lost_connection_of_the_callers(dsn, admin):
    """We can't make it again, so the next step is another one."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        ledger = Ledger(conn)
        ledger.status()
        end_sessions(admin)
        for _ in range(2):
            with pytest.raises(Unavailable, match="closed") as lost:
                ledger.status()
            assert "a DSN or a pool" in lost.value.remedy


def test_a_pool_of_dead_connections_is_renewed(pool, dsn, admin):
    """A restart leaves as many dead ones as it holds: the question is answered all the same."""
    ledger = Ledger(pool)
    before = everything(ledger)
    assert len(end_sessions(admin)) == 2
    assert everything(ledger) == before
    ledger.close()
    with pool.connection() as conn:  # still open, and as it was
        assert conn.execute("SHOW search_path").fetchone() == ('"$user", public',)


def test_threads_share_one(dsn, pool):
    """Side by side with a pool, one after the other with a DSN; never each other's answer."""
    for source in (dsn, pool):
        with Ledger(source) as ledger:
            expected = everything(ledger)
            answers: list[Any] = []
            ask = partial(everything, ledger)
            threads = [threading.Thread(target=lambda a=answers, f=ask: a.append(f())) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(TIMEOUT_S)
            assert answers == [expected] * 6


def test_a_rebuild_from_a_borrowed_connection(dsn):
    """It connects by itself, where the connection leads, with its password."""
    with psycopg.connect(dsn) as conn:
        conn.execute("SET search_path = nowhere")
        assert Ledger(conn).rebuild("purchases_by_user").name == "purchases_by_user"


def test_what_is_no_source_is_refused():
    """At once, and by name."""
    wrongs: list[Any] = [None, 7, object()]
    for wrong in wrongs:
        with pytest.raises(TypeError, match=type(wrong).__name__):
            Ledger(wrong)


def test_an_exhausted_pool_says_so(dsn, services):
    """Not that the database is gone; where it is gone, that."""
    psycopg_pool = pytest.importorskip("psycopg_pool")
    with psycopg_pool.ConnectionPool(dsn, min_size=1, max_size=1, timeout=0.2) as pool:
        pool.wait(TIMEOUT_S)
        with pool.connection(), pytest.raises(Unavailable, match="no connection to lend") as none:
            Ledger(pool).status()
        assert none.value.remedy == "raise the pool's max_size"
    away = psycopg.conninfo.make_conninfo(dsn, dbname="nowhere")
    with (
        psycopg_pool.ConnectionPool(away, min_size=0, max_size=1, timeout=0.2, reconnect_timeout=0.1) as pool,
        pytest.raises(LedgerError, match="there is no database nowhere"),
    ):
        Ledger(pool).status()


def test_the_settings_are_ones_that_this_server_has(admin):
    """None of them is a slip of the pen."""
    if admin.info.server_version < 180_000:
        pytest.skip("an older server lacks some, which are left out there")
    known = {name for (name,) in admin.execute("SELECT name FROM pg_settings")}
    assert (SETTINGS | WAITS).keys() <= known
