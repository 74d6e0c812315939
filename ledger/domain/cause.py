"""The command that an event comes from: an applied command is determined by its event, its fingerprint too.

Pure. An event is a command's fields, and of a cancellation also what it returned. So whoever changes a stored
event without the register, or the other way round, is found without Kafka.
"""

from msgspec.json import Decoder

from ledger.domain import structs
from ledger.domain.commands import MessageKey
from ledger.domain.envelope import fingerprint
from ledger.domain.events import (
    EVENTS,
    AnyEvent,
    GoodsListed,
    GoodsPurchased,
    PurchaseCancelled,
    StockAdjusted,
    StockReceived,
    UserClosed,
    UserRegistered,
)
from ledger.domain.upcast import STEPS, load

# Today's shapes are read by these in a fraction of the time that `load` takes, which looks at bounds.
_DECODERS = {type_: Decoder(model) for type_, model in EVENTS.items()}


def cause(event: AnyEvent) -> structs.AnyStruct:
    """The command that was applied as this event."""
    match event:
        case UserRegistered():
            return structs.RegisterUserStruct(name=event.name, user_id=event.user_id)
        case UserClosed():
            return structs.CloseUserStruct(user_id=event.user_id)
        case GoodsListed():
            return structs.ListGoodsStruct(goods_id=event.goods_id, name=event.name)
        case StockReceived():
            return structs.ReceiveStockStruct(goods_id=event.goods_id, quantity=event.quantity)
        case StockAdjusted():
            return structs.AdjustStockStruct(delta=event.delta, goods_id=event.goods_id, note=event.note)
        case GoodsPurchased():
            return structs.PurchaseGoodsStruct(
                goods_id=event.goods_id,
                quantity=event.quantity,
                unit_price_minor=event.unit_price_minor,
                user_id=event.user_id,
            )
        case PurchaseCancelled():
            return structs.CancelPurchaseStruct(
                goods_id=event.goods_id,
                purchase_id=event.purchase_id,
                purchase_source=event.purchase_source,
            )


def stored_fingerprint(key: MessageKey, type: str, payload: str) -> bytes:
    """The fingerprint of the command `key` that was applied as the event stored like this.

    Raises ValueError if it can't be read.
    """
    decoder = None if STEPS else _DECODERS.get(type)
    return fingerprint(key, cause(decoder.decode(payload) if decoder else load(type, payload)))
