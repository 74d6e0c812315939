"""Whatever a role or a database may have set, workers, `verify` and the answers do what they always do.

Every setting that a session may have otherwise, out of `pg_settings`: a switch the other way, each other word
of a list, the least and the greatest number, odd texts. Several at a time, but no two values of one.
"""

import itertools
import threading

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from consumer.log import logger
from consumer.processor import Processor
from ledger.api import Ledger
from ledger.domain.commands import CancelPurchase, ListGoods, PurchaseGoods, ReceiveStock, RegisterUser
from ledger.domain.delivery import Lane, Record
from ledger.errors import ReadOnly, UnsafeSettings
from ledger.store.connection import database, pinned
from ledger.store.connection.server import require_durable, require_writable
from ledger.verify.run import verify
from ledger.verify.scope import scope_of
from tests.support.batches import TOPIC, Lanes, says
from tests.support.history import AWKWARD, on_hand

SETTABLE = """
SELECT name, vartype, setting, min_val, max_val, enumvals FROM pg_settings
WHERE context IN ('user', 'superuser', 'backend', 'superuser-backend') ORDER BY name
"""
TOGETHER = 8
TEXTS = {
    "application_name": ["x"],
    "client_encoding": ["LATIN1", "SQL_ASCII"],
    "createrole_self_grant": ["set, inherit"],
    "DateStyle": ["SQL, DMY", "German", "Postgres, YMD"],
    "default_text_search_config": ["pg_catalog.german"],
    "lc_messages": ["C"],
    "lc_monetary": ["C"],
    "lc_numeric": ["C"],
    "lc_time": ["C"],
    "log_connections": ["on"],
    "plpgsql.extra_errors": ["all"],
    "plpgsql.extra_warnings": ["all"],
    "restrict_nonsystem_relation_kind": ["view", "foreign-table"],
    "search_path": ["public", '""'],
    "TimeZone": ["Asia/Kathmandu", "America/St_Johns"],
    "timezone_abbreviations": ["Australia", "India"],
}
"""Odd values of the settings that are texts."""
NAMED = {"default_transaction_read_only": "on", "synchronous_commit": "off", "transaction_read_only": "on"}
"""Refused by preflight, with the setting named: see below, and test_unfit."""
NEEDS_MORE = {
    "backtrace_functions": "names functions of the server itself",
    "default_table_access_method": "needs another one to be installed",
    "default_tablespace": "needs another one to be made",
    "dynamic_library_path": "where the server's own libraries are",
    "extension_control_path": "where the server's own extensions are",
    "extension_destdir": "where the server's own extensions are",
    "local_preload_libraries": "needs a library",
    "output_plugin_libraries": "needs a library",
    "session_preload_libraries": "needs a library",
    "temp_tablespaces": "needs another one to be made",
    "wal_consistency_checking": "for developers of the server",
    "log_statement_stats": "shuts out other settings",
    "max_stack_depth": "its greatest value is the operating system's",
    "post_auth_delay": "lets a connection wait for so many seconds",
    "role": "is who one is",
    "session_authorization": "is who one is",
    "transaction_deferrable": "is of one transaction",
    "transaction_isolation": "is of one transaction",
}
"""Not tried, and why."""


def odd_values(name, kind, setting, least, greatest, words):
    """What else the setting could be."""
    if kind == "bool":
        return ["off" if setting == "on" else "on"]
    if kind == "enum":
        return [word for word in words if word != setting]
    if kind in ("integer", "real"):
        return [value for value in (least, greatest) if value != setting]
    return TEXTS[name]


def groups(rows):
    """All odd values of all settings, no two of one setting in a group."""
    by_name = {
        row[0]: [value for value in odd_values(*row) if NAMED.get(row[0]) != value]
        for row in rows
        if row[0] not in NEEDS_MORE
    }
    for layer in itertools.zip_longest(*by_name.values()):
        pairs = [(name, value) for name, value in zip(by_name, layer, strict=True) if value is not None]
        for first in range(0, len(pairs), TOGETHER):
            yield dict(pairs[first : first + TOGETHER])


def with_options(dsn, settings):
    """As if the role had them set: what comes with the connection counts like that."""
    escaped = {name: value.replace("\\", "\\\\").replace(" ", "\\ ") for name, value in settings.items()}
    return make_conninfo(dsn, options=" ".join(f"-c {name}={value}" for name, value in escaped.items()))


