"""`verify` over a part of the ledger, and on several connections: as right as all on one, and cheaper."""

import _thread
import signal
import threading
from contextlib import ExitStack, closing

import psycopg
import pytest

from ledger.domain.commands import ListGoods, ReceiveStock, RegisterUser
from ledger.errors import Unavailable
from ledger.store.connection import database
from ledger.store.rules import audit
from ledger.store.schema import dump
from ledger.verify.pool import in_order
from ledger.verify.run import BUDGETS, verify
from ledger.verify.scope import Sample, scope_of
from tests.postgres.test_plans import FREEZE, grow
from tests.postgres.test_verify import LOOSEN, differences
from tests.support.batches import Lanes, says
from tests.support.history import buys, history

EVERYTHING_ONLY = {"projections", "followed", "purchases", "sales"}
"""Checks that take the whole ledger."""


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test", budgets=BUDGETS) as conn:
        yield conn


@pytest.fixture
def helpers(ledger_dsn):
    """Two more connections."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(database.connect(ledger_dsn, purpose="test", budgets=BUDGETS))
            for _ in range(2)
        ]


@pytest.fixture
def small_pages(monkeypatch):
    """Every entry is a page of its own."""
    monkeypatch.setattr(audit, "RANGE_DELIVERIES", 1)


# Since


def test_since_counts_what_lies_after_it(conn):
    """Only the entries after the position are looked at, and the streams that they touched."""
    lanes = history(conn)
    found = list(verify(conn, scope=scope_of(conn, since=5), deliveries=lanes.deliveries))
    assert {f.name: f.figure for f in found if f.ok} == {
        "schema": f"{len(dump.expected())} parts",
        "journal": "2 positions",
        "lanes": "2 entries",
        "entries": "2 entries",
        "offsets": "3 rows",
        "orphans": "7 rows",
        "once": "2 messages",
        "outcomes": "2 messages",
        "events": "2 events",
        "buyers": "1 purchases",
        "versions": "1 streams",
        "bounds": "1 goods",
        "stock": "1 goods",
        "deltas": "1 changes",
        "accounts": "0 users",
        "cancellations": "1 purchases",
        "conflicts": "0 conflicts",
        "fingerprints": "2 events",
        "chain": "6 rows",
        "topic": "2 records, 0 no longer in Kafka",
    }


@pytest.mark.parametrize("since", range(8))
def test_what_the_ledger_wrote_is_green_after_every_position(conn, small_pages, since):
    """Wherever a run begins, also at the head, what the ledger wrote keeps every rule."""
    lanes = history(conn)
    assert differences(conn, scope=scope_of(conn, since=since), deliveries=lanes.deliveries) == {}


@pytest.mark.parametrize("since", [-1, 8])
def test_a_position_that_is_not_there_is_refused(conn, since):
    """A run can't begin before the first entry or after the last one."""
    history(conn)
    with pytest.raises(ValueError, match=f"no position {since}: the journal ends at 7"):
        scope_of(conn, since=since)


