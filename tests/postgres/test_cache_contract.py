"""What every stock cache promises, whatever its strategy, on real Postgres: one class, all of them."""

import os
import signal
import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ledger.api import Ledger
from ledger.cache.stock_cache import StockCache
from ledger.domain.commands import AdjustStock, ListGoods, ReceiveStock
from ledger.domain.token import Token
from ledger.errors import HistoryChanged, LedgerError, Stale
from ledger.projections.stock import Stock
from ledger.rebuilding.rebuild import rebuild, roll_back
from ledger.store.connection import database
from ledger.store.schema import migrate
from ledger.store.tables import journal, stock_delta
from ledger.store.tables.stock import StockLevel
from stockledger.embedded.postgres import EmbeddedPostgres
from tests.support.batches import Lanes, says
from tests.support.forks import forked
from tests.support.hosted import Hosted
from tests.support.proxy import Proxy

STRATEGIES = {name: partial(StockCache, strategy=name) for name in ("notify", "update", "copy")}
MAKERS = STRATEGIES | {"host": Hosted}
"""How a cache is made: `maker(dsn, **options)`, a context manager that has loaded when it is entered."""
HOLDING = {name: maker for name, maker in MAKERS.items() if name != "notify"}
PATIENCE_S = 30.0
GOODS = [f"g{number}" for number in range(6)]


class Shop:
    """Writes: each call is one batch, so one entry."""

    def __init__(self, dsn):
        self.dsn = dsn
        self.conn = database.connect(dsn, purpose="test")
        self.lanes = Lanes(self.conn)
        self._number = 0

    def apply(self, *commands):
        records = []
        for command in commands:
            self._number += 1
            records.append(says(f"{self._number}", command))
        position = self.lanes.apply(0, *records).position
        return str(Token.at(position, journal.tip(self.conn).hash))

    def lists(self, *goods_ids, quantity=10):
        listed = [ListGoods(goods_id=each) for each in goods_ids]
        return self.apply(*listed, *(ReceiveStock(goods_id=each, quantity=quantity) for each in goods_ids))

    def moves(self, source, target):
        return self.apply(AdjustStock(goods_id=source, delta=-1), AdjustStock(goods_id=target, delta=1))

    def adds(self, goods_id, delta=1):
        return self.apply(AdjustStock(goods_id=goods_id, delta=delta))

    def again(self):
        """After the database was another one for a while."""
        self.conn.close()
        self.conn = database.connect(self.dsn, purpose="test")
        self.lanes = Lanes(self.conn)


@pytest.fixture
def shop(ledger_dsn):
    shop = Shop(ledger_dsn)
    shop.lists(*GOODS)
    yield shop
    shop.conn.close()


@pytest.fixture(params=MAKERS)
def maker(request):
    return MAKERS[request.param]


@pytest.fixture(params=STRATEGIES)
def strategy(request):
    """A cache in this process."""
    return STRATEGIES[request.param]


@pytest.fixture(params=HOLDING)
def holding(request):
    return HOLDING[request.param]


@contextmanager
def proxied(dsn):
    """The DSN through a proxy."""
    parts = conninfo_to_dict(dsn)
    with Proxy(str(parts["host"]), int(str(parts["port"]))) as proxy:
        yield proxy, make_conninfo(dsn, host="127.0.0.1", port=proxy.port, sslmode="disable")


