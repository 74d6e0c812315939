"""What holds on every history, whatever the commands: properties of `decide`, `evolve` and `fold`."""

from collections import Counter
from typing import NamedTuple

import msgspec
from hypothesis import given

from ledger.domain import goods, user
from ledger.domain.commands import MessageKey
from ledger.domain.decider import Place, State, decide, evolve, fold
from ledger.domain.delivery import Request
from ledger.domain.events import (
    AnyEvent,
    Event,
    GoodsListed,
    GoodsPurchased,
    PurchaseCancelled,
    StockAdjusted,
    StockReceived,
)
from ledger.domain.goods import Purchase
from ledger.domain.outcome import Rejection
from ledger.domain.structs import AnyStruct, CancelPurchaseStruct, UserStruct, canonical
from tests.unit.strategies import opening_stocks, quick, unrepeated_stories
from tests.unit.test_model import REASONS, request

STOCK_MAX = 2**53
QUICK = quick(40)

EVENT_OF = {
    "RegisterUser": "UserRegistered",
    "CloseUser": "UserClosed",
    "ListGoods": "GoodsListed",
    "ReceiveStock": "StockReceived",
    "AdjustStock": "StockAdjusted",
    "PurchaseGoods": "GoodsPurchased",
    "CancelPurchase": "PurchaseCancelled",
}


class Step(NamedTuple):
    """One decision, with the states around it."""

    before: State
    request: Request
    answer: AnyEvent | Rejection
    place: Place | None
    after: State

    @property
    def command(self) -> AnyStruct:
        return self.request.command


def opening(stock: int | None) -> list[tuple[MessageKey, AnyEvent]]:
    """The events that give tea its opening stock."""
    if stock is None:
        return []
    own = MessageKey("opening", "")
    return [(own, GoodsListed(goods_id="tea")), (own, StockReceived(goods_id="tea", quantity=stock))]


def copied(state: State) -> State:
    """A copy that later changes don't reach: what the dicts hold can't be changed."""
    return State(dict(state.users), dict(state.goods), dict(state.purchases))


def played(lines, stock: int | None) -> list[Step]:
    """Every decision of the story."""
    state = fold(opening(stock))
    steps = []
    for line in lines:
        asked = request(line)
        before = copied(state)
        answer = decide(state, asked)
        place = None if isinstance(answer, Rejection) else evolve(state, asked.key, answer)
        steps.append(Step(before, asked, answer, place, copied(state)))
    return steps


def history(steps: list[Step]) -> list[tuple[MessageKey, AnyEvent]]:
    return [(step.request.key, step.answer) for step in steps if not isinstance(step.answer, Rejection)]


@QUICK
@given(unrepeated_stories, opening_stocks)
def test_stock_stays_within_its_bounds(lines, stock):
    """At no time is any stock below 0 or above 2^53."""
    for step in played(lines, stock):
        assert all(0 <= each.on_hand <= STOCK_MAX for each in step.after.goods.values())


@QUICK
@given(unrepeated_stories, opening_stocks)
def test_nothing_is_made_or_lost(lines, stock):
    """Received + adjusted - purchased + cancelled is on hand, for each kind of goods, at every time."""
    expected = Counter({"tea": stock or 0})
    for step in played(lines, stock):
        match step.answer:
            case StockReceived(goods_id=goods_id, quantity=quantity):
                expected[goods_id] += quantity
            case StockAdjusted(goods_id=goods_id, delta=delta):
                expected[goods_id] += delta
            case GoodsPurchased(goods_id=goods_id, quantity=quantity):
                expected[goods_id] -= quantity
            case PurchaseCancelled(goods_id=goods_id, quantity=quantity):
                expected[goods_id] += quantity
        for goods_id in expected | step.after.goods:
            assert step.after.goods.get(goods_id, goods.NOT_LISTED).on_hand == expected[goods_id]


@QUICK
@given(unrepeated_stories, opening_stocks)
def test_what_is_bought_is_what_is_not_cancelled(lines, stock):
    """The purchases that stand are those sold less those returned, and each returned once, in full."""
    standing: Counter[str] = Counter()
    returned: Counter[MessageKey] = Counter()
    for step in played(lines, stock):
        if isinstance(step.answer, GoodsPurchased):
            standing[step.answer.user_id] += step.answer.quantity
        if isinstance(step.answer, PurchaseCancelled):
            key = MessageKey(step.answer.purchase_source, step.answer.purchase_id)
            returned[key] += 1
            bought = Purchase(step.answer.goods_id, step.answer.user_id, step.answer.quantity)
            assert step.before.purchases[key] == bought
            standing[step.answer.user_id] -= step.answer.quantity
        kept: Counter[str] = Counter()
        for bought in step.after.purchases.values():
            kept[bought.user_id] += 0 if bought.cancelled else bought.quantity
        assert kept == standing
    assert set(returned.values()) <= {1}


@QUICK
@given(unrepeated_stories, opening_stocks)
def test_the_fold_of_any_prefix_is_the_state_that_decided(lines, stock):
    """The events alone give every state that `decide` ever saw: the log is the truth."""
    steps = played(lines, stock)
    for number, step in enumerate(steps):
        assert fold(opening(stock) + history(steps[:number])) == step.before
    assert fold(opening(stock) + history(steps)) == (steps[-1].after if steps else fold(opening(stock)))


@QUICK
@given(unrepeated_stories, opening_stocks)
def test_decide_is_deterministic_and_changes_nothing(lines, stock):
    """The same state and request give the same answer, and the state is as it was."""
    state = fold(opening(stock))
    for line in lines:
        asked = request(line)
        before = copied(state)
        answer = decide(state, asked)
        assert state == before
        assert decide(before, request(line)) == answer
        if not isinstance(answer, Rejection):
            evolve(state, asked.key, answer)


@QUICK
@given(unrepeated_stories, opening_stocks)
def test_a_command_makes_one_event_or_none(lines, stock):
    """The answer is one event of the command's own kind, or a rejection for one of its own reasons."""
    for step in played(lines, stock):
        if isinstance(step.answer, Rejection):
            assert step.answer.reason in REASONS[step.command.NAME]
            assert step.after == step.before
        else:
            assert isinstance(step.answer, Event)
            assert EVENT_OF[step.command.NAME] == step.answer.TYPE


@QUICK
@given(unrepeated_stories, opening_stocks)
def test_an_event_says_what_the_command_said(lines, stock):
    """Every field of an applied command is in its event, under the same name."""
    for step in played(lines, stock):
        if not isinstance(step.answer, Rejection):
            event = msgspec.structs.asdict(step.answer)
            assert event.items() >= msgspec.json.decode(canonical(step.command)).items()
            if isinstance(step.command, CancelPurchaseStruct) and step.command.purchase_source is None:
                assert event["purchase_source"] == step.request.key.source


@QUICK
@given(unrepeated_stories, opening_stocks)
def test_versions_are_dense(lines, stock):
    """Each stream counts from 1 without holes, and an event stands on the stream of its record key."""
    steps = played(lines, stock)
    last = Counter({"goods-tea": len(opening(stock))})
    for step in steps:
        if step.place:
            last[step.place.stream] += 1
            assert step.place.version == last[step.place.stream]
            own = (
                user.user_stream(step.command.user_id)
                if isinstance(step.command, UserStruct)
                else goods.goods_stream(step.command.goods_id)
            )
            assert step.place.stream == own
