"""The stock is rebuilt while workers write it: they lose races, never a piece; readers never see half."""

import threading

import pytest

from ledger import failpoints
from ledger.batch import apply_batch
from ledger.domain.commands import ListGoods, PurchaseGoods
from ledger.errors import Contended, ProjectionDiffers
from ledger.projections.stock import Stock
from ledger.rebuilding.rebuild import RebuildOptions, rebuild, roll_back
from ledger.rebuilding.retire import drop_old
from ledger.rebuilding.swap import Swapped
from ledger.store.connection import database
from ledger.verify.run import verify
from tests.support.batches import says
from tests.support.projections import Busy, compared, connector, follow, is_right, purchases, rows, shop
from tests.support.sequential import compare as judge

LIVE = "SELECT stock_generation FROM ledger.head"


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        yield conn


@pytest.fixture
def lanes(conn, seed):
    """Some entries, on lanes 1 and 2."""
    lanes = shop(conn)
    for n in range(10):
        lanes.apply(1 + n % 2, *purchases(seed, f"p{n}", 10))
    return lanes


class Reader:
    """Reads the stock all along: the goods are all there, and add up to what the events say."""

    QUERY = """
        SELECT (SELECT count(*) FROM ledger.stock_levels),
               (SELECT sum(on_hand) FROM ledger.stock_levels) = (SELECT sum(delta) FROM ledger.event),
               (SELECT count(*) FROM ledger.projection WHERE name = 'stock' AND status = 'live')"""

    def __init__(self, dsn: str) -> None:
        self.seen: set[tuple[object, ...]] = set()
        self.reads = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(dsn,))

    def _read(self, dsn: str) -> None:
        with database.connect(dsn, purpose="test") as conn:
            while not self._stop.is_set():
                self.seen |= set(rows(conn, self.QUERY))
                self.reads += 1

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_the_stock_is_rebuilt_under_the_workers_hands(conn, lanes, ledger_dsn, seed):
    """Rebuilt, rolled back and rebuilt again while three workers apply batches and a reader reads: every
    commit is in the stock once, and the whole ledger verifies."""
    swaps: list[Swapped] = []
    with Busy(ledger_dsn, seed, workers=3) as busy, Reader(ledger_dsn) as reader:
        while (len(swaps) < 6 or busy.batches <= 50) and not busy.faults:
            swaps.append(rebuild(connector(ledger_dsn), Stock()).swapped)
            swaps.append(roll_back(connector(ledger_dsn), Stock()))
            drop_old(conn, Stock())
    print(f"{len(swaps)} swaps, {busy.batches} batches, retries {busy.retries}, {reader.reads} reads")
    assert reader.seen == {(7, True, 1)}
    assert is_right(conn, "stock")
    assert [found for found in verify(conn) if not found.ok] == []


def test_a_batch_of_the_old_generation_cant_seal(conn, lanes, ledger_dsn, seed, monkeypatch):
    """A batch that loaded the old stock before the swap and seals after it is refused (LG002), and applies
    from fresh reads."""
    batch = lanes.batch(1, *purchases(seed, "slow", 10))
    real = failpoints.hit

    def hit(step):
        real(step)
        if step == "seal":
            monkeypatch.setattr(failpoints, "hit", real)
            assert rebuild(connector(ledger_dsn), Stock()).swapped.live == 2

    monkeypatch.setattr(failpoints, "hit", hit)
    with pytest.raises(Contended) as caught:
        apply_batch(conn, batch, lanes.claims[1].epoch)
    assert caught.value.sqlstate == "LG002"
    assert is_right(conn, "stock")
    apply_batch(conn, batch, lanes.claims[1].epoch)
    assert is_right(conn, "stock")
    follow(ledger_dsn, Stock())
    [(old, new)] = rows(
        conn,
        """SELECT sum(on_hand) FILTER (WHERE generation = 1), sum(on_hand) FILTER (WHERE generation = 2)
           FROM ledger.stock""",
    )
    assert old == new


def test_goods_listed_during_a_rebuild_are_in_it(conn, lanes, ledger_dsn, monkeypatch):
    """Goods that appear while it is built, compared or swapped have their row in the new generation."""
    real = failpoints.hit
    steps = {"rebuild.begin", "rebuild.chunk", "rebuild.applied", "rebuild.compare", "rebuild.compared"}

    def hit(step):
        if step in steps:
            steps.remove(step)
            name = f"new {step}"
            with database.connect(ledger_dsn, purpose="test") as other:
                lanes.conn = other
                lanes.apply(
                    3,
                    says(f"list-{step}", ListGoods(goods_id=name)),
                    says(f"buy-{step}", PurchaseGoods(user_id="user0", goods_id="goods0", quantity=1)),
                )
        real(step)

    monkeypatch.setattr(failpoints, "hit", hit)
    done = rebuild(connector(ledger_dsn), Stock())
    assert steps == set()
    assert compared(done).rows >= 11
    assert rows(conn, LIVE) == [(2,)]
    assert is_right(conn, "stock")


def test_a_difference_that_comes_after_the_comparison_is_found_under_the_lock(
    conn, lanes, ledger_dsn, seed, monkeypatch
):
    """What is touched between comparison and swap is compared again: a wrong row is not swapped in."""
    real = failpoints.hit

    def hit(step):
        real(step)
        if step == "rebuild.compared":
            with database.connect(ledger_dsn, purpose="test") as other:
                other.execute("UPDATE ledger.stock SET on_hand = on_hand + 1 WHERE generation = 1")
                lanes.conn = other
                lanes.apply(1, *purchases(seed, "touch", 30))

    monkeypatch.setattr(failpoints, "hit", hit)
    with pytest.raises(ProjectionDiffers, match="live on_hand"):
        rebuild(connector(ledger_dsn), Stock())
    assert rows(conn, LIVE) == [(1,)]


def test_outcomes_stay_serializable_over_a_swap(conn, ledger_dsn, lanes, seed):
    """After swaps in the middle of it, what is stored is what one command after the other gives."""
    for n in range(3):
        lanes.apply(1, *purchases(seed, f"a{n}", 10))
        rebuild(connector(ledger_dsn), Stock(), RebuildOptions(jobs=4))
        lanes.apply(2, *purchases(seed, f"b{n}", 10))
        roll_back(connector(ledger_dsn), Stock())
    judge(conn, lanes.delivered)
