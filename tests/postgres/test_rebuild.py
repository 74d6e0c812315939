"""Rebuild: a new generation beside the live one, resumable, compared row by row, swapped, swapped back."""

import os
import re
import socket
import subprocess

import psycopg
import pytest

from ledger import failpoints
from ledger.api import Ledger
from ledger.errors import (
    Contended,
    LedgerError,
    ProjectionDiffers,
    ProjectionFault,
    ProjectionRefused,
    ProjectionUnknown,
    RebuildRunning,
)
from ledger.projections.projection import Projection
from ledger.projections.purchases_by_user import PurchasesByUser
from ledger.projections.registry import SHIPPED, find
from ledger.projections.sales_by_day import SalesByDay
from ledger.projections.stock import Stock
from ledger.projections.user_events import UserEvents
from ledger.rebuilding.builder import builder
from ledger.rebuilding.pace import RebuildProgress
from ledger.rebuilding.rebuild import RebuildOptions, plan, rebuild, roll_back
from ledger.rebuilding.retire import cancel, drop_old
from ledger.store.connection import database
from ledger.store.tables import projection_state
from tests.support.clock import Clock
from tests.support.projections import (
    EXPECTED,
    Busy,
    compared,
    connector,
    follow,
    forge,
    is_right,
    purchases,
    rows,
    shop,
)

GENERATIONS = """
SELECT generation, status, position FROM ledger.projection
WHERE name = '{}' AND status <> 'dropped' ORDER BY 1
"""


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        yield conn


@pytest.fixture
def filled(conn, ledger_dsn, seed):
    """Twenty entries; the followers have caught up."""
    lanes = shop(conn)
    for n in range(20):
        lanes.apply(1 + n % 2, *purchases(seed, f"p{n}", 10))
    follow(ledger_dsn, *SHIPPED)
    return lanes


def generations(conn, name="purchases_by_user"):
    return rows(conn, GENERATIONS.format(name))


def table(conn, projection, generation):
    """The generation's rows, without its number."""
    found = rows(
        conn, f"SELECT * FROM ledger.{projection.table} WHERE generation = {generation} ORDER BY 2, 3"
    )
    return [row[1:] for row in found]


@pytest.mark.parametrize("projection", SHIPPED, ids=lambda p: p.name)
def test_a_rebuild_gives_the_same_rows_and_swaps(projection, conn, filled, ledger_dsn, seed):
    """The new generation is row by row the live one, and takes its place; the old one goes on following, and
    the same swap leads back; then it can be dropped."""
    before = table(conn, projection, 1)
    done = rebuild(connector(ledger_dsn), projection)
    assert compared(done).rows == len(before) > 0
    assert compared(done).differences == []
    assert generations(conn, projection.name) == [(1, "standby", 21), (2, "live", 21)]
    assert table(conn, projection, 2) == before
    filled.apply(1, *purchases(seed, "after", 10))
    follow(ledger_dsn, projection)
    assert table(conn, projection, 1) == table(conn, projection, 2) != before
    assert roll_back(connector(ledger_dsn), projection).live == 1
    filled.apply(1, *purchases(seed, "back", 10))
    follow(ledger_dsn, projection)
    assert table(conn, projection, 1) == table(conn, projection, 2)
    assert drop_old(conn, projection) == [2]
    assert [row[:2] for row in generations(conn, projection.name)] == [(1, "live")]
    assert rows(conn, f"SELECT to_regclass('ledger.{projection.table}_2')") == [(None,)]


