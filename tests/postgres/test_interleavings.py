"""Two batches on two lanes, each halted at every point, let go in both orders: which pairs of outcomes occur.

The judge then holds every row against one command after the other, in journal order.
"""

from collections.abc import Callable, Set
from dataclasses import dataclass
from itertools import product

import pytest

from ledger.batch import Applied
from ledger.domain.commands import (
    AnyCommand,
    CancelPurchase,
    CloseUser,
    ListGoods,
    PurchaseGoods,
    ReceiveStock,
    RegisterUser,
)
from ledger.domain.outcome import Outcome
from ledger.errors import Contended
from tests.support.batches import says
from tests.support.stepper import FENCE, ApplyRun, Stepper

POINTS = ("begin", FENCE, "dedup", "load", "append", "project")
POINTS_TOGETHER = ("begin", "dedup", "load", "seal", "sending")
"""Every point with a statement of its own behind it: nothing is sent between `load` and `decide`, nor between
`project` and `seal`; and within the message that begins, the one at which the lane has moved."""

TOO_MANY = 60  # answers in two batches
Say = tuple[str, AnyCommand]
Pair = tuple[tuple[Outcome, ...], tuple[Outcome, ...]]
APPLIED, REJECTED = Outcome.APPLIED, Outcome.REJECTED
DUPLICATE, CONFLICT = Outcome.DUPLICATE, Outcome.CONFLICT
EITHER_FIRST = {((APPLIED,), (REJECTED,)), ((REJECTED,), (APPLIED,))}


@dataclass(frozen=True)
class Race:
    """What was said before, what the two lanes say at once, and all pairs of outcomes that may come of it."""

    before: list[Say]
    one: list[Say]
    other: list[Say]
    outcomes: Set[Pair]
    ways: set[str]
    """`blocked` in Postgres, `moved` catalogue seen by a seal, `retried` by the loser."""


def anna(n: int) -> Say:
    return f"anna{n}", RegisterUser(user_id=f"anna{n}")


def goods(name: str, n: int, stock: int) -> list[Say]:
    listed = f"list-{name}{n}", ListGoods(goods_id=f"{name}{n}")
    return [listed, (f"stock-{name}{n}", ReceiveStock(goods_id=f"{name}{n}", quantity=stock))]


def buy(n: int, id: str, name: str, quantity: int = 1) -> Say:
    return f"{id}{n}", PurchaseGoods(user_id=f"anna{n}", goods_id=f"{name}{n}", quantity=quantity)


def cancel(n: int, id: str) -> Say:
    return f"{id}{n}", CancelPurchase(goods_id=f"tea{n}", purchase_id=f"p{n}")


def close(n: int, id: str) -> Say:
    return f"{id}{n}", CloseUser(user_id=f"anna{n}")


def same_id(n: int) -> Race:
    """The same id comes twice at once: one is applied, the other a duplicate."""
    pairs = {((APPLIED,), (DUPLICATE,)), ((DUPLICATE,), (APPLIED,))}
    return Race(
        [anna(n), *goods("tea", n, 5)],
        [buy(n, "p", "tea")],
        [buy(n, "p", "tea")],
        pairs,
        {"blocked", "retried"},
    )


def same_id_of_other_goods(n: int) -> Race:
    """The same id comes at once with two payloads that share no row: one is applied, the other a conflict."""
    pairs = {((APPLIED,), (CONFLICT,)), ((CONFLICT,), (APPLIED,))}
    before = [anna(n), *goods("tea", n, 5), *goods("cup", n, 5)]
    return Race(before, [buy(n, "p", "tea")], [buy(n, "p", "cup")], pairs, {"blocked", "retried"})


def same_id_of_a_rejection(n: int) -> Race:
    """A rejection is as sticky as an application: its repeat is a duplicate, its other payload a conflict."""
    before = [anna(n), *goods("tea", n, 5)]
    pairs = {((REJECTED,), (CONFLICT,)), ((CONFLICT,), (REJECTED,))}
    return Race(before, [buy(n, "p", "tea", 6)], [buy(n, "p", "tea", 7)], pairs, {"blocked", "retried"})


