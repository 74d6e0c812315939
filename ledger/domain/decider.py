"""`decide` and `evolve` over everything a command may touch, and `fold` over a history.

`State` is what the caller has loaded: all of it (a replay) or what one batch needs. What isn't in it
doesn't exist. `decide` is pure. `evolve` changes the given state and nothing else, so that a batch of
thousands needn't copy it; the aggregates' own functions (`goods.py`, `user.py`) return new values.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from msgspec import Struct

from ledger.domain.commands import MessageKey
from ledger.domain.delivery import Request
from ledger.domain.events import AnyEvent, GoodsPurchased, PurchaseCancelled, UserClosed, UserRegistered
from ledger.domain.goods import (
    NOT_LISTED,
    Goods,
    Purchase,
    decide_cancellation,
    decide_goods,
    decide_purchase,
    evolve_goods,
    goods_stream,
    purchase_key,
)
from ledger.domain.outcome import Rejection
from ledger.domain.structs import (
    CancelPurchaseStruct,
    CloseUserStruct,
    PurchaseGoodsStruct,
    RegisterUserStruct,
)
from ledger.domain.user import UNKNOWN, User, decide_user, evolve_user, user_stream


@dataclass(slots=True)
class State:
    """Users, goods and purchases, by id and message key."""

    users: dict[str, User] = field(default_factory=dict)
    goods: dict[str, Goods] = field(default_factory=dict)
    purchases: dict[MessageKey, Purchase] = field(default_factory=dict)


class Place(Struct, frozen=True, gc=False):
    """Where an event stands: its stream, and its version there (from 1, dense)."""

    stream: str
    version: int


def decide(state: State, request: Request) -> AnyEvent | Rejection:
    """The event that the request causes in this state, or why there is none."""
    command = request.command
    if isinstance(command, PurchaseGoodsStruct):  # (a class pattern takes three times as long)
        buyer = state.users.get(command.user_id, UNKNOWN)
        return decide_purchase(_goods(state, command.goods_id), command, buyer)
    if isinstance(command, CancelPurchaseStruct):
        key = purchase_key(command, request.key)
        goods, purchase = _goods(state, command.goods_id), state.purchases.get(key)
        return decide_cancellation(goods, command, key, purchase)
    if isinstance(command, RegisterUserStruct | CloseUserStruct):
        return decide_user(state.users.get(command.user_id, UNKNOWN), command)
    return decide_goods(_goods(state, command.goods_id), command)


def evolve(state: State, key: MessageKey, event: AnyEvent) -> Place:
    """Take the event of the command `key` into the state, and say where it stands."""
    if isinstance(event, GoodsPurchased):
        state.purchases[key] = Purchase(event.goods_id, event.user_id, event.quantity)
    elif isinstance(event, PurchaseCancelled):
        bought = MessageKey(event.purchase_source, event.purchase_id)
        state.purchases[bought] = Purchase(event.goods_id, event.user_id, event.quantity, cancelled=True)
    elif isinstance(event, UserRegistered | UserClosed):
        user = evolve_user(state.users.get(event.user_id, UNKNOWN), event)
        state.users[event.user_id] = user
        return Place(user_stream(event.user_id), user.version)
    goods = evolve_goods(_goods(state, event.goods_id), event)
    state.goods[event.goods_id] = goods
    return Place(goods_stream(event.goods_id), goods.version)


def _goods(state: State, goods_id: str) -> Goods:
    return state.goods.get(goods_id, NOT_LISTED)


def fold(history: Iterable[tuple[MessageKey, AnyEvent]]) -> State:
    """The state after a history of events with the message keys that caused them."""
    state = State()
    for key, event in history:
        evolve(state, key, event)
    return state
