"""Statements and their plans: the schema understands each one, and the hot ones don't care how much there is.

What counts is buffers read, not the name of a scan: at 1,000 rows a sequential scan is right.
"""

import importlib
import pkgutil
import re
from datetime import UTC, datetime
from threading import Event
from typing import Any

import psycopg
import pytest

from ledger import projections, store
from ledger.domain.delivery import Lane
from ledger.projections import purchases_by_user, sales_by_day, user_events
from ledger.projections import stock as projected_stock
from ledger.projections.sales_by_day import SalesByDay
from ledger.rebuilding import projector
from ledger.rebuilding.projector import Projector, Told
from ledger.store.connection import database
from ledger.store.connection.copy import texts
from ledger.store.reads import buyers, columns, coverage, history, paces, ranges, recent
from ledger.store.reads.ranges import Range
from ledger.store.rules import audit, journal_rules, message_rules
from ledger.store.tables import (
    account,
    conflict,
    dead_letter,
    event,
    journal,
    lane,
    processed_message,
    stock,
    stock_delta,
)
from tests.support.projections import connector

SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|MERGE|WITH|COPY|CREATE|SAVEPOINT)\b")
COPY_OUT = re.compile(r"^\s*COPY \((.*)\) TO STDOUT\s*$", re.DOTALL)
SHARED = re.compile(r"Buffers: shared([^,\n]*)")
SEVERAL = {"journal.SEAL_AND_COMMIT", "migrate.BOOTSTRAP"}
"""Constants that hold more than one statement, which PREPARE doesn't take."""


def constants() -> dict[str, str]:
    """Every statement of the storage and of the projections, by the name of its constant."""
    return {
        f"{module.name.rpartition('.')[2]}.{name}": value
        for package in (store, projections)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        for name, value in vars(importlib.import_module(module.name)).items()
        if name.isupper() and isinstance(value, str) and SQL.match(value)
    }


def named(statement: str) -> list[str]:
    """The statement's named placeholders, in order."""
    return list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))


def prepared(statement: str) -> str:
    """The statement as PREPARE takes it: with Postgres' own placeholders, and of a COPY its query."""
    for number, name in enumerate(named(statement), 1):
        statement = statement.replace(f"%({name})s", f"${number}")
    first, *rest = COPY_OUT.sub(r"\1", statement).split("%s")
    return first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        yield conn


def test_every_statement_fits_the_schema(conn):
    """Of each statement constant of storage and projections, tables, columns, functions and types exist."""
    found = constants()
    assert len(found) > 60
    for name, statement in found.items():
        if name in SEVERAL:
            with conn.transaction(force_rollback=True):
                if name != "journal.SEAL_AND_COMMIT":
                    conn.execute(statement)
        elif statement.strip().endswith("FROM STDIN"):
            with conn.cursor() as cursor, cursor.copy(statement):
                pass  # no rows: the columns are what is looked at
        else:
            conn.execute(f'PREPARE "{name}" AS {prepared(statement)}')


# A ledger of any size, written with a broad brush: 100 purchases an entry, 500 streams.
GROW = (
    """INSERT INTO ledger.journal
       SELECT p, p, 't', 0, 1, (p - 1) * 100, p * 100, 100, 0, 0, 0, 0, 0, now(), '', ''
       FROM generate_series(%(first)s / 100 + 1, %(last)s / 100) p""",
    """INSERT INTO ledger.event
       SELECT (n - 1) / 100 + 1, (n - 1) %% 100, 'goods-g' || n %% 500, n / 500 + 1, 'GoodsPurchased',
              json_build_object('user_id', 'u' || n, 'goods_id', 'g' || n %% 500, 'quantity', 1),
              -1, 'u' || n, 'shop', 'id-' || to_char(n, 'FM00000000')
       FROM generate_series(%(first)s + 1, %(last)s) n""",
    """INSERT INTO ledger.processed_message
       SELECT (n - 1) / 100 + 1, n - 1, n / 500 + 1, NULL, sha256(n::text::bytea), 'shop',
              'id-' || to_char(n, 'FM00000000')
       FROM generate_series(%(first)s + 1, %(last)s) n""",
    """INSERT INTO ledger.stock (generation, goods_id, on_hand, version)
       SELECT 1, 'g' || n, n, 1 FROM generate_series(%(first)s + 1, %(last)s) n""",
    """INSERT INTO ledger.stock_delta
       SELECT p, 'g' || p, '1', '1' FROM generate_series(%(first)s / 100 + 1, %(last)s / 100) p""",
    """INSERT INTO ledger.account
       SELECT 'u' || n, 1, false FROM generate_series(%(first)s + 1, %(last)s) n""",
    """INSERT INTO ledger.cancellation
       SELECT (n - 1) / 100 + 1, 'shop', 'id-' || to_char(n, 'FM00000000')
       FROM generate_series(%(first)s + 1, %(last)s, 10) n""",
    """INSERT INTO ledger.dead_letter
       SELECT (n - 1) / 100 + 1, 't', 1, n, 'json', 'no JSON', NULL, '', NULL, NULL
       FROM generate_series(%(first)s + 1, %(last)s, 10) n""",
    """INSERT INTO ledger.conflict
       SELECT (n - 1) / 100 + 1, 'shop', 'id-' || to_char(n, 'FM00000000'), '', 't', 0, n, 'x', 't', 2, n, ''
       FROM generate_series(%(first)s + 1, %(last)s, 10) n""",
    """INSERT INTO ledger.purchases_by_user_rows
       SELECT 1, 'u' || n, 'g' || n %% 500, 1, 1, 0, 0 FROM generate_series(%(first)s + 1, %(last)s) n""",
)
SIZES = (1_000, 10_000, 100_000)
FREEZE = """
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT c.oid::regclass FROM pg_class c
                WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind = 'r' LOOP
        EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', name);
    END LOOP;
END $$
"""
"""Autovacuum keeps away from here on: it changes plans, indexes blocks, and what it reads is counted."""