@pytest.mark.parametrize("projection", SHIPPED, ids=lambda p: p.name)
def test_under_the_swaps_locks_only_the_pointer_moves(projection, filled, ledger_dsn, monkeypatch):
    """What takes long was done before: where nothing came since the comparison, no row of either generation
    is folded or compared while batches and readers wait."""
    ran, execute, hit = [], psycopg.Cursor.execute, failpoints.hit

    def noted(cursor, query, *args, **kwargs):
        ran.append(query if isinstance(query, str) else query.as_string(cursor))
        return execute(cursor, query, *args, **kwargs)

    def passed(step):
        ran.append(step)
        hit(step)

    monkeypatch.setattr(psycopg.Cursor, "execute", noted)
    monkeypatch.setattr(failpoints, "hit", passed)
    rebuild(connector(ledger_dsn), projection)
    swap = ran[ran.index("rebuild.compared") :]
    locked = swap[swap.index(projection_state.LOCK) + 1 : swap.index("rebuild.swap")]
    of_rows = re.compile(rf"\b{projection.table}(_\d+)?\b(?!_)")
    assert any(of_rows.search(statement) for statement in ran)
    assert 4 <= len(locked) <= 8, locked
    assert [statement for statement in locked if of_rows.search(statement)] == []


@pytest.mark.parametrize("projection", SHIPPED, ids=lambda p: p.name)
def test_an_empty_ledger_is_rebuilt(projection, conn, ledger_dsn):
    """0 events is a success."""
    assert plan(conn, projection).events == 0
    done = rebuild(connector(ledger_dsn), projection)
    assert (done.events, compared(done).rows, done.swapped.live) == (0, 0, 2)


# All that is known of each relation but what autovacuum may write there meanwhile.
SCHEMA = """
SELECT to_jsonb(c) - '{relpages, reltuples, relallvisible, relallfrozen, relfrozenxid, relminmxid}'::text[]
FROM pg_class c WHERE relnamespace = 'ledger'::regnamespace ORDER BY oid
"""


@pytest.mark.parametrize("projection", SHIPPED, ids=lambda p: p.name)
def test_a_plan_changes_nothing(projection, conn, filled):
    """The dry run tells events and an estimate from a measured sample, and leaves no trace."""
    before = rows(conn, SCHEMA), rows(conn, "SELECT * FROM ledger.projection ORDER BY 1, 2")
    found = plan(conn, projection)
    [(events,)] = rows(conn, "SELECT count(*) FROM ledger.event")
    assert (found.events, found.generation, found.resumes) == (events, 2, False)
    assert found.seconds
    assert (rows(conn, SCHEMA), rows(conn, "SELECT * FROM ledger.projection ORDER BY 1, 2")) == before


STEPS = [step for step in failpoints.REBUILD_STEPS if step.startswith("rebuild.")]


@pytest.mark.parametrize(
    ("projection", "jobs"),
    [(PurchasesByUser(), 1), (PurchasesByUser(), 3), (SalesByDay(), 3), (UserEvents(), 3)],
)
@pytest.mark.parametrize("step", STEPS)
def test_it_goes_on_where_it_ended(step, projection, jobs, conn, filled, ledger_dsn, monkeypatch):
    """Ended at any step, a rebuild that is started again goes on: nothing is applied twice or left out."""
    monkeypatch.setattr("ledger.rebuilding.build.CHUNK_EVENTS", 40)
    name = projection.name
    rebuild(connector(ledger_dsn), projection)  # leaves a standby, so that there is something to drop
    hits = {"rebuild.chunk": 2, "rebuild.drop": 1}
    monkeypatch.setitem(failpoints._armed, step, ("raise", hits.get(step, 1)))
    with pytest.raises(failpoints.Injected):
        rebuild(connector(ledger_dsn), projection, RebuildOptions(jobs=jobs))
    swapped = step in ("rebuild.swapped", "rebuild.drop")
    live = [generation for generation, status, _ in generations(conn, name) if status == "live"]
    assert live == [3 if swapped else 2]
    if not swapped:
        assert plan(conn, projection).resumes
        assert rebuild(connector(ledger_dsn), projection, RebuildOptions(jobs=jobs)).swapped.live == 3
    assert (
        is_right(conn, name) if name in EXPECTED else table(conn, projection, 3) == table(conn, projection, 2)
    )
    follow(ledger_dsn, projection)
    drop_old(conn, projection)
    assert len(generations(conn, name)) == 1