def eventually(holds):
    """Wait until it holds; a test fails by its timeout, and is judged by nothing else."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            if holds():
                return
        except (Stale, TimeoutError):
            pass
        assert time.monotonic() < until, "it never came to hold"
        time.sleep(0.005)


def is_stale(cache, goods_id=GOODS[0]):
    try:
        cache.get(goods_id)
    except Stale:
        return True
    return False


class TestContract:
    """Any cache."""

    def test_it_says_what_is_committed(self, maker, shop):
        """Stock, None for unknown goods, and what comes after it was started."""
        with maker(shop.dsn) as cache:
            assert cache.get("g0") == StockLevel("g0", 10, 2)
            assert cache.get("nothing") is None
            assert cache.get("no\0thing") is None
            assert dict(cache.get_many(["g1", "nothing"])) == {"g1": StockLevel("g1", 10, 2), "nothing": None}
            token = shop.lists("new", quantity=3)
            assert cache.get("new", at_least=token, timeout_s=PATIENCE_S) == StockLevel("new", 3, 2)

    def test_an_empty_ledger_is_loaded(self, maker, ledger_dsn):
        """Position 0 is a position: nothing is listed, and what is listed next is seen."""
        with maker(ledger_dsn) as cache:
            assert cache.get("tea") is None
            assert cache.status().position == 0
            shop = Shop(ledger_dsn)
            token = shop.lists("tea")
            assert cache.get("tea", at_least=token, timeout_s=PATIENCE_S).on_hand == 10
            shop.conn.close()

    def test_what_one_wrote_one_reads(self, maker, shop):
        """With the token of a write, each read has at least that write."""
        with maker(shop.dsn) as cache:
            for number in range(1, 30):
                token = shop.adds("g0")
                level = cache.get("g0", at_least=token, timeout_s=PATIENCE_S)
                assert (level.on_hand, level.version) == (10 + number, 2 + number)

    def test_a_place_that_does_not_come_is_not_waited_for_beyond_the_time(self, maker, shop):
        """TimeoutError, and the cache serves on."""
        with maker(shop.dsn) as cache:
            with pytest.raises(TimeoutError):
                cache.get("g0", at_least=99, timeout_s=0.05)
            assert cache.get("g0").on_hand == 10

    def test_a_token_of_another_ledger_is_refused(self, maker, shop):
        """With a hash that isn't the ledger's, at a position that is there, and beyond the head."""
        with maker(shop.dsn) as cache:
            for position in (1, 99):
                with pytest.raises(HistoryChanged):
                    cache.get("g0", at_least=f"{position}-{'0' * 16}", timeout_s=PATIENCE_S)
            assert cache.get("g0", at_least=0).on_hand == 10

    def test_threads_read_while_batches_commit(self, maker, shop):
        """No reader ever sees a version fall, and none sees an error."""
        faults = []

        def read(cache, stop):
            seen = dict.fromkeys(GOODS, 0)
            try:
                while not stop.wait(0.001):
                    for goods_id in GOODS:
                        version = cache.get(goods_id).version
                        assert version >= seen[goods_id]
                        seen[goods_id] = version
            except BaseException as fault:  # noqa: BLE001 (a thread's, looked at below)
                faults.append(fault)

        with maker(shop.dsn, max_staleness_s=60) as cache:
            stop = threading.Event()
            threads = [threading.Thread(target=read, args=(cache, stop)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for number in range(40):
                token = shop.moves(GOODS[number % 6], GOODS[(number + 1) % 6])
            stop.set()
            for thread in threads:
                thread.join()
            assert faults == []
            assert (
                cache.get("g0", at_least=token, timeout_s=PATIENCE_S).on_hand
                == shop_stock(shop)["g0"].on_hand
            )

    def test_a_cut_link_is_made_again_and_nothing_is_loaded_anew(self, maker, shop):
        """It proves where it was, and goes on from there."""
        with proxied(shop.dsn) as (proxy, dsn), maker(dsn, max_staleness_s=60) as cache:
            cache.get("g0")
            loads = cache.status().loads
            for _ in range(3):
                proxy.cut()
                token = shop.adds("g0")
                cache.get("g0", at_least=token, timeout_s=PATIENCE_S)
            assert cache.status().loads == loads
            assert cache.status().resets == 0

    def test_a_stalled_link_ages_what_is_held(self, maker, shop):
        """Nothing arrives and nothing says so: beyond the bound reads say how old it is; then it recovers."""
        with proxied(shop.dsn) as (proxy, dsn), maker(dsn, max_staleness_s=0.3) as cache:
            eventually(lambda: cache.get("g0"))
            proxy.stall()
            eventually(lambda: is_stale(cache))
            with pytest.raises(Stale) as stale:
                cache.get("g0")
            assert stale.value.age_s is not None
            assert stale.value.age_s > 0.3
            eventually(lambda: "said nothing" in cache.status().trouble)  # it was half open: given up
            proxy.resume()
            token = shop.adds("g0")
            eventually(lambda: cache.get("g0", at_least=token).on_hand == 11)

    def test_a_database_that_is_away_is_named_and_come_back_to(self, maker, shop, services):
        """Reads say what is wrong beyond the bound; the first poll after it is back makes it fresh."""
        with maker(shop.dsn, max_staleness_s=0.3) as cache:
            eventually(lambda: cache.get("g0"))
            with psycopg.connect(services.postgres.dsn(), autocommit=True) as admin:
                stop_sessions(admin, shop)
                eventually(lambda: is_stale(cache))
                eventually(lambda: cache.status().error is not None)
                allow_sessions(admin, shop)
            shop.again()
            token = shop.adds("g0")
            eventually(lambda: cache.get("g0", at_least=token).on_hand == 11)
            assert cache.status().resets == 0

    def test_ended_sessions_are_made_again(self, maker, shop):
        """`pg_terminate_backend` on every session of the cache, again and again."""
        with maker(shop.dsn, max_staleness_s=60) as cache:
            for number in range(1, 4):
                shop.conn.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'stockledger/cache' AND datname = current_database()"
                )
                token = shop.adds("g0")
                assert cache.get("g0", at_least=token, timeout_s=PATIENCE_S).on_hand == 10 + number

    def test_on_stale_ask_reads_the_database(self, maker, shop):
        """The feeder polls too seldom: the caller's own question has what is committed now."""
        with maker(shop.dsn, max_staleness_s=0.001, on_stale="ask", poll_s=3600) as cache:
            token = shop.adds("g0")
            assert cache.get("g0", at_least=token).on_hand == 11
            assert cache.get("nothing") is None
            many = cache.get_many(["g0", "g1", "nothing"], at_least=token)
            assert (many["g0"].on_hand, many["g1"].on_hand, many["nothing"]) == (11, 10, None)
            assert many.token == token
            with pytest.raises(HistoryChanged):
                cache.get("g0", at_least=f"1-{'0' * 16}")

    def test_on_stale_serve_gives_what_there_is(self, maker, shop):
        """However old, and `status` says that it is."""
        with maker(shop.dsn, max_staleness_s=60, on_stale="serve", poll_s=3600) as cache:
            cache.get("g0")
            cache._clock = lambda: time.monotonic() + 3600
            shop.adds("g0")
            assert cache.get("g0").on_hand == 10
            assert not cache.status().fresh

    def test_a_generation_swap_goes_unnoticed(self, maker, shop):
        """`rebuild stock`, and back again, beside a cache that is read: nothing is loaded anew."""
        with maker(shop.dsn, max_staleness_s=60) as cache:
            connect = partial(database.connect, shop.dsn, purpose="test")
            for swap in (lambda: rebuild(connect, Stock()), lambda: roll_back(connect, Stock())):
                swap()
                token = shop.adds("g0")
                level = cache.get("g0", at_least=token, timeout_s=PATIENCE_S)
                assert level == shop_stock(shop)["g0"]
            assert (cache.status().loads, cache.status().resets) == (1, 0)

    def test_pruning_past_a_slow_feeder_loads_anew(self, maker, shop):
        """The changes that it missed are gone: it loads the stock, and misses nothing."""
        with proxied(shop.dsn) as (proxy, dsn), maker(dsn, max_staleness_s=60) as cache:
            cache.get("g0")
            proxy.stall()
            shop.adds("g0", 5)
            token = shop.adds("g1", 7)
            assert stock_delta.prune(shop.conn, timedelta(0))
            proxy.cut()
            assert cache.get("g0", at_least=token, timeout_s=PATIENCE_S).on_hand == 15
            assert cache.get("g1").on_hand == 17
            assert cache.status().resets == 0

    def test_a_restored_ledger_is_another_past(self, maker, shop, services):
        """Noticed at the next poll: lost values aren't served, exactly the lost tokens are refused."""
        kept = shop.adds("g0")
        with saved(services, shop) as restore, maker(shop.dsn, max_staleness_s=60) as cache:
            lost = [shop.adds("g0"), shop.adds("g0"), shop.adds("g1")]
            assert cache.get("g0", at_least=lost[-1], timeout_s=PATIENCE_S).on_hand == 13
            restore()
            eventually(lambda: cache.status().resets == 1 and cache.get("g0").on_hand == 11)
            shop.again()
            new = shop.adds("g0", 40)
            assert cache.get("g0", at_least=new, timeout_s=PATIENCE_S).on_hand == 51
            assert cache.get("g1").on_hand == 10
            assert cache.get("g0", at_least=kept).on_hand == 51
            for token in lost:
                with pytest.raises(HistoryChanged):
                    cache.get("g0", at_least=token, timeout_s=PATIENCE_S)

    def test_a_forked_child_has_no_feeder(self, strategy, shop):
        """It says so until it starts its own; the parent's goes on."""
        with strategy(shop.dsn, max_staleness_s=60) as cache:
            cache.get("g0")
            assert forked(partial(child, cache)) == "call start() in this process, 10"
            token = shop.adds("g0")
            assert cache.get("g0", at_least=token, timeout_s=PATIENCE_S).on_hand == 11

    def test_a_closed_cache_serves_nothing(self, maker, shop):
        """Nor can it be started again; its sessions are gone."""
        with maker(shop.dsn, max_staleness_s=60) as cache:
            cache.get("g0")
        for call in (lambda: cache.get("g0"), lambda: cache.get_many(["g0"]), cache.start):
            with pytest.raises(Stale, match="it was closed"):
                call()
        eventually(lambda: sessions(shop) == 0)

    def test_a_cache_that_was_not_started_says_so(self, maker, shop):
        """Whoever forgets `with` or `start` reads nothing."""
        with pytest.raises(Stale, match="it was never started"):
            maker(shop.dsn).get("g0")

    def test_a_start_that_can_not_succeed_says_why(self, strategy, shop):
        """At once where repeating it is in vain, else after the time that was given."""
        empty = make_conninfo(shop.dsn, dbname="postgres")
        with pytest.raises(LedgerError) as refused:
            strategy(empty).start(timeout_s=PATIENCE_S)
        assert refused.value.code == "SL-DB-003"
        with pytest.raises(LedgerError) as refused:
            strategy(make_conninfo(shop.dsn, port=1)).start(timeout_s=0.1)
        assert refused.value.code == "SL-DB-001"

    @pytest.mark.slow
    def test_a_frozen_backend_is_given_up(self, maker):
        """SIGSTOP to the server's process of the feeder: half open; another session takes its place."""
        with EmbeddedPostgres() as server:
            dsn = server.dsn()
            with database.connect(dsn, purpose="test") as conn:
                migrate.migrate(conn)
            shop = Shop(dsn)
            shop.lists("g0")
            with maker(dsn, max_staleness_s=0.5) as cache:
                eventually(lambda: cache.get("g0"))
                rows = shop.conn.execute(
                    "SELECT pid FROM pg_stat_activity WHERE application_name = 'stockledger/cache'"
                )
                frozen = [pid for (pid,) in rows]
                for pid in frozen:
                    os.kill(pid, signal.SIGSTOP)
                try:
                    eventually(lambda: is_stale(cache))
                    token = shop.adds("g0")
                    eventually(lambda: cache.get("g0", at_least=token).on_hand == 11)
                finally:
                    for pid in frozen:
                        os.kill(pid, signal.SIGCONT)
            shop.conn.close()


