"""Sentences about one kind of goods: design, section 2, the rows about goods, order of checks included."""

import pytest

from ledger.domain import goods
from ledger.domain.commands import (
    QUANTITY_MAX,
    AdjustStock,
    CancelPurchase,
    ListGoods,
    MessageKey,
    PurchaseGoods,
    ReceiveStock,
)
from ledger.domain.decider import Place, evolve, fold
from ledger.domain.events import (
    AnyEvent,
    GoodsListed,
    GoodsPurchased,
    PurchaseCancelled,
    StockAdjusted,
    StockReceived,
    UserClosed,
    UserRegistered,
)
from ledger.domain.outcome import Reason
from tests.support.given import by, given

STOCK_MAX = 2**53

ANNA = UserRegistered(user_id="anna")
ANNA_LEFT = UserClosed(user_id="anna")
TEA = GoodsListed(goods_id="tea")
MILK = GoodsListed(goods_id="milk")
FULL = StockReceived(goods_id="tea", quantity=STOCK_MAX)


def received(quantity: int, goods_id: str = "tea") -> StockReceived:
    return StockReceived(goods_id=goods_id, quantity=quantity)


def bought(quantity: int, goods_id: str = "tea") -> GoodsPurchased:
    return GoodsPurchased(user_id="anna", goods_id=goods_id, quantity=quantity)


def returned(quantity: int, purchase_id: str = "p1", source: str = "shop") -> PurchaseCancelled:
    return PurchaseCancelled(
        goods_id="tea", purchase_source=source, purchase_id=purchase_id, user_id="anna", quantity=quantity
    )


def buy(quantity: int, goods_id: str = "tea") -> PurchaseGoods:
    return PurchaseGoods(user_id="anna", goods_id=goods_id, quantity=quantity)


def cancel(
    purchase_id: str = "p1", *, goods_id: str = "tea", purchase_source: str | None = None
) -> CancelPurchase:
    return CancelPurchase(goods_id=goods_id, purchase_id=purchase_id, purchase_source=purchase_source)


# ListGoods


def test_new_goods_are_listed():
    """Listing unknown goods is applied; the event carries id and name."""
    given().when(ListGoods(goods_id="tea", name="Tea")).then(GoodsListed(goods_id="tea", name="Tea"))


def test_goods_are_listed_once():
    """Goods that exist aren't listed again, whatever the new name."""
    given(TEA).when(ListGoods(goods_id="tea", name="Green tea")).rejected(Reason.GOODS_ALREADY_EXIST)


def test_goods_ids_are_compared_byte_for_byte():
    """`85123a` and `85123A` are two goods (both occur in the real data)."""
    given(GoodsListed(goods_id="85123a")).when(ListGoods(goods_id="85123A")).then(
        GoodsListed(goods_id="85123A")
    )


def test_a_user_does_not_take_the_goods_id():
    """A user of the same id is something else."""
    given(UserRegistered(user_id="tea")).when(ListGoods(goods_id="tea")).then(TEA)


# ReceiveStock


def test_stock_is_received():
    """Stock of listed goods is received."""
    given(TEA).when(ReceiveStock(goods_id="tea", quantity=10)).then(received(10))


def test_stock_of_unknown_goods_is_not_received():
    """Goods must be listed first."""
    given(MILK).when(ReceiveStock(goods_id="tea", quantity=10)).rejected(Reason.GOODS_NOT_FOUND)


def test_stock_is_received_up_to_the_limit():
    """A stock of exactly 2^53 is allowed."""
    given(TEA, received(STOCK_MAX - 5)).when(ReceiveStock(goods_id="tea", quantity=5)).then(received(5))


def test_stock_is_not_received_beyond_the_limit():
    """One piece more than 2^53 is rejected."""
    full = given(TEA, received(STOCK_MAX - 5))
    full.when(ReceiveStock(goods_id="tea", quantity=6)).rejected(Reason.STOCK_LIMIT)


# AdjustStock


@pytest.mark.parametrize("delta", [-10, -1, 1, QUANTITY_MAX])
def test_stock_is_adjusted_either_way(delta):
    """A correction goes up, or down to exactly 0, and keeps its note."""
    adjust = AdjustStock(goods_id="tea", delta=delta, note="counted")
    given(TEA, received(10)).when(adjust).then(StockAdjusted(goods_id="tea", delta=delta, note="counted"))


@pytest.mark.parametrize("delta", [-1, 1])
def test_stock_of_unknown_goods_is_not_adjusted(delta):
    """Unknown goods are named as the reason, though a stock of 0 wouldn't suffice either."""
    given().when(AdjustStock(goods_id="tea", delta=delta)).rejected(Reason.GOODS_NOT_FOUND)


def test_stock_is_not_adjusted_below_zero():
    """One piece more than there is can't be taken away."""
    given(TEA, received(10)).when(AdjustStock(goods_id="tea", delta=-11)).rejected(Reason.INSUFFICIENT_STOCK)


def test_stock_of_zero_is_not_adjusted_down():
    """A stock of exactly 0 has nothing to take away."""
    given(TEA).when(AdjustStock(goods_id="tea", delta=-1)).rejected(Reason.INSUFFICIENT_STOCK)