# What was changed, and the checks of a run after position 5 that find it; a full run finds them all.
SINCE = {
    "an event after it": (
        "UPDATE ledger.event SET delta = delta + 1 WHERE id = 'p5'",
        {"events", "stock", "deltas", "chain"},
    ),
    "a register row after it": (
        "UPDATE ledger.processed_message SET version = 8 WHERE id = 'p5'",
        {"outcomes", "chain"},
    ),
    "a cancellation after it": (
        "DELETE FROM ledger.cancellation WHERE id = 'p4'",
        {"cancellations", "chain"},
    ),
    "a gap after it": ("DELETE FROM ledger.gap WHERE cause = 'before_start'", {"entries", "chain"}),
    "the stock of goods touched after it": (
        "UPDATE ledger.stock SET on_hand = on_hand + 1 WHERE goods_id = 'tea'",
        {"stock"},
    ),
    "an event before it of a stream touched after it": (
        "UPDATE ledger.event SET delta = delta + 1 WHERE id = 'r1'",
        {"stock", "deltas"},
    ),
    "the hash that it begins with": (
        "UPDATE ledger.journal SET hash = sha256('') WHERE position = 5",
        {"chain"},
    ),
    "the entry that it begins with": (
        "DELETE FROM ledger.journal WHERE position = 5",
        {"journal", "lanes", "chain"},
    ),
    "the lane's entry before it": (
        "UPDATE ledger.journal SET next_offset = next_offset + 1 WHERE position = 6",
        {"lanes", "entries", "chain"},
    ),
    "a row of no entry": (
        """INSERT INTO ledger.cancellation VALUES (77, 'shop', 'p6')""",
        {"orphans"},
    ),
    "a row of no entry, with a number before it": (
        """INSERT INTO ledger.cancellation VALUES (-3, 'shop', 'p6')""",
        set(),
    ),
    "the stock of other goods": ("UPDATE ledger.stock SET on_hand = 4 WHERE goods_id <> 'tea'", set()),
    "an event of another stream before it": (
        "UPDATE ledger.event SET payload = '{}'::json WHERE id = 'u2'",
        set(),
    ),
}


def test_since_finds_what_was_changed_after_it(conn, monkeypatch, subtests):
    """A run after a position names what was changed there and what that touched; the full run names all."""
    history(conn)
    monkeypatch.setattr(audit, "settle", lambda *_, **__: None)  # it doesn't run in a transaction
    for name, (statement, red) in SINCE.items():
        with subtests.test(name), conn.transaction(force_rollback=True):
            conn.execute(LOOSEN)
            assert conn.execute(statement).rowcount > 0
            assert differences(conn, scope=scope_of(conn, since=5)).keys() == red
            assert differences(conn)


ADOPT = """
UPDATE ledger.head SET (position, hash, recorded_at) =
    (SELECT position, hash, recorded_at FROM ledger.journal ORDER BY position DESC LIMIT 1)
"""
BLOCKS = """
SELECT sum(heap_blks_read + heap_blks_hit + coalesce(idx_blks_read + idx_blks_hit, 0))::bigint
FROM pg_statio_user_tables WHERE schemaname = 'ledger'
"""
BLOCKS_MAX = 1_500
"""What a run over the two entries below may read: a dozen looks into each table, in ranges of 32 blocks."""


@pytest.mark.parametrize("size", [1_000, 30_000, 150_000])
def test_since_reads_what_is_new_and_not_the_ledger(conn, ledger_dsn, size):
    """However much lies before the position, a run after it reads no more blocks than the bound.

    (The streams that it touches are read from their beginning; these begin after it.)
    """
    conn.execute(FREEZE)
    grow(conn, 0, size)
    conn.execute(ADOPT)
    conn.execute("SELECT setval('ledger.entry_number', %s)", (size,))
    conn.execute("UPDATE ledger.lane SET next_offset = %s, epoch = 1", (size,))
    conn.execute("VACUUM (ANALYZE)")
    lanes = Lanes(conn)
    lanes.apply(0, says("u1", RegisterUser(user_id="anna")), says("g1", ListGoods(goods_id="tea")))
    lanes.apply(1, says("r1", ReceiveStock(goods_id="tea", quantity=100)), buys("p1", "anna", 3))
    since = size // 100
    found, cost, before = [], {}, blocks(conn, ledger_dsn)
    for check in verify(conn, scope=scope_of(conn, since=since)):
        found.append(check)
        cost[check.name] = blocks(conn, ledger_dsn) - before
        before += cost[check.name]
    assert {f.name for f in found if not f.ok} == {"schema"}  # which names all that FREEZE did, one by one
    del cost["schema"]
    assert next(f.figure for f in found if f.name == "journal") == "2 positions"
    assert sum(cost.values()) <= BLOCKS_MAX, cost


