"""Projector, swap, rollback and batch, two of them halted at every pair of points while a third one runs.

All four write the stock. Whatever is let go first, the live generation is what the events say, and so is
the one before it, once it has followed to the end.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from types import SimpleNamespace

import pytest

from ledger import failpoints
from ledger.domain.commands import PurchaseGoods, ReceiveStock
from ledger.errors import Contended, ProjectionRefused
from ledger.projections.purchases_by_user import PurchasesByUser
from ledger.projections.sales_by_day import SalesByDay
from ledger.projections.stock import Stock
from ledger.rebuilding.follow import follow_once
from ledger.rebuilding.rebuild import Rebuilt, rebuild, roll_back
from ledger.rebuilding.retire import cancel, drop_old
from ledger.store.connection.database import transaction
from ledger.store.tables import projection_state
from ledger.store.tables.projection_state import Moving
from tests.support.batches import says
from tests.support.projections import is_right, rows, shop
from tests.support.stepper import ApplyRun, Run, Session, Stepper

LOST = Contended | ProjectionRefused
"""What a race may end with: to be tried again, or refused because somebody else was first."""
CONNECTED = 4
"""The answers a rollback waits for before it has looked at anything: nothing can come between."""
BUSY = "busy"
"""Looks again and again whether a projector is done, instead of waiting in Postgres."""
REBUILD = ("rebuild.begin", "rebuild.chunk", "rebuild.compare", "rebuild.compared", "rebuild.swap")

STOCK = """
SELECT p.generation, p.status, s.goods_id, s.on_hand, s.version
FROM ledger.projection p LEFT JOIN ledger.stock s USING (generation)
WHERE p.name = 'stock' AND status NOT IN ('dropping', 'dropped') ORDER BY 1, 3
"""
SAYS_NOTHING_OF_INLINE = """
WHERE name = %(name)s AND generation = %(generation)s AND status = ANY(%(statuses)s)
"""
WEAKENED = {
    "AT": "SELECT position FROM ledger.projection" + SAYS_NOTHING_OF_INLINE,
    "HOLD": "SELECT position FROM ledger.projection"
    + SAYS_NOTHING_OF_INLINE
    + "FOR NO KEY UPDATE SKIP LOCKED",
    "MOVE": "UPDATE ledger.projection SET position = %(last)s"
    + SAYS_NOTHING_OF_INLINE
    + "AND position = %(first)s - 1",
}
"""As the three statements were: eligibility was judged by what the projector had read before."""


class Actors:
    """Each of them in a database session of its own; goods, and a standby that lags by a batch or two."""

    def __init__(self, stepper: Stepper) -> None:
        self.stepper = stepper
        patient = {"idle_in_transaction_timeout_ms": 0, "transaction_timeout_ms": 0}
        self.sessions = {name: stepper.session(**patient) for name in ("projector", "swap", "batch")}
        self.sold = 0

    def projector(self, **kwargs) -> Run:
        session = self.sessions["projector"]
        return session.begin(lambda: follow_once(session.conn, Stock()), **kwargs)

    def rollback(self, **kwargs) -> Run:
        session = self.sessions["swap"]
        return session.begin(lambda: roll_back(session.reconnect, Stock()), **kwargs)

    def rebuild(self, **kwargs) -> Run:
        session = self.sessions["swap"]
        return session.begin(lambda: rebuild(session.reconnect, Stock()), **kwargs)

    def batch(self, **kwargs) -> ApplyRun:
        """Sells of what was received, and receives: to fold it twice is wrong, and not only in number."""
        self.sold += 1
        return self.sessions["batch"].start(
            0,
            says(f"r{self.sold}", ReceiveStock(goods_id="goods0", quantity=3)),
            says(f"p{self.sold}", PurchaseGoods(user_id="user0", goods_id="goods0", quantity=2)),
            **kwargs,
        )

    def settle(self, runs: Sequence[Run]) -> None:
        """Let go, one after the other, and end them; a batch that lost is applied once more."""
        for run in runs:
            run.go(BUSY)
            run.stands()
        for run in runs:
            run.go()
        for run in runs:
            ended = run.end()
            assert not isinstance(ended, BaseException) or isinstance(ended, LOST), repr(ended)
            if isinstance(run, ApplyRun) and isinstance(ended, Contended):
                again(run.session, run)

    def judge(self, where: object) -> None:
        """The stock that people read, then that of the standby."""
        assert is_right(self.stepper.watch, "stock"), f"{where}: {rows(self.stepper.watch, STOCK)}"
        while any(step.applied for step in self.projector().result()):
            pass
        levels: dict[int, set[object]] = {}
        for generation, _, *level in rows(self.stepper.watch, STOCK):
            levels.setdefault(generation, set()).add(tuple(level))
        assert len({frozenset(each) for each in levels.values()}) == 1, f"{where}: {levels}"


def again(session: Session, run: ApplyRun) -> None:
    for _ in range(9):
        if not isinstance(ended := session.again(run.batch).end(), Contended):
            assert not isinstance(ended, BaseException), repr(ended)
            return
    raise AssertionError("the batch lost all of its races")


@pytest.fixture
def actors(ledger_dsn, monkeypatch) -> Iterator[Actors]:
    """Generation 1 of the stock is live, 2 is its standby. A swap that was halted isn't too slow."""
    monkeypatch.setattr("ledger.rebuilding.swap.LOCK_MAX_MS", 60_000)
    monkeypatch.setattr(
        "ledger.rebuilding.follow.time", SimpleNamespace(sleep=lambda _: failpoints.hit(BUSY))
    )
    with Stepper(ledger_dsn) as stepper:
        stepper.delivered.update(shop(stepper.watch).delivered)
        made = Actors(stepper)
        made.sessions["batch"].lanes.claim(0)
        made.rebuild().result()
        made.rollback().result()
        yield made
        stepper.judge()


