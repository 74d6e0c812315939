"""Following: a projection is what the journal says, once, whoever follows it and whatever comes late."""

import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from ledger import failpoints
from ledger.api import Ledger
from ledger.domain.commands import ListGoods
from ledger.errors import ProjectionFault, ProjectionRefused, ProjectionUnknown
from ledger.projections.projection import Projection
from ledger.projections.purchases_by_user import PurchasesByUser
from ledger.projections.sales_by_day import SalesByDay
from ledger.rebuilding.projector import Projector, Told
from ledger.store.connection import database
from ledger.store.reads.ranges import EVENTS, IN_RANGE
from tests.support import roles
from tests.support.batches import Lanes, says
from tests.support.history import history
from tests.support.projections import Busy, connector, follow, forge, is_right, purchases, rows, shop


class Counts(Told):
    """Keeps how many events were applied at a time."""

    def __init__(self, counted) -> None:
        self.counted = counted

    def applied(self, name, events):
        self.counted.append(events)


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        yield conn


def test_purchases_by_user_are_what_was_bought_and_cancelled(conn, ledger_dsn, seed):
    """Per user and goods: purchases, pieces, and how many of them were cancelled; awkward names included."""
    history(conn)
    lanes = shop(conn)
    for n in range(20):
        lanes.apply(1 + n % 2, *purchases(seed, f"p{n}", 10))
    follow(ledger_dsn, PurchasesByUser())
    assert is_right(conn, "purchases_by_user")
    assert ("anna", "tea", 4, 15, 2, 8) in rows(conn, "SELECT * FROM ledger.purchases_by_user")


def test_sales_by_day_add_up(conn, ledger_dsn, seed):
    """Per UTC day of the journal: purchases, pieces, cancellations, and revenue beyond 64 bits."""
    lanes = shop(conn)
    for n in range(10):
        lanes.apply(1, *purchases(seed, f"p{n}", 30))
    follow(ledger_dsn, SalesByDay())
    [(bought, pieces, cancelled, priced, revenue)] = rows(
        conn,
        """SELECT count(*) FILTER (WHERE type = 'GoodsPurchased'),
                  sum((data ->> 'quantity')::bigint) FILTER (WHERE type = 'GoodsPurchased'),
                  count(*) FILTER (WHERE type = 'PurchaseCancelled'),
                  count(data ->> 'unit_price_minor'),
                  sum((data ->> 'unit_price_minor')::numeric * (data ->> 'quantity')::numeric)
           FROM ledger.events""",
    )
    found = rows(conn, "SELECT * FROM ledger.sales_by_day ORDER BY day")
    assert [sum(row[i] for row in found) for i in (1, 2, 3, 5, 6)] == [
        bought, pieces, cancelled, priced, revenue,
    ]  # fmt: skip
    assert abs(found[-1][0] - datetime.now(UTC).date()).days <= 1


def test_an_entry_that_commits_late_is_not_skipped(conn, ledger_dsn, seed, monkeypatch):
    """A batch that took its number first and commits last is applied like any other."""
    lanes = shop(conn)
    lanes.claim(1)
    at_seal, go_on = threading.Event(), threading.Event()
    slow = threading.current_thread()

    def hit(step):
        if step == "seal" and threading.current_thread() is slow:
            at_seal.set()
            assert go_on.wait(30)

    monkeypatch.setattr(failpoints, "hit", hit)
    with database.connect(ledger_dsn, purpose="test") as other:
        late = Lanes(other)
        slow = threading.Thread(target=late.apply, args=(2, purchases(seed, "late", 1)[0]))
        slow.start()
        assert at_seal.wait(30)
        for n in range(3):
            lanes.apply(1, says(f"new{n}", ListGoods(goods_id=f"new{n}")))
            follow(ledger_dsn, PurchasesByUser())
        go_on.set()
        slow.join()
    follow(ledger_dsn, PurchasesByUser())
    [(inverted,)] = rows(
        conn,
        """SELECT count(*) FROM ledger.journal a JOIN ledger.journal b
           ON a.position < b.position AND a.entry > b.entry""",
    )
    assert inverted >= 3
    assert is_right(conn, "purchases_by_user")