def test_stock_is_adjusted_up_to_the_limit():
    """A correction may lead to exactly 2^53."""
    adjust = AdjustStock(goods_id="tea", delta=1)
    given(TEA, received(STOCK_MAX - 1)).when(adjust).then(StockAdjusted(goods_id="tea", delta=1))


def test_stock_is_not_adjusted_beyond_the_limit():
    """A correction may not lead beyond 2^53."""
    given(TEA, FULL).when(AdjustStock(goods_id="tea", delta=1)).rejected(Reason.STOCK_LIMIT)


# PurchaseGoods


def test_a_purchase_takes_stock():
    """A known user buys what is there; the event carries the price."""
    purchase = PurchaseGoods(user_id="anna", goods_id="tea", quantity=3, unit_price_minor=250)
    event = GoodsPurchased(user_id="anna", goods_id="tea", quantity=3, unit_price_minor=250)
    given(ANNA, TEA, received(10)).when(purchase).then(event)


def test_a_price_of_zero_is_a_price():
    """A price of 0 isn't the same as no price."""
    purchase = PurchaseGoods(user_id="anna", goods_id="tea", quantity=3, unit_price_minor=0)
    event = GoodsPurchased(user_id="anna", goods_id="tea", quantity=3, unit_price_minor=0)
    given(ANNA, TEA, received(10)).when(purchase).then(event)


def test_the_last_piece_can_be_bought():
    """A purchase may take the stock to exactly 0."""
    given(ANNA, TEA, received(3)).when(buy(3)).then(bought(3))


def test_more_than_there_is_cannot_be_bought():
    """One piece more than the stock is rejected."""
    given(ANNA, TEA, received(3)).when(buy(4)).rejected(Reason.INSUFFICIENT_STOCK)


def test_nothing_can_be_bought_at_zero():
    """At a stock of exactly 0, one piece is rejected: before any receipt, and after the last piece went."""
    given(ANNA, TEA).when(buy(1)).rejected(Reason.INSUFFICIENT_STOCK)
    given(ANNA, TEA, received(3), bought(3)).when(buy(1)).rejected(Reason.INSUFFICIENT_STOCK)


def test_stock_of_other_goods_does_not_help():
    """Each kind of goods has its own stock."""
    given(ANNA, TEA, MILK, received(9, "milk")).when(buy(1)).rejected(Reason.INSUFFICIENT_STOCK)


USERS = {"unknown": (), "closed": (ANNA, ANNA_LEFT), "open": (ANNA,)}
GOODS = {"unlisted": (), "sold out": (TEA,), "in stock": (TEA, received(10))}


@pytest.mark.parametrize(
    ("user", "stock", "reason"),
    [
        ("unknown", "unlisted", Reason.USER_NOT_FOUND),
        ("unknown", "sold out", Reason.USER_NOT_FOUND),
        ("unknown", "in stock", Reason.USER_NOT_FOUND),
        ("closed", "unlisted", Reason.USER_CLOSED),
        ("closed", "sold out", Reason.USER_CLOSED),
        ("closed", "in stock", Reason.USER_CLOSED),
        ("open", "unlisted", Reason.GOODS_NOT_FOUND),
        ("open", "sold out", Reason.INSUFFICIENT_STOCK),
        ("open", "in stock", None),
    ],
)
def test_order_of_checks_of_a_purchase(user, stock, reason):
    """Where several things are wrong, the first of the design's list is the answer: user, goods, stock."""
    decided = given(*USERS[user], *GOODS[stock]).when(buy(1))
    if reason:
        decided.rejected(reason)
    else:
        decided.then(bought(1))


# CancelPurchase

SOLD = (ANNA, TEA, received(10), by("p1", bought(3)))


def test_a_cancelled_purchase_returns_to_the_stock():
    """The event carries the quantity that returned, the buyer, and the purchase's full key."""
    given(*SOLD).when(cancel()).then(returned(3))


def test_a_purchase_is_cancelled_once():
    """A second cancellation, under its own id, returns nothing; nor does one that spells out the source."""
    again = given(*SOLD, by("c1", returned(3)))
    again.when(cancel(), id="c2").rejected(Reason.ALREADY_CANCELLED)
    again.when(cancel(purchase_source="shop"), id="c3").rejected(Reason.ALREADY_CANCELLED)
    again.when(cancel(purchase_source="shop"), id="c4", source="crm").rejected(Reason.ALREADY_CANCELLED)


def test_a_closed_users_purchase_can_be_cancelled():
    """Who cancels doesn't matter, and that the buyer has left doesn't either."""
    given(*SOLD, ANNA_LEFT).when(cancel()).then(returned(3))


def test_a_purchase_is_cancelled_from_another_source():
    """`purchase_source` names the purchase of another source."""
    given(*SOLD).when(cancel(purchase_source="shop"), source="crm").then(returned(3))