def walk(
    actors: Actors, one: Callable[..., Run], other: Callable[..., Run], third: Callable[..., Run]
) -> int:
    """Every pair of points of the first two, the third in between, let go now in this order, now in that."""
    first = {actors.rollback: CONNECTED}
    pairs = 0
    for m in count(first.get(one, 1)):
        reached = set()
        for n in count(first.get(other, 1)):
            actors.batch().result()  # so that there is something to follow
            runs = [one(halt=[f"answer {m}"])]
            reached.add(runs[0].stands())
            runs.append(other(halt=[f"answer {n}", BUSY]))
            stands = runs[1].stands()
            runs.append(third(halt=[BUSY]))
            runs[2].stands()
            actors.settle([*runs[:2][:: 1 if (m + n) % 2 else -1], runs[2]])
            actors.judge((m, n, stands))
            pairs += 1
            if stands != f"answer {n}":
                break
        if reached == {"ended"}:
            return pairs
    raise AssertionError("unreachable")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("one", "other", "third"),
    [
        ("projector", "rollback", "batch"),
        ("projector", "batch", "rollback"),
        ("batch", "rollback", "projector"),
    ],
    ids=["projector x rollback", "projector x batch", "batch x rollback"],
)
def test_at_every_pair_of_points_each_event_is_folded_once(actors, one, other, third):
    """A projector that stood still since it read that a generation is a standby doesn't fold into it after a
    rollback made it live and a batch wrote it; nor does any other pair, with any third between them."""
    pairs = walk(actors, *(getattr(actors, name) for name in (one, other, third)))
    print(f"{pairs} pairs of points")
    assert pairs > 100


@pytest.mark.slow
@pytest.mark.parametrize("point", REBUILD)
def test_a_rebuild_halted_anywhere_beside_a_projector_a_rollback_and_batches(actors, point):
    """The same with a generation that is being built: nothing is lost or doubled in the three of them."""
    for number in count(1):
        actors.batch().result()
        rebuilding = actors.rebuild(halt=[point])
        assert rebuilding.stands() == point
        projector = actors.projector(halt=[f"answer {number}"])
        ended = projector.stands() == "ended"
        batch = actors.batch()
        batch.stands()
        actors.settle([rebuilding, projector, batch])
        actors.judge((point, number))
        actors.rollback().result()
        if ended:
            return