def grow(conn, first: int, last: int) -> None:
    lane.begin(conn, Lane("t", 0), "topic-id")
    for statement in GROW:
        conn.execute(statement, {"first": first, "last": last})


def buffers(conn, statement: str, parameters) -> int:
    """The buffers that the statement reads, of its custom and of its generic plan the more costly one.

    The plan's costliest node counts: what a WITH writes isn't in its top one. It is read as text, since
    Postgres' JSON of a MERGE is none.
    """
    values = [parameters[name] for name in named(statement)] or list(parameters)
    marks = f"({', '.join(['%s'] * len(values))})" if values else ""
    worst = 0
    conn.execute(f"PREPARE hot AS {prepared(statement)}")
    for mode in ("force_custom_plan", "force_generic_plan"):
        conn.execute("SELECT set_config('plan_cache_mode', %s, false)", [mode])
        with conn.transaction(force_rollback=True), psycopg.ClientCursor(conn) as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS) EXECUTE hot {marks}", values)
            plan, _, _ = "\n".join(line for (line,) in cursor).partition("\nPlanning")
        reads = [sum(map(int, re.findall(r" (?:hit|read)=(\d+)", line))) for line in SHARED.findall(plan)]
        worst = max([worst, *reads])
    conn.execute("DEALLOCATE hot")
    return worst