def test_a_share_that_is_done_is_not_applied_again(conn, filled, ledger_dsn, monkeypatch):
    """Ended while some shares have a range and others don't, it goes on with those, also with fewer jobs."""
    monkeypatch.setattr("ledger.rebuilding.build.CHUNK_EVENTS", 40)
    monkeypatch.setitem(failpoints._armed, "rebuild.chunk", ("raise", 3))
    with pytest.raises(failpoints.Injected):
        rebuild(connector(ledger_dsn), PurchasesByUser(), RebuildOptions(jobs=2))
    [(shares,)] = rows(conn, "SELECT cardinality(done) FROM ledger.projection WHERE status = 'building'")
    before = plan(conn, PurchasesByUser()).events
    [(all_events,)] = rows(conn, "SELECT sum(applied) FROM ledger.journal")
    assert (shares, 0 < before < all_events) == (2, True)
    done = rebuild(connector(ledger_dsn), PurchasesByUser(), RebuildOptions(jobs=1))
    assert abs(done.events - before) <= 1  # the halves of an odd number of events
    assert compared(done).differences == []
    assert is_right(conn, "purchases_by_user")


def test_a_generation_has_its_key_after_the_first_chunk(conn, filled, ledger_dsn, monkeypatch):
    """Built without its unique index at first, a generation never goes live without it."""
    keyed = """
        SELECT count(*) FROM pg_index
        WHERE indrelid = 'ledger.purchases_by_user_rows_2'::regclass AND indisunique"""
    monkeypatch.setattr("ledger.rebuilding.build.CHUNK_EVENTS", 40)
    monkeypatch.setitem(failpoints._armed, "rebuild.chunk", ("raise", 1))
    with pytest.raises(failpoints.Injected):
        rebuild(connector(ledger_dsn), PurchasesByUser())
    assert rows(conn, keyed) == [(0,)]
    rebuild(connector(ledger_dsn), PurchasesByUser())
    assert rows(conn, keyed) == [(1,)]


def test_a_program_rebuilds_by_name(conn, filled, ledger_dsn):
    """`Ledger.rebuild` builds, compares and swaps, and tells how far it is."""
    told: list[RebuildProgress] = []
    with Ledger(ledger_dsn) as ledger:
        done = ledger.rebuild("purchases_by_user", on_progress=told.append)
        with pytest.raises(ProjectionUnknown):
            ledger.rebuild("nothing")
    assert [now.phase for now in told if now.phase != "build"] == ["compare", "swap"]
    assert told[-1].events == done.events > 0
    assert compared(done).differences == []
    assert generations(conn) == [(1, "standby", 21), (2, "live", 21)]


def test_a_resumed_rebuild_applies_only_the_rest(conn, filled, ledger_dsn, monkeypatch):
    """What was built before is not built again."""
    monkeypatch.setattr("ledger.rebuilding.build.CHUNK_EVENTS", 40)
    monkeypatch.setitem(failpoints._armed, "rebuild.chunk", ("raise", 3))
    with pytest.raises(failpoints.Injected):
        rebuild(connector(ledger_dsn), PurchasesByUser())
    [(at,)] = rows(conn, "SELECT position FROM ledger.projection WHERE status = 'building'")
    [(left,)] = rows(conn, f"SELECT sum(applied) FROM ledger.journal WHERE position > {at}")
    assert plan(conn, PurchasesByUser()).events == left
    assert rebuild(connector(ledger_dsn), PurchasesByUser()).events == left > 0


@pytest.mark.parametrize("projection", SHIPPED, ids=lambda p: p.name)
def test_a_rebuild_beside_busy_workers(projection, conn, filled, ledger_dsn, seed):
    """While two workers write, rebuilds and rollbacks lose and double nothing."""
    with Busy(ledger_dsn, seed) as busy:
        for _ in range(3):
            rebuild(connector(ledger_dsn), projection, RebuildOptions(jobs=2))
            roll_back(connector(ledger_dsn), projection)
            rebuild(connector(ledger_dsn), projection)
    assert busy.batches > 10
    follow(ledger_dsn, projection)
    [(live,)] = [(g,) for g, status, _ in generations(conn, projection.name) if status == "live"]
    [(old,)] = [(g,) for g, status, _ in generations(conn, projection.name) if status == "standby"]
    assert table(conn, projection, live) == table(conn, projection, old)
    if projection.name != "sales_by_day":
        assert is_right(conn, projection.name)