class TestWhole:
    """Caches that hold all goods."""

    def test_each_snapshot_is_the_stock_as_of_its_position(self, holding, shop):
        """While batches commit: all entries up to it, none after it."""
        with holding(shop.dsn, max_staleness_s=60, partition="value", low_below=10) as cache:
            stop = threading.Event()
            writer = threading.Thread(target=write, args=(shop, stop))
            writer.start()
            taken: dict[str, list[dict[str, StockLevel]]] = {}
            try:
                eventually(lambda: take(cache, taken) >= 20)
            finally:
                stop.set()
                writer.join()
        with Ledger(shop.dsn) as ledger:
            for token, snapshots in taken.items():
                truth = {
                    level.goods_id: level for level in ledger.stock_levels(as_of=int(token.split("-")[0]))
                }
                for snapshot in snapshots:
                    assert snapshot.items() <= truth.items()

    def test_it_loads_page_by_page_beside_batches(self, holding, shop, monkeypatch):
        """A copy in pages of one row, while stock moves: still of one position."""
        monkeypatch.setattr("ledger.cache.loading.PAGE_ROWS", 1)
        stop = threading.Event()
        writer = threading.Thread(target=write, args=(shop, stop))
        writer.start()
        try:
            for _ in range(5):
                with holding(shop.dsn, max_staleness_s=60) as cache:
                    assert sum(level.on_hand for level in cache.snapshot().values()) == 60
        finally:
            stop.set()
            writer.join()


