"""An item of goods: its stock, its purchases and their cancellation.

Stock never falls below 0 and never rises above `STOCK_MAX`; a purchase returns to the stock once.
The caller holds the goods' stock row locked from before it read the state until the commit, so what
is decided here is still true when it is written (`ledger.batch`).
"""

from msgspec import Struct

from ledger.domain.commands import MessageKey
from ledger.domain.events import (
    GoodsEvent,
    GoodsListed,
    GoodsPurchased,
    PurchaseCancelled,
    StockAdjusted,
    StockReceived,
)
from ledger.domain.outcome import Reason, Rejection
from ledger.domain.structs import (
    AdjustStockStruct,
    CancelPurchaseStruct,
    ListGoodsStruct,
    PurchaseGoodsStruct,
    ReceiveStockStruct,
)
from ledger.domain.user import User, may_not_act

STOCK_MAX = 2**53
"""The largest stock: integers up to here survive every JSON reader (RFC 8259, section 6)."""


class Goods(Struct, frozen=True, gc=False):
    """What `decide` knows of goods. Version 0: not listed."""

    version: int = 0
    on_hand: int = 0


class Purchase(Struct, frozen=True, gc=False):
    """A purchase that was applied."""

    goods_id: str
    user_id: str
    quantity: int
    cancelled: bool = False


NOT_LISTED = Goods()


def goods_stream(goods_id: str) -> str:
    """The name of the goods' stream."""
    return f"goods-{goods_id}"


def purchase_key(command: CancelPurchaseStruct, own: MessageKey) -> MessageKey:
    """The purchase that the command `own` wants to cancel; the source defaults to its own."""
    return MessageKey(command.purchase_source or own.source, command.purchase_id)


def decide_goods(
    goods: Goods, command: ListGoodsStruct | ReceiveStockStruct | AdjustStockStruct
) -> GoodsEvent | Rejection:
    """What the command does to these goods: one event, or the reason why not. Pure."""
    match command:
        case ReceiveStockStruct():
            return _change(goods, StockReceived(goods_id=command.goods_id, quantity=command.quantity))
        case AdjustStockStruct():
            adjusted = StockAdjusted(goods_id=command.goods_id, delta=command.delta, note=command.note)
            return _change(goods, adjusted)
        case ListGoodsStruct():
            if goods.version:
                return Rejection(Reason.GOODS_ALREADY_EXIST)
            return GoodsListed(goods_id=command.goods_id, name=command.name)


def decide_purchase(goods: Goods, command: PurchaseGoodsStruct, buyer: User) -> GoodsEvent | Rejection:
    """The goods go to the buyer, or the reason why not. Pure."""
    if refused := may_not_act(buyer):
        return refused
    if not goods.version:
        return Rejection(Reason.GOODS_NOT_FOUND)
    if goods.on_hand < command.quantity:
        return Rejection(Reason.INSUFFICIENT_STOCK)
    return GoodsPurchased(
        user_id=command.user_id,
        goods_id=command.goods_id,
        quantity=command.quantity,
        unit_price_minor=command.unit_price_minor,
    )


def decide_cancellation(
    goods: Goods, command: CancelPurchaseStruct, key: MessageKey, purchase: Purchase | None
) -> GoodsEvent | Rejection:
    """The purchase `key` returns to the stock, or the reason why not. Pure."""
    if not goods.version:
        return Rejection(Reason.GOODS_NOT_FOUND)
    if purchase is None or purchase.goods_id != command.goods_id:
        return Rejection(Reason.PURCHASE_NOT_FOUND)
    if purchase.cancelled:
        return Rejection(Reason.ALREADY_CANCELLED)
    returned = PurchaseCancelled(
        goods_id=command.goods_id,
        purchase_source=key.source,
        purchase_id=key.id,
        user_id=purchase.user_id,
        quantity=purchase.quantity,
    )
    return _change(goods, returned)


def _change(goods: Goods, event: GoodsEvent) -> GoodsEvent | Rejection:
    """The event, if the stock stays within its bounds."""
    if not goods.version:
        return Rejection(Reason.GOODS_NOT_FOUND)
    on_hand = goods.on_hand + event.stock_delta
    if on_hand < 0:
        return Rejection(Reason.INSUFFICIENT_STOCK)
    return Rejection(Reason.STOCK_LIMIT) if on_hand > STOCK_MAX else event


def evolve_goods(goods: Goods, event: GoodsEvent) -> Goods:
    """The goods after the event. Pure."""
    return Goods(goods.version + 1, goods.on_hand + event.stock_delta)