def test_an_event_that_cant_be_applied_stops_the_rebuild(conn, filled, ledger_dsn):
    """It is named with position, type and stream; the live generation is untouched, and the rebuild resumes
    once the code knows it."""
    position = forge(conn, "GoodsRenamed")
    before = table(conn, Stock(), 1)
    with pytest.raises(ProjectionFault) as caught:
        rebuild(connector(ledger_dsn), Stock())
    fault = caught.value
    assert (fault.position, fault.type, fault.stream) == (position, "GoodsRenamed", "goods-goods0")
    assert generations(conn, "stock")[0][:2] == (1, "live")
    assert table(conn, Stock(), 1) == before


def test_a_number_that_breaks_a_bound_stops_the_rebuild(conn, filled, ledger_dsn):
    """An old event that today's table can't hold is named, too."""
    position = forge(conn, "StockAdjusted", '{"goods_id": "goods0", "delta": -999999999}', -999_999_999)
    with pytest.raises(ProjectionFault, match="StockAdjusted") as caught:
        rebuild(connector(ledger_dsn), Stock())
    assert caught.value.position == position


@pytest.mark.parametrize(
    ("projection", "damage", "shown"),
    [
        (
            Stock(),
            "UPDATE ledger.stock SET on_hand = on_hand + 1 WHERE goods_id = 'goods3'",
            "goods3: live on_hand",
        ),
        (
            PurchasesByUser(),
            "DELETE FROM ledger.purchases_by_user_rows WHERE user_id = 'user1'",
            "only rebuilt has",
        ),
        (
            PurchasesByUser(),
            "INSERT INTO ledger.purchases_by_user_rows VALUES (1, 'x', 'y', 1, 1, 0, 0)",
            "x, y: only live has",
        ),
        (SalesByDay(), "UPDATE ledger.sales_by_day_rows SET priced = 0", "live priced 0, rebuilt priced"),
    ],
)  # fmt: skip
def test_a_difference_is_shown_and_nothing_swapped(projection, damage, shown, conn, filled, ledger_dsn):
    """Where the live rows aren't what the events give, the first ones are shown and the live one stays; who
    knows better accepts that, or cancels."""
    good = table(conn, projection, 1)
    conn.execute(damage)
    with pytest.raises(ProjectionDiffers) as caught:
        rebuild(connector(ledger_dsn), projection)
    assert shown in caught.value.message
    assert [row[:2] for row in generations(conn, projection.name)] == [(1, "live"), (2, "building")]
    done = rebuild(connector(ledger_dsn), projection, RebuildOptions(accept_differences=True))
    assert compared(done).differences
    assert table(conn, projection, 2) == good
    assert generations(conn, projection.name)[1][1] == "live"


def test_a_second_rebuild_is_refused_and_names_the_first(conn, filled, ledger_dsn, monkeypatch):
    """Host, pid, since when and how far: who is at it is told to who comes second; another projection may."""
    monkeypatch.setattr("ledger.rebuilding.build.CHUNK_EVENTS", 40)
    seen: list[LedgerError] = []

    def report(now):
        if now.events and not seen:
            with pytest.raises(RebuildRunning) as caught:
                rebuild(connector(ledger_dsn), PurchasesByUser())
            seen.append(caught.value)
            rebuild(connector(ledger_dsn), SalesByDay())

    rebuild(connector(ledger_dsn), PurchasesByUser(), report=report)
    for word in (socket.gethostname(), f"pid {os.getpid()}", "since", "%"):
        assert word in seen[0].message