def test_the_walk_would_see_an_event_folded_twice(actors, monkeypatch):
    """With the statements as they were, a projector that has read its generations, a rollback and a batch
    are enough: the fold of the batch's events is in the live stock twice."""
    for name, statement in WEAKENED.items():
        monkeypatch.setattr(projection_state, name, statement)
    projector = actors.projector(halt=["answer 1"])
    projector.reaches("answer 1")
    actors.rollback().result()
    actors.batch().result()
    projector.result()
    watch = actors.stepper.watch
    assert not is_right(watch, "stock")
    monkeypatch.undo()
    with transaction(watch):  # for the judge
        watch.execute(
            "UPDATE ledger.stock SET on_hand = on_hand - 1 WHERE generation = 2 AND goods_id = 'goods0'"
        )


@pytest.mark.parametrize(
    "ask",
    [projection_state.position, projection_state.hold, partial(projection_state.move, first=1, last=1)],
    ids=["AT", "HOLD", "MOVE"],
)
@pytest.mark.parametrize(
    ("version", "statuses", "generation"),
    [(1, ["live", "standby"], 1), (2, ["standby"], 2), (1, ["building"], 2)],
    ids=["inline and live", "of another version", "of another status"],
)
def test_each_statement_refuses_by_itself_what_is_not_to_be_moved(actors, ask, version, statuses, generation):
    """Whatever was read before: an inline generation that is live, one of another version, one whose status
    changed is not read, held or moved."""
    with transaction(actors.stepper.watch):
        actors.stepper.watch.execute("UPDATE ledger.projection SET position = 0 WHERE name = 'stock'")
        try:
            assert ask(actors.stepper.watch, Moving("stock", generation, version, statuses)) is None
        except Contended:
            pass
        else:
            assert ask is projection_state.hold
        actors.stepper.watch.execute("ROLLBACK")


def test_where_an_inline_generation_stands_is_set_only_when_it_ceases_to_be_live(actors):
    """Not while it is live, nor backwards: a checkpoint never stands before what is in the rows."""
    watch = actors.stepper.watch
    [(at,)] = rows(
        watch, "SELECT position FROM ledger.projection WHERE name = 'stock' AND status = 'standby'"
    )
    for generation, position in ((1, at), (2, at - 1)):
        with pytest.raises(Contended), transaction(watch):
            projection_state.set_position(watch, "stock", generation, position)


@pytest.mark.slow
@pytest.mark.parametrize("projection", [PurchasesByUser(), SalesByDay()], ids=lambda each: each.name)
def test_a_rebuild_cancelled_at_any_moment_ends_with_a_word_on_both_sides(actors, projection):
    """After whichever answer of the server the cancellation comes, it drops what was built, and the rebuild
    says that it was cancelled, unless it had swapped: then there was nothing to cancel."""
    session, canceller = actors.sessions["swap"], actors.sessions["projector"]
    for number in count(CONNECTED):
        run = session.begin(lambda: rebuild(session.reconnect, projection), halt=[f"answer {number}"])
        if (stands := run.stands()) == "ended":
            break
        cancelling = canceller.begin(lambda: cancel(canceller.conn, projection))
        cancelling.stands()
        ended, cancelled = run.end(), cancelling.result()
        if cancelled:
            assert isinstance(ended, ProjectionRefused), (number, stands, ended)
            assert "was cancelled" in ended.message
        else:
            assert isinstance(ended, Rebuilt), (number, stands, ended)
            drop_old(canceller.conn, projection)
        found = projection_state.generations(actors.stepper.watch, projection.name)
        assert [each.status for each in found] == ["live"], number
    assert number > 3 * CONNECTED