def test_several_projectors_apply_each_event_once(conn, ledger_dsn, seed):
    """Three projectors beside two busy workers: one works, the others stand by, nothing counts twice."""
    shop(conn)
    stop = threading.Event()
    counted: list[Any] = []
    projectors = [
        Projector(
            connector(ledger_dsn), [PurchasesByUser()], stop=stop,
            told=Counts(counted),
        )
        for _ in range(3)
    ]  # fmt: skip
    threads = [threading.Thread(target=projector.run) for projector in projectors]
    for thread in threads:
        thread.start()
    with Busy(ledger_dsn, seed) as busy:
        deadline = time.monotonic() + 60
        while (busy.batches <= 20 or len(counted) <= 5) and time.monotonic() < deadline:
            stop.wait(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    follow(ledger_dsn, PurchasesByUser())
    assert busy.batches > 20
    assert len(counted) > 5
    assert is_right(conn, "purchases_by_user")


def test_an_unknown_type_stops_its_projection_only(conn, ledger_dsn, seed):
    """An event of an unknown type is never passed over: its projection stops there, by name; others go on."""
    lanes = shop(conn)
    lanes.apply(1, *purchases(seed, "p", 10))
    position = forge(conn, "GoodsRenamed")

    class Lenient(Projection):
        name, table, key = "lenient", "lenient_rows", ("one",)
        ddl = """CREATE TABLE ledger.lenient_rows (generation integer NOT NULL, one boolean NOT NULL,
                 events bigint NOT NULL, PRIMARY KEY (generation, one)) PARTITION BY LIST (generation)"""

        def apply(self, conn, generation, events):
            conn.execute(
                """INSERT INTO ledger.lenient_rows AS l VALUES (%s, true, %s)
                   ON CONFLICT (generation, one) DO UPDATE SET events = l.events + excluded.events""",
                [generation, events.events],
            )
            return events.events

    with pytest.raises(ProjectionFault) as caught:
        follow(ledger_dsn, PurchasesByUser(), Lenient())
    assert (caught.value.position, caught.value.type, caught.value.stream) == (
        position, "GoodsRenamed", "goods-goods0",
    )  # fmt: skip
    for word in (str(position), "GoodsRenamed", "goods-goods0"):
        assert word in caught.value.message
    [(events,)] = rows(conn, "SELECT count(*) FROM ledger.event")
    assert rows(conn, "SELECT events FROM ledger.lenient") == [(events,)]
    assert rows(conn, "SELECT count(*) FROM ledger.purchases_by_user") == [(0,)]


def test_an_event_that_breaks_the_fold_is_named(conn, ledger_dsn, seed):
    """Code that fails on one event among many stops there: position, type and stream are named."""
    lanes = shop(conn)
    for n in range(5):
        lanes.apply(1, *purchases(seed, f"p{n}", 10))

    class Brittle(Projection):
        name, table, key = "brittle", "brittle_rows", ("one",)
        ddl = """CREATE TABLE ledger.brittle_rows (generation integer NOT NULL, one boolean NOT NULL,
                 PRIMARY KEY (generation, one)) PARTITION BY LIST (generation)"""

        def apply(self, conn, generation, events):
            found = conn.execute(
                "SELECT e.id FROM" + EVENTS + "WHERE" + IN_RANGE, events.parameters(generation)
            ).fetchall()
            if ("p3-4",) in found:
                raise KeyError("p3-4")
            return len(found)

    with pytest.raises(ProjectionFault, match="KeyError") as caught:
        follow(ledger_dsn, Brittle())
    [(position, ordinal)] = rows(conn, "SELECT position, ordinal FROM ledger.events WHERE id = 'p3-4'")
    assert (caught.value.position, caught.value.type) == (position, "GoodsPurchased")
    assert f"ordinal {ordinal}" in caught.value.message


def test_an_event_that_is_missing_stops_the_projection(conn, ledger_dsn, seed):
    """Events that the journal counts and the store lacks are noticed, not folded over."""
    lanes = shop(conn)
    lanes.apply(1, *purchases(seed, "p", 10))
    conn.execute("ALTER TABLE ledger.event DISABLE TRIGGER no_delete")
    conn.execute("DELETE FROM ledger.event WHERE id = 'p-3'")
    with pytest.raises(ProjectionFault, match="the journal says"):
        follow(ledger_dsn, PurchasesByUser())


def test_status_tells_the_lag(conn, ledger_dsn, seed):
    """Positions and seconds that a projection is behind; the stock never is."""
    lanes = shop(conn)
    lanes.apply(1, *purchases(seed, "p", 10))
    with Ledger(ledger_dsn) as ledger:
        behind = {each.name: each for each in ledger.status().projections}
        assert (behind["purchases_by_user"].lag, behind["stock"].lag) == (2, 0)
        assert behind["purchases_by_user"].lag_seconds > 0
        follow(ledger_dsn, PurchasesByUser())
        caught_up = {each.name: each for each in ledger.status().projections}["purchases_by_user"]
        assert (caught_up.position, caught_up.lag, caught_up.lag_seconds) == (2, 0, 0)


def test_a_reader_waits_for_its_own_write(conn, ledger_dsn, seed):
    """`wait_for_position` returns once the projection covers it, and no sooner."""
    lanes = shop(conn)
    position = lanes.apply(1, *purchases(seed, "p", 10)).position
    with Ledger(ledger_dsn) as ledger:
        assert ledger.wait_for_position(position, 0) == position  # the stock is always current
        with pytest.raises(TimeoutError, match="not yet at 2"):
            ledger.wait_for_position(position, 0.05, "purchases_by_user")
        follower = threading.Timer(0.2, follow, [ledger_dsn, PurchasesByUser()])
        follower.start()
        assert ledger.wait_for_position(position, 20, "purchases_by_user") == position
        follower.join()
        with pytest.raises(ProjectionUnknown):
            ledger.wait_for_position(1, 0, "nothing")


def test_a_writer_follows_and_a_reader_reads(conn, ledger_dsn, seed):
    """The two roles suffice: the writer's to follow, the reader's to read the views."""
    lanes = shop(conn)
    lanes.apply(1, *purchases(seed, "p", 10))

    def writer():
        made = connector(ledger_dsn)()
        made.execute(f'SET ROLE "{roles.writer(made)}"')
        return made

    Projector(writer, [PurchasesByUser(), SalesByDay()], until_caught_up=True).run()
    assert is_right(conn, "purchases_by_user")
    conn.execute(f'SET ROLE "{roles.reader(conn)}"')
    for view in ("purchases_by_user", "sales_by_day", "projections"):
        assert rows(conn, f"SELECT * FROM ledger.{view}")


def test_what_another_version_made_is_left_alone(conn, ledger_dsn, seed):
    """A generation that another version of the code made is neither followed nor mixed with ours, and who
    wanted it followed is told what to do."""
    shop(conn)

    class Newer(PurchasesByUser):
        version = 2

    with pytest.raises(ProjectionRefused, match="version 1, this is version 2") as caught:
        follow(ledger_dsn, Newer())
    assert caught.value.remedy == "stockledger rebuild purchases_by_user --yes"
    assert rows(conn, "SELECT position FROM ledger.projection WHERE name = 'purchases_by_user'") == [(0,)]