def stock_for_one(n: int) -> Race:
    """Two want the last pieces: one gets them."""
    before = [anna(n), *goods("tea", n, 5)]
    return Race(before, [buy(n, "a", "tea", 3)], [buy(n, "b", "tea", 3)], EITHER_FIRST, {"blocked"})


def goods_in_opposite_orders(n: int) -> Race:
    """Two batches want the last pieces of two goods, in opposite orders: no deadlock, one gets both."""
    before = [anna(n), *goods("tea", n, 1), *goods("cup", n, 1)]
    one, other = [buy(n, "a1", "tea"), buy(n, "a2", "cup")], [buy(n, "b1", "cup"), buy(n, "b2", "tea")]
    both, none = (APPLIED, APPLIED), (REJECTED, REJECTED)
    return Race(before, one, other, {(both, none), (none, both)}, {"blocked"})


def two_register(n: int) -> Race:
    """Two register the same user: one is applied."""
    return Race(
        [], [anna(n)], [("again" + anna(n)[0], anna(n)[1])], EITHER_FIRST, {"blocked", "moved", "retried"}
    )


def two_list(n: int) -> Race:
    """Two list the same goods, and one of them fills the stock in the same batch."""
    again = f"again{n}", ListGoods(goods_id=f"tea{n}")
    pairs = {((APPLIED, APPLIED), (REJECTED,)), ((REJECTED, APPLIED), (APPLIED,))}
    return Race([], goods("tea", n, 5), [again], pairs, {"blocked", "retried"})


def two_close(n: int) -> Race:
    """Two close the same user: one is applied."""
    return Race([anna(n)], [close(n, "a")], [close(n, "b")], EITHER_FIRST, {"blocked", "moved", "retried"})


def register_and_buy(n: int) -> Race:
    """A user registers while buying through another lane: bought, or not found."""
    pairs = {((APPLIED,), (APPLIED,)), ((APPLIED,), (REJECTED,))}
    return Race(goods("tea", n, 5), [anna(n)], [buy(n, "p", "tea")], pairs, {"moved", "retried"})


def close_and_buy(n: int) -> Race:
    """A user is closed while buying through another lane: bought before, or closed."""
    pairs = {((APPLIED,), (APPLIED,)), ((APPLIED,), (REJECTED,))}
    return Race(
        [anna(n), *goods("tea", n, 5)], [close(n, "c")], [buy(n, "p", "tea")], pairs, {"moved", "retried"}
    )


def list_and_receive(n: int) -> Race:
    """Goods are listed while stock arrives through another lane: received, or not found."""
    listed, received = goods("tea", n, 5)
    pairs = {((APPLIED,), (APPLIED,)), ((APPLIED,), (REJECTED,))}
    return Race([], [listed], [received], pairs, {"moved", "retried"})


def two_cancel(n: int) -> Race:
    """Two cancel the same purchase: the stock returns once."""
    before = [anna(n), *goods("tea", n, 5), buy(n, "p", "tea", 3)]
    return Race(before, [cancel(n, "a")], [cancel(n, "b")], EITHER_FIRST, {"blocked"})


def buy_and_cancel(n: int) -> Race:
    """A purchase is cancelled while it is made: cancelled, or not found."""
    pairs = {((APPLIED,), (APPLIED,)), ((APPLIED,), (REJECTED,))}
    return Race([anna(n), *goods("tea", n, 5)], [buy(n, "p", "tea", 3)], [cancel(n, "c")], pairs, {"blocked"})


RACES = [
    same_id,
    same_id_of_other_goods,
    same_id_of_a_rejection,
    stock_for_one,
    goods_in_opposite_orders,
    two_register,
    two_list,
    two_close,
    register_and_buy,
    close_and_buy,
    list_and_receive,
    two_cancel,
    buy_and_cancel,
]