class Load:
    """Two lanes that share goods, each with a worker of its own in a thread."""

    def __init__(self, dsn):
        self.round = 0
        with database.connect(dsn, purpose="test") as conn:
            self.lanes = Lanes(conn)
            self.lanes.apply(
                0,
                says("user", RegisterUser(user_id="anna", name=AWKWARD)),
                *(says(f"list-{n}", ListGoods(goods_id=f"tea{n}")) for n in range(3)),
                *(says(f"stock-{n}", ReceiveStock(goods_id=f"tea{n}", quantity=10**9)) for n in range(3)),
            )

    def records(self, lane):
        """One of everything, of this round and lane."""
        name = f"{self.round}-{lane}"
        buys = [
            says(f"{name}-p{n}", PurchaseGoods(user_id="anna", goods_id=f"tea{n}", quantity=1))
            for n in range(3)
        ]
        return [
            says(f"{name}-u", RegisterUser(user_id=name, name=AWKWARD)),
            *buys,
            buys[0],
            says(f"{name}-p1", PurchaseGoods(user_id="anna", goods_id="tea1", quantity=2)),
            says(f"{name}-c", CancelPurchase(goods_id="tea2", purchase_id=f"{name}-p2")),
            Record(b"\x00\xff", b"\xff", [("none", None), ("", b""), ("x", b"\\N")]),
        ]

    def run(self, dsn):
        """Both workers apply theirs at once, in sessions of this DSN; then all is read and verified there."""
        self.round += 1
        failed = []

        def work(conn, batch, epoch):
            try:
                Processor(conn, logger()).apply(batch, epoch)
            except BaseException as error:  # noqa: BLE001 (handed to the test)
                failed.append(error)

        with database.connect(dsn, purpose="test") as one, database.connect(dsn, purpose="test") as other:
            # else each commit of the other would be a lost race: seldom twelve in a row, so ask
            assert one.execute("SHOW transaction_isolation").fetchone() == ("read committed",)
            self.lanes.conn = one
            threads = []
            for lane, conn in ((1, one), (2, other)):
                batch = self.lanes.batch(lane, *self.records(lane))
                claim = self.lanes.claims[lane]
                self.lanes.delivered.setdefault(batch.lane, {}).update(
                    {d.offset: d for d in batch.deliveries}
                )
                self.lanes.claims[lane] = claim._replace(next_offset=batch.next_offset)
                threads.append(threading.Thread(target=work, args=(conn, batch, claim.epoch)))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if failed:
                raise failed[0]
            since = max(self._position(one) - 2, 1)
            found = list(verify(one, scope=scope_of(one, since=since), deliveries=self.lanes.deliveries))
            assert [check for check in found if not check.ok] == []
        self._read(dsn)

    def _position(self, conn):
        return conn.execute("SELECT position FROM ledger.head").fetchone()[0]

    def _read(self, dsn):
        with Ledger(dsn) as ledger:
            assert on_hand(ledger, "tea0") == 10**9 - 2 * self.round
            assert on_hand(ledger, "tea2", ledger.status().position) == 10**9
            assert ledger.outcome(f"{self.round}-1-p1")[0].conflicts[0].offset % 8 == 5
            last = ledger.dead_letter(Lane(TOPIC, 2), 8 * self.round - 1)
            assert last
            assert last.record.headers == [("none", None), ("", b""), ("x", b"\\N")]
            assert ledger.why("tea1", 5)[0].sum == 10**9 - 2 * self.round


def settable(dsn):
    """What a session may have otherwise, with the value that it has."""
    with psycopg.connect(dsn) as plain:
        plain.execute("LOAD 'plpgsql'")  # it has some of its own
        return plain.execute(SETTABLE).fetchall()


def test_no_setting_of_a_role_changes_what_a_ledger_does(ledger_dsn):
    """Two workers under load, verify and the answers, in sessions that have it otherwise."""
    load = Load(ledger_dsn)
    rows = settable(ledger_dsn)
    tried = list(groups(rows))
    assert len(tried) > 40
    for group in tried:
        try:
            load.run(with_options(ledger_dsn, group))
        except Exception as error:
            raise AssertionError(f"with {group}") from error


def test_a_plan_that_needs_too_much_memory_is_none_of_ours(ledger_dsn):
    """Not even of the statement that pins the settings: two that are harmless alone would end it together."""
    asks = {"geqo_threshold": "2", "geqo_pool_size": "2147483647"}
    with database.connect(with_options(ledger_dsn, asks), purpose="test") as conn:
        assert conn.execute("SHOW geqo_threshold").fetchone() == ("12",)
    with psycopg.connect(with_options(ledger_dsn, asks)) as theirs, Ledger(theirs) as ledger:
        assert ledger.status().position == 0
        assert theirs.execute("SHOW geqo_threshold").fetchone() == ("2",)


def test_what_would_break_the_promise_is_named(ledger_dsn):
    """Not overruled, because somebody meant it: a worker doesn't start, and says which setting it is."""
    forgets = with_options(ledger_dsn, {"synchronous_commit": "off"})
    with (
        database.connect(forgets, purpose="test") as conn,
        pytest.raises(UnsafeSettings, match="synchronous_commit"),
    ):
        require_durable(conn)
    read_only = with_options(ledger_dsn, {"default_transaction_read_only": "on"})
    with database.connect(read_only, purpose="test") as conn, pytest.raises(ReadOnly, match="read_only"):
        require_writable(conn)


def test_what_is_pinned_is_there(ledger_dsn):
    """Each pinned setting is one of the server's, and has the value that it is pinned to."""
    newer = {"restrict_nonsystem_relation_kind", "debug_parallel_query"}
    with database.connect(ledger_dsn, purpose="test") as conn:
        found: dict[str, str] = dict(conn.execute("SELECT name, setting FROM pg_settings").fetchall())
    assert set(pinned.SETTINGS) - set(found) <= newer
    assert {name: found[name] for name in pinned.SETTINGS if name in found} == {
        name: value for name, value in pinned.SETTINGS.items() if name in found
    }