def hot(size: int) -> dict[str, tuple[str, Any, int]]:
    """What a batch of up to 100 commands and look-ups run: statement, parameters, and the buffers allowed.

    A key costs up to 4 buffers: three levels of a B-tree and the row, which is written or locked for 3 more.
    The first call of a function in a session costs some hundred, for reading what it is made of.
    Entries cost up to three ranges of 32 blocks in each table, and the look into the ranges' index.
    """
    some = range(1, size, max(size // 100, 1))
    ids = [f"id-{n:08d}" for n in some]
    goods, users = [f"g{n}" for n in some], [f"u{n}" for n in some]
    bought = ["shop"] * 100, ids, [f"g{n % 500}" for n in some], [f"goods-g{n % 500}" for n in some]
    middle = size // 200
    page = Range(middle, middle + 1, middle, middle + 1, 0)._asdict()
    fresh = [f"id-{n:08d}-new" for n in some]
    entry = Range(middle + 1, middle + 1, middle + 1, middle + 1, 100).parameters(1)
    prefix = {"prefix": ids[50][:-2], "beyond": f"{ids[50][:-2]}\x7f", "source": None, "limit": 100}
    everywhere = {"first": 1, "last": size}
    columns_of_stock = [texts(goods), texts(["2"] * 100), texts(["5"] * 100)]
    return {
        "register: known keys": (processed_message.PROBE, [texts(ids)], 400),
        "register: fresh keys": (processed_message.PROBE, [texts(fresh)], 400),
        "stock: lock": (stock.LOCK, [texts(goods), 1], 700),
        "stock: read": (stock.READ, [1, texts(goods)], 400),
        "stock: write": (stock.WRITE, [size, 1, 0, *columns_of_stock], 900),
        "stock: insert": (stock.INSERT, [1, texts(fresh), *columns_of_stock[1:]], 900),
        "stock: changes, none": (stock_delta.POLL, [size // 100, 100], 200),
        "stock: changes": (stock_delta.POLL, [middle, 5], 60),
        "stock: a page": (stock_delta.PAGE, ["g5", 100], 200),
        "account: read": (account.READ, [texts(users)], 400),
        "account: write": (account.WRITE, [texts(fresh), texts(["1"] * 100), texts(["False"] * 100)], 1200),
        "register: entries": (processed_message.ORIGINS, [list(range(1, size // 100))], 4 * size // 100),
        "head: read": (journal.READ_HEAD, [], 4),
        "event: purchases": (event.PURCHASES, bought, 1200),
        "lane: advance": (lane.ADVANCE, [1, 0, 0, 0, b"", "t", 0, 0, 0], 40),
        "outcome by id": (processed_message.OUTCOMES, {"id": ids[50], "source": None}, 10),
        "outcomes by prefix": (processed_message.LIKE, prefix | everywhere, 900),
        "outcomes of a time": (
            processed_message.BETWEEN,
            {"first": middle, "last": middle + 15, "source": None, "limit": 100},
            700,
        ),
        "goods beside": (stock.NEIGHBOURS, {"goods_id": "g5x", "limit": 100}, 300),
        "event by position": (event.PLACES, [[middle], f"id-{middle * 100:08d}"], 120),
        "outcomes waited for": (processed_message.WAITED_FOR, [texts(ids)], 800),
        "outcomes waited for in vain": (processed_message.WAITED_FOR, [texts(fresh)], 400),
        "positions waited for": (coverage.COVERAGE, [["stock"] * 100, [*some]], 800),
        "a moment": (history.MOMENT, [middle], 10),
        "the end, proven": (history.END, [[middle]], 10),
        "live stock of a few goods": (history.LIVE, [goods], 450),
        "what a user bought": (
            buyers.PURCHASES,
            {"user": "u1", "position": 0, "ordinal": 0, "limit": 10},
            2000,
        ),
        "what a user bought last": (
            buyers.LATEST,
            {"user": "u1", "position": size, "ordinal": 0, "limit": 10},
            2000,
        ),
        "stock: listed": (stock.LISTED, ["g5", 100], 450),
        "dead letters after a place": (
            dead_letter.LIST,
            {"status": None, "code": None, "topic": "t", "partition": 1, "offset": size // 2, "limit": 50},
            600,
        ),
        "the pace of the last entries": (
            paces.PACES,
            {"now": datetime.now(UTC), "stretch_s": 10, "after": size // 100 - 10},
            60,
        ),
        "the newest entries": (recent.NEWEST, {"offsets": 500, "entries": 500}, 60),
        "goods on several lanes": (
            recent.SEVERAL_LANES,
            {"entries": 10, "goods": 1_000, "examples": 3},
            60,
        ),
        "conflicts of a range": (conflict.IN_RANGE, ["t", 2, size // 2, size // 2 + 100], 10),
        "dead letters of a range": (dead_letter.IN_RANGE, ["t", 1, size // 2, size // 2 + 100], 10),
        "entries of a lane": (journal.LANE_ROWS, ["t", 0, size // 2, size // 2 + 1000, size], 10),
        "register lines of entries": (processed_message.LINES, [middle, middle + 1], 120),
        "event lines of entries": (event.LINES, [middle, middle + 1], 120),
        "outcomes of a page": (message_rules.OUTCOMES, page, 240),
        "events of a page": (message_rules.EVENTS, page, 120),
        "events by the column": (columns.EVENTS, page, 240),
        "outcomes by the column": (columns.OUTCOMES, page, 240),
        "entries of a page": (journal_rules.ENTRIES, page, 600),
        "offsets of a page": (journal_rules.OFFSETS, page, 500),
        "orphans of a page": (journal_rules.ORPHANS, page, 600),
        "cancellations of a page": (message_rules.CANCELLATIONS, page, 240),
        "message keys of a page": (message_rules.ONCE, page, 1000),
        "buyers of a page": (message_rules.BUYERS, page, 2000),
        "stock: fold of an entry": (projected_stock.APPLY, entry, 1200),
        "stock: keys of an entry": (projected_stock.KEYS, entry, 400),
        "purchases_by_user: fold of an entry": (purchases_by_user.APPLY, entry, 1800),
        "purchases_by_user: keys of an entry": (purchases_by_user.KEYS, entry, 400),
        "sales_by_day: fold of an entry": (sales_by_day.APPLY, entry, 400),
        "user_events: fold of an entry": (user_events.APPLY, entry, 400),
        "user_events: keys of an entry": (user_events.KEYS, entry, 400),
    }


def test_hot_statements_do_not_care_how_much_there_is(conn):
    """From 1,000 to 100,000 rows the buffers that a batch and a look-up read stay under the same bound."""
    seen: dict[str, list[int]] = {}
    last = 0
    for size in SIZES:
        grow(conn, last, size)
        conn.execute("VACUUM (ANALYZE)")
        last = size
        for name, (statement, parameters, _) in hot(size).items():
            seen.setdefault(name, []).append(buffers(conn, statement, parameters))
    allowed = {name: bound for name, (_, _, bound) in hot(last).items()}
    print(*(f"{name:30} {costs}  of {allowed[name]}" for name, costs in seen.items()), sep="\n")
    assert {name: costs for name, costs in seen.items() if max(costs) > allowed[name]} == {}


def test_pages_are_local_in_a_table_that_was_just_filled(conn):
    """A page of verify reads its rows and not the table, although autovacuum hasn't indexed them yet."""
    conn.execute(FREEZE)
    conn.execute("ALTER INDEX ledger.event_entry SET (autosummarize = off)")
    grow(conn, 0, 20_000)
    page = Range(50, 51, 50, 51, 0)._asdict()
    [(blocks,)] = conn.execute("SELECT pg_relation_size('ledger.event') / 8192")
    assert buffers(conn, message_rules.EVENTS, page) >= blocks
    audit.settle(conn)
    assert buffers(conn, message_rules.EVENTS, page) <= hot(20_000)["events of a page"][-1]


def event_blocks(*connections: psycopg.Connection) -> int:
    """How often a block of the events' table was read so far, by these connections and any that ended."""
    for conn in connections:
        conn.execute("SELECT pg_stat_force_next_flush()")
    [(blocks,)] = connections[0].execute(
        """SELECT heap_blks_read + heap_blks_hit FROM pg_statio_user_tables
           WHERE relid = 'ledger.event'::regclass"""
    )
    return int(blocks)


class Arriving(Told):
    """Whenever a step was applied, another thousand events come, until there are enough."""

    def __init__(self, conn: psycopg.Connection, follower: psycopg.Connection, stop: Event) -> None:
        self._conn, self._follower, self._stop = conn, follower, stop
        self._last = 0
        self.reads: list[int] = []
        """The blocks of events that each step read."""
        self._arrive()

    def applied(self, name: str, events: int) -> None:
        assert events == 1_000
        self.reads.append(event_blocks(self._conn, self._follower) - self._before)
        if len(self.reads) == 40:
            self._stop.set()
        else:
            self._arrive()

    def _arrive(self) -> None:
        grow(self._conn, self._last, self._last + 1_000)
        self._conn.execute("ANALYZE ledger.event, ledger.journal")  # of which no index learns
        self._last += 1_000
        self._before = event_blocks(self._conn, self._follower)


def test_a_projector_reads_its_step_and_not_the_tail_again(conn, ledger_dsn, monkeypatch):
    """Events come and no vacuum does: what a step reads doesn't grow with what came since the last one."""
    monkeypatch.setattr(projector, "SUMMARIZE_INTERVAL_S", 0)
    conn.execute(FREEZE)
    conn.execute("ALTER INDEX ledger.event_entry SET (autosummarize = off)")
    stop = Event()
    follower = connector(ledger_dsn)()
    told = Arriving(conn, follower, stop)
    Projector(lambda: follower, [SalesByDay()], stop=stop, told=told).run()
    [(blocks,)] = conn.execute("SELECT pg_relation_size('ledger.event') / 8192")
    assert max(told.reads) <= 4 * 32 < blocks / 4, told.reads


def test_nobody_is_waited_for_to_find_events(conn, ledger_dsn):
    """Whoever holds the lock that a vacuum takes isn't waited for; the index stays as it is."""
    conn.execute(FREEZE)
    grow(conn, 0, 2_000)
    with database.connect(ledger_dsn, purpose="test") as other, other.transaction():
        other.execute("LOCK TABLE ledger.event IN SHARE UPDATE EXCLUSIVE MODE")
        conn.execute("SET lock_timeout = 0")
        ranges.summarize_events(conn)
    assert conn.execute("SELECT brin_summarize_new_values('ledger.event_entry')").fetchone() == (1,)


def test_a_row_that_was_waited_for_is_checked_by_itself(conn):
    """Postgres checks the conditions again for a row that it waited for: none of them holds the list of all
    goods. (Read anew for each of 1,000 goods that two lanes shared, it took 58 ms.)"""
    conn.execute(f"PREPARE locking AS {prepared(stock.LOCK)}")
    conn.execute("SET plan_cache_mode = force_generic_plan")
    with psycopg.ClientCursor(conn) as cursor:
        cursor.execute("EXPLAIN (VERBOSE) EXECUTE locking (%s, 1)", [texts(["g1", "g2"])])
        conditions = [line for (line,) in cursor if "Cond:" in line or "Filter:" in line]
    assert conditions
    assert not any("string_to_array" in line for line in conditions), conditions