def blocks(conn, ledger_dsn: str) -> int:
    """How many blocks of the ledger's tables and indexes were read so far."""
    conn.execute("SELECT pg_stat_force_next_flush()")
    conn.execute("SELECT")
    with psycopg.connect(ledger_dsn) as other:
        [(number,)] = other.execute(BLOCKS).fetchall()
    return int(number)


# Sample


def test_a_sample_is_the_same_for_the_same_seed(conn, small_pages):
    """A seed chooses the same pages, also when the journal has grown since; other seeds choose others."""
    lanes = history(conn)
    before = {seed: chosen(conn, Sample(60, seed)) for seed in range(20)}
    lanes.apply(1, buys("p6", "anna", 1))
    after = {seed: chosen(conn, Sample(60, seed)) for seed in range(20)}
    assert all(before[seed] == [first for first in after[seed] if first < 8] for seed in before)
    assert len({tuple(pages) for pages in before.values()}) > 10


def chosen(conn, sample: Sample, since: int = 0) -> list[int]:
    return [part.first for part in scope_of(conn, since=since, sample=sample).ranges]


@pytest.mark.parametrize(("percent", "pages"), [(1e-9, 1), (100, 7)])
def test_a_sample_has_a_page_at_least(conn, small_pages, percent, pages):
    """However little is asked for, something is looked at; of all, all."""
    history(conn)
    assert len(chosen(conn, Sample(percent, 1))) == pages


def test_a_sample_finds_what_was_changed_in_it(conn, small_pages, monkeypatch):
    """A changed row is found exactly by the samples that hold its page, and by all of them again."""
    history(conn)
    monkeypatch.setattr(audit, "settle", lambda *_, **__: None)  # it doesn't run in a transaction
    with conn.transaction(force_rollback=True):
        conn.execute(LOOSEN)
        conn.execute("UPDATE ledger.processed_message SET reason = 'goods_not_found' WHERE id = 'p3'")
        samples = [Sample(30, seed) for seed in range(20)]
        holds = [3 in chosen(conn, sample) for sample in samples]
        red = [differences(conn, scope=scope_of(conn, sample=sample)).keys() for sample in samples]
    assert red == [{"chain"} if each else set() for each in holds]
    assert any(holds)
    assert not all(holds)


def test_a_sample_of_what_is_new(conn, small_pages):
    """A sample is taken of what lies after the position, where one is given."""
    history(conn)
    taken = [chosen(conn, Sample(50, seed), since=4) for seed in range(20)]
    assert {first for pages in taken for first in pages} == {5, 6, 7}
    sample = Sample(50, 1)
    names = [found.name for found in verify(conn, scope=scope_of(conn, since=4, sample=sample))]
    assert not EVERYTHING_ONLY & set(names)


def test_a_sample_folds_so_many_of_the_streams(conn):
    """Of the streams that the chosen pages touch, as large a part is folded, and at least one."""
    lanes = Lanes(conn)
    lanes.apply(0, *(says(f"u{n}", RegisterUser(user_id=f"u{n}")) for n in range(200)))
    (versions,) = (
        found
        for found in verify(conn, scope=scope_of(conn, sample=Sample(10, 1)))
        if found.name == "versions"
    )
    assert 5 <= int(versions.figure.split()[0]) <= 50


# Side by side


def test_more_connections_find_the_same(conn, helpers, small_pages):
    """On several connections the checks come in the same order, with the same figures."""
    lanes = history(conn)
    alone = list(verify(conn, deliveries=lanes.deliveries))
    together = list(verify(conn, helpers=helpers, deliveries=lanes.deliveries))
    assert [(f.name, f.ok, f.figure) for f in together] == [(f.name, f.ok, f.figure) for f in alone]