@pytest.fixture(params=[True, False], ids=["one by one", "together"])
def stepper(ledger_dsn, request):
    """Once with every question asked alone, so that the other lane gets in between; once as it is."""
    with Stepper(ledger_dsn, apart=request.param) as stepper:
        yield stepper


@pytest.mark.parametrize("race", RACES, ids=lambda race: race.__name__)
def test_two_lanes_at_every_pair_of_points_end_as_one_after_the_other(stepper, race):
    """Wherever two batches meet, both end as if one had run after the other; a loser retries once."""
    points = POINTS if stepper.apart else POINTS_TOGETHER
    cases = list(product(points, points, (False, True)))
    tell_before(stepper, race, range(len(cases)))
    sessions = stepper.session(), stepper.session()
    seen: set[Pair] = set()
    ways: set[str] = set()
    for n, (halt_one, halt_other, other_first) in enumerate(cases):
        one = sessions[0].start(0, *(says(*say) for say in race(n).one), halt=[halt_one])
        one.reaches(halt_one)
        other = sessions[1].start(1, *(says(*say) for say in race(n).other), halt=[halt_other])
        stands = [other.stands()]
        first, second = (other, one) if other_first else (one, other)
        first.go()
        stands.append(first.stands())
        second.go()
        seen.add(outcomes := finish(one, other, ways))
        assert outcomes in race(n).outcomes, cases[n]
        ways |= {"blocked"} & set(stands)
    stepper.judge()
    # Together the last table's rows aren't there before the server goes on to the end: nobody meets them.
    wanted = race(0).ways - (set() if stepper.apart else {"blocked"})
    assert (seen, wanted | ways) == (race(0).outcomes, ways), "the cases don't meet in every way"
    assert ways <= race(0).ways


def test_a_batch_that_overtakes_another_between_any_two_statements_changes_nothing(stepper):
    """Between any two answers of the server another lane may go all the way: same outcomes as in turn."""
    sessions = stepper.session(), stepper.session()
    for number, race in enumerate(RACES):
        numbers, seen = range(number * TOO_MANY, (number + 1) * TOO_MANY), set()
        tell_before(stepper, race, numbers)
        for n in numbers:
            turn, swapped = divmod(n - numbers[0], 2)
            sides = [race(n).one, race(n).other][:: -1 if swapped else 1]
            halt = [f"answer {turn + 1}"]
            overtaken = sessions[0].start(0, *(says(*say) for say in sides[0]), halt=halt)
            if overtaken.stands() == "ended":
                break
            other = sessions[1].start(1, *(says(*say) for say in sides[1]))
            other.stands()
            seen.add(finish(overtaken, other, set())[:: -1 if swapped else 1])
        assert turn >= (8 if stepper.apart else 3)
        assert seen == race(n).outcomes, race.__name__
    stepper.judge()


def test_a_purchase_takes_few_exchanges_with_the_server(ledger_dsn):
    """To the fence and the keys one, to load one, and one to all that is written: small batches take little
    else. (In the last the server asks for the rows of each table, which is a round trip more.)"""
    with Stepper(ledger_dsn, apart=False) as stepper:
        session = stepper.session()
        session.do(0, *(says(*say) for say in [anna(0), *goods("tea", 0, 5)]))
        run = session.start(0, says(*buy(0, "p", "tea")))
        assert run.result().outcomes == [APPLIED]
        assert run.answers == 1 + 1 + 1


def tell_before(stepper: Stepper, race: Callable[[int], Race], numbers: range) -> None:
    if earlier := [says(*say) for n in numbers for say in race(n).before]:
        stepper.session().do(2, *earlier)


def finish(one: ApplyRun, other: ApplyRun, ways: set[str]) -> Pair:
    """Let both go to the end, retry who lost, and note in which ways they met."""
    ended = []
    for run, end in [(run, run.end()) for run in (one, other)]:
        if isinstance(end, Contended):
            ways.add("retried")
            end = run.session.apply(run.batch)
        assert isinstance(end, Applied), (one.steps, other.steps, end)
        ways |= {"moved"} & set(run.steps)
        ended.append(tuple(end.outcomes))
    return ended[0], ended[1]