def test_a_dead_builder_is_taken_over(conn, filled, ledger_dsn, monkeypatch):
    """A builder whose process is gone, but whose session isn't, holds nobody up."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    with builder(connector(ledger_dsn), PurchasesByUser()) as session:
        session.execute(
            """UPDATE ledger.projection
               SET builder_host = %s, builder_pid = %s, backend_pid = pg_backend_pid(),
               backend_start = (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())
               WHERE name = 'purchases_by_user'""",
            [socket.gethostname(), gone.pid],
        )
        assert rebuild(connector(ledger_dsn), PurchasesByUser()).swapped.live == 2


def test_a_rebuild_is_cancelled(conn, filled, ledger_dsn, monkeypatch):
    """Cancelled while it runs, it ends with a word and leaves nothing; the live one isn't concerned."""
    monkeypatch.setattr("ledger.rebuilding.build.CHUNK_EVENTS", 40)
    cancelled: list[int | None] = []

    def report(now):
        if now.events and not cancelled:
            cancelled.append(cancel(conn, PurchasesByUser()))

    with pytest.raises(ProjectionRefused):
        rebuild(connector(ledger_dsn), PurchasesByUser(), report=report)
    assert cancelled == [2]
    assert generations(conn) == [(1, "live", 21)]
    assert rows(conn, "SELECT to_regclass('ledger.purchases_by_user_rows_2')") == [(None,)]
    assert cancel(conn, PurchasesByUser()) is None
    assert rebuild(connector(ledger_dsn), PurchasesByUser()).swapped.live == 3  # 2 is never given again


def test_a_rebuild_keeps_to_its_rate(conn, filled, ledger_dsn, monkeypatch):
    """`max_rate` bounds the events a second."""
    [(events,)] = rows(conn, "SELECT count(*) FROM ledger.event")
    monkeypatch.setattr("ledger.rebuilding.pace.time", clock := Clock())
    rebuild(connector(ledger_dsn), PurchasesByUser(), RebuildOptions(max_rate=events))
    assert len(clock.slept) > 1
    assert clock.now == pytest.approx(1)


def test_another_version_isnt_compared_but_swapped(conn, filled, ledger_dsn):
    """A changed fold gives other rows by intention; its generation becomes live, and only its own release
    leads back."""

    class Newer(PurchasesByUser):
        version = 2

    done = rebuild(connector(ledger_dsn), Newer())
    assert (done.comparison, done.swapped.live) == (None, 2)
    assert is_right(conn, "purchases_by_user")
    with pytest.raises(ProjectionRefused, match="version 1"):
        roll_back(connector(ledger_dsn), Newer())


def test_there_is_nothing_to_go_back_to(conn, ledger_dsn):
    """A rollback without a standby is refused, as is a projection that nobody knows."""
    with pytest.raises(ProjectionRefused, match="standby"):
        roll_back(connector(ledger_dsn), Stock())
    with pytest.raises(ProjectionUnknown):
        find("nothing")


def test_a_projection_never_built_here_is_not_rebuilt(conn, ledger_dsn):
    """It is followed first, which builds it."""

    class Fresh(Projection):
        name, table, key, ddl = "fresh", "fresh_rows", ("one",), ""

    with pytest.raises(ProjectionRefused, match="never built"):
        rebuild(connector(ledger_dsn), Fresh())  # type: ignore[abstract]


def test_only_the_newest_standby_stays(conn, filled, ledger_dsn):
    """Rebuilt again and again, two generations exist: the live one and the one before."""
    for _ in range(3):
        rebuild(connector(ledger_dsn), SalesByDay())
    assert [row[:2] for row in generations(conn, "sales_by_day")] == [(3, "standby"), (4, "live")]


def test_a_swap_that_is_never_in_time_says_so(conn, filled, ledger_dsn, monkeypatch):
    """Its locks are held for so long and no longer: after some tries it ends with a word, nothing was
    swapped, what was built is kept."""
    monkeypatch.setattr("ledger.rebuilding.swap.LOCK_MAX_MS", 0)
    monkeypatch.setattr("ledger.rebuilding.swap.ATTEMPTS", 2)
    with pytest.raises(Contended, match="couldn't be swapped within 0 ms, in 2 tries") as caught:
        rebuild(connector(ledger_dsn), SalesByDay())
    assert caught.value.remedy == "stockledger rebuild sales_by_day --yes"
    assert [row[1] for row in generations(conn, "sales_by_day")] == ["live", "building"]