def test_the_source_of_a_purchase_defaults_to_the_cancellers():
    """Left out, `purchase_source` is the canceller's own: the same id elsewhere is another purchase."""
    given(*SOLD).when(cancel(), source="crm").rejected(Reason.PURCHASE_NOT_FOUND)
    both = given(*SOLD, by("p1", bought(2), source="crm"))
    both.when(cancel(), source="crm").then(returned(2, source="crm"))
    both.when(cancel(), source="shop").then(returned(3, source="shop"))
    both.when(cancel(purchase_source="crm"), source="shop").then(returned(2, source="crm"))


def test_an_unknown_purchase_is_not_cancelled():
    """A purchase that was never made can't be cancelled; a receipt of that id isn't a purchase."""
    given(*SOLD).when(cancel("p2")).rejected(Reason.PURCHASE_NOT_FOUND)
    given(TEA, by("r1", received(10))).when(cancel("r1")).rejected(Reason.PURCHASE_NOT_FOUND)


def test_a_rejected_purchase_is_not_cancelled():
    """A purchase that was rejected left no event, so there is nothing to return."""
    sold_out = given(ANNA, TEA)
    sold_out.when(buy(1), id="p1").rejected(Reason.INSUFFICIENT_STOCK)
    sold_out.when(cancel("p1"), id="c1").rejected(Reason.PURCHASE_NOT_FOUND)


def test_a_purchase_of_other_goods_is_not_cancelled():
    """The command must name the goods of the purchase: their stock is the one that is locked."""
    given(*SOLD, MILK).when(cancel(goods_id="milk")).rejected(Reason.PURCHASE_NOT_FOUND)


def test_a_cancellation_fills_the_stock_up_to_the_limit():
    """What returns may lead to exactly 2^53."""
    given(*SOLD, received(STOCK_MAX - 10)).when(cancel()).then(returned(3))


def test_a_cancellation_does_not_exceed_the_limit():
    """What would lead beyond 2^53 is rejected."""
    given(*SOLD, received(STOCK_MAX - 9)).when(cancel()).rejected(Reason.STOCK_LIMIT)


PURCHASES = {
    "unknown": (),
    "of other goods": (by("p1", bought(3, "milk")),),
    "cancelled": (by("p1", bought(3)), by("c1", returned(3))),
    "valid": (by("p1", bought(3)),),
}


@pytest.mark.parametrize(
    ("listed", "purchase", "stock", "reason"),
    [
        (False, "unknown", 0, Reason.GOODS_NOT_FOUND),
        (False, "of other goods", 0, Reason.GOODS_NOT_FOUND),
        (True, "unknown", STOCK_MAX, Reason.PURCHASE_NOT_FOUND),
        (True, "of other goods", STOCK_MAX, Reason.PURCHASE_NOT_FOUND),
        (True, "cancelled", STOCK_MAX, Reason.ALREADY_CANCELLED),
        (True, "valid", STOCK_MAX, Reason.STOCK_LIMIT),
        (True, "valid", STOCK_MAX - 3, None),
    ],
)
def test_order_of_checks_of_a_cancellation(listed, purchase, stock, reason):
    """Where several things are wrong, the first is the answer: goods, purchase, once, limit."""
    taken = 3 if purchase == "valid" else 0  # so that `stock` is what the cancellation meets
    tea = (TEA, received(stock + taken)) if listed else ()
    decided = given(ANNA, *tea, MILK, received(9, "milk"), *PURCHASES[purchase]).when(cancel())
    if reason:
        decided.rejected(reason)
    else:
        decided.then(returned(3))


def test_a_cancelled_purchase_of_other_goods_is_not_found():
    """Other goods come before already cancelled: the answer tells nothing about goods not asked for."""
    given(*SOLD, by("c1", returned(3)), MILK).when(cancel(goods_id="milk")).rejected(
        Reason.PURCHASE_NOT_FOUND
    )


def test_what_returned_can_be_bought_again():
    """After a cancellation the pieces are in stock again, no more and no fewer."""
    back = given(ANNA, TEA, received(3), by("p1", bought(3)), by("c1", returned(3)))
    back.when(buy(3)).then(bought(3))
    back.when(buy(4)).rejected(Reason.INSUFFICIENT_STOCK)


# Streams and versions


def test_versions_of_goods():
    """A goods' stream is named after the id; each event adds one to its version; listing starts at 0."""
    history: list[AnyEvent] = [
        TEA,
        received(10),
        bought(3),
        StockAdjusted(goods_id="tea", delta=-2),
        returned(3, "earlier"),
    ]
    state = fold([])
    places = [evolve(state, MessageKey("shop", str(n)), event) for n, event in enumerate(history)]
    assert goods.goods_stream("tea") == "goods-tea"
    assert places == [Place("goods-tea", version) for version in (1, 2, 3, 4, 5)]
    assert fold([by("1", TEA)]).goods["tea"] == goods.Goods(version=1, on_hand=0)
    assert state.goods["tea"] == goods.Goods(version=5, on_hand=8)


def test_a_purchase_leaves_the_buyers_stream_alone():
    """A purchase is one event, on its goods' stream."""
    state = fold([by("u", ANNA), by("g", TEA), by("r", received(3)), by("p", bought(2))])
    assert state.users["anna"].version == 1
    assert state.goods["tea"].version == 3