def test_a_check_that_fails_hides_no_other(conn, helpers, small_pages):
    """Each failing check is there with its first difference, on one connection or on several."""
    lanes = history(conn)
    conn.execute(LOOSEN)
    for statement in (
        "UPDATE ledger.stock SET on_hand = on_hand + 1",
        "UPDATE ledger.account SET version = version + 1",
        "UPDATE ledger.processed_message SET fingerprint = '' WHERE id IN ('u1', 'p5')",
        "UPDATE ledger.event SET payload = '5' WHERE id IN ('u1', 'p5')",
    ):
        conn.execute(statement)
    alone = differences(conn, deliveries=lanes.deliveries)
    assert alone.keys() == {"stock", "accounts", "events", "fingerprints", "chain", "topic"}
    assert alone["chain"] == "position 1: its rows are not those that were sealed"
    assert differences(conn, helpers=helpers, deliveries=lanes.deliveries) == alone


def test_progress_is_told_in_the_callers_thread(conn, helpers, small_pages):
    """Whoever shows progress needs no lock, and each check ends at its end."""
    history(conn)
    told = []
    list(verify(conn, helpers=helpers, on_progress=lambda *at: told.append((threading.get_ident(), *at))))
    assert {thread for thread, *_ in told} == {threading.get_ident()}
    assert [at for _, name, at, _ in told if name == "entries"] == list(range(1, 8))
    assert {end for _, name, _, end in told if name == "entries"} == {7}


def test_what_runs_is_cancelled_when_nobody_waits(conn, helpers, ledger_dsn):
    """Ctrl-C, or a caller that has seen enough, ends statements that would run for minutes."""
    held = [threading.Event() for _ in helpers]

    def sleep(event: threading.Event):
        def run(own):
            event.set()
            own.execute("SELECT pg_sleep(600)")

        return run

    results = in_order([lambda _: 1, *map(sleep, held)], [conn, *helpers])
    with pytest.raises(KeyboardInterrupt):
        consume(results, held)
    with psycopg.connect(ledger_dsn) as other:
        assert other.execute(ASLEEP).fetchone() == (0,)


ASLEEP = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'"


def consume(results, held) -> None:
    """Wait until all sleep, then press Ctrl-C where the first result is awaited.

    As one that comes just before the wait begins: it ends no system call, and is heard by who looks.
    """

    def press() -> None:
        for event in held:
            event.wait()
        _thread.interrupt_main()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    timer = threading.Thread(target=press)
    timer.start()
    try:
        with closing(results):
            for _ in results:
                pass
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


def test_a_fault_ends_all(conn, helpers):
    """Where one connection breaks, the error comes to the caller, and the others are let go of."""
    history(conn)
    helpers[0].close()
    with pytest.raises((Unavailable, psycopg.OperationalError)):
        list(verify(conn, helpers=helpers))
    assert conn.execute("SELECT 1").fetchone() == (1,)


def test_several_connections_beside_a_busy_writer_are_green(conn, helpers, ledger_dsn, small_pages):
    """Verify on several connections is green while batches commit, after a position as well as over all."""
    history(conn)
    finished = threading.Event()
    written: list[int] = []

    def write() -> None:
        with database.connect(ledger_dsn, purpose="test") as other:
            writer = Lanes(other)
            while not finished.is_set():
                number = len(written)
                orders = [buys(f"t{number}-{n}", "anna", 1) for n in range(20)]
                more = says(f"r{number}", ReceiveStock(goods_id="tea", quantity=20))
                written.append(writer.apply(number % 3, more, *orders, orders[0]).position)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        rounds = 0
        while (len(written) < 50 or rounds < 3) and thread.is_alive():
            position = conn.execute("SELECT position FROM ledger.head").fetchone()[0]
            assert differences(conn, helpers=helpers) == {}
            assert differences(conn, helpers=helpers, scope=scope_of(conn, since=position)) == {}
            rounds += 1
    finally:
        finished.set()
        thread.join()
    assert len(written) >= 50