def shop_stock(shop):
    with Ledger(shop.dsn) as ledger:
        return {level.goods_id: level for level in ledger.stock_levels(as_of=ledger.status().position)}


def write(shop, stop):
    number = 0
    while not stop.is_set():
        number += 1
        shop.moves(GOODS[number % 6], GOODS[number * 5 % 6 - 1])


def take(cache, taken):
    for snapshot in (cache.snapshot(), cache.in_band("low"), cache.get_many(GOODS)):
        taken.setdefault(snapshot.token, []).append(dict(snapshot))
    return len(taken)


def sessions(shop):
    row = shop.conn.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stockledger/cache'"
        " AND datname = current_database()"
    ).fetchone()
    return row[0]


def name_of(shop):
    return sql.Identifier(str(conninfo_to_dict(shop.dsn)["dbname"]))


def stop_sessions(admin, shop):
    """Nobody may connect to the shop's database any more, and who is connected is ended."""
    admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name_of(shop)))
    admin.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = %s AND pid <> pg_backend_pid()",
        (conninfo_to_dict(shop.dsn)["dbname"],),
    )


def allow_sessions(admin, shop):
    admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name_of(shop)))


@contextmanager
def saved(services, shop):
    """The shop's database as it is now; the function that is yielded puts that in its place."""
    name = conninfo_to_dict(shop.dsn)["dbname"]
    backup, lost = sql.Identifier(f"{name}_backup"), sql.Identifier(f"{name}_lost")
    with psycopg.connect(services.postgres.dsn(), autocommit=True) as admin:
        shop.conn.close()
        stop_sessions(admin, shop)  # a template has no sessions
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(backup, name_of(shop)))
        allow_sessions(admin, shop)
        shop.again()

        def restore():
            stop_sessions(admin, shop)
            admin.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(name_of(shop), lost))
            admin.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(backup, name_of(shop)))

        try:
            yield restore
        finally:
            for gone in (backup, lost):
                admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(gone))


def child(cache):
    try:
        cache.get("g0")
    except Stale as stale:
        said = stale.remedy
    cache.start()
    level = cache.get("g0")
    cache.close()
    return f"{said}, {level.on_hand}"
