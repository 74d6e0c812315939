"""The events, as they are stored: what happened, in the words of the commands.

An event is built only by `decide`, from a command that was validated, so its fields carry no bounds
of their own; they are checked again where a stored payload is read back.
"""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Event(BaseModel):
    """Base of the events. `TYPE` is the storage format: it is never renamed, whatever the class is called."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)
    TYPE: ClassVar[str]


class UserRegistered(Event):
    """The user may buy from here on."""

    TYPE: ClassVar[str] = "UserRegistered"
    user_id: str
    name: str | None = None


class UserClosed(Event):
    """The user may not buy any more."""

    TYPE: ClassVar[str] = "UserClosed"
    user_id: str


class GoodsListed(Event):
    """The goods exist, with a stock of 0."""

    TYPE: ClassVar[str] = "GoodsListed"
    goods_id: str
    name: str | None = None


class StockReceived(Event):
    """The stock grew by `quantity` pieces."""

    TYPE: ClassVar[str] = "StockReceived"
    goods_id: str
    quantity: int


class StockAdjusted(Event):
    """The stock was corrected by `delta` pieces."""

    TYPE: ClassVar[str] = "StockAdjusted"
    goods_id: str
    delta: int
    note: str | None = None


class GoodsPurchased(Event):
    """The stock fell by `quantity` pieces and the user's purchases grew by as many."""

    TYPE: ClassVar[str] = "GoodsPurchased"
    user_id: str
    goods_id: str
    quantity: int
    unit_price_minor: int | None = None


class PurchaseCancelled(Event):
    """The `quantity` of a purchase, made by `user_id`, returned to the stock."""

    TYPE: ClassVar[str] = "PurchaseCancelled"
    goods_id: str
    purchase_source: str
    purchase_id: str
    user_id: str
    quantity: int


UserEvent = UserRegistered | UserClosed
GoodsEvent = GoodsListed | StockReceived | StockAdjusted | GoodsPurchased | PurchaseCancelled
AnyEvent = UserEvent | GoodsEvent

EVENTS: dict[str, type[AnyEvent]] = {
    event.TYPE: event
    for event in (
        UserRegistered,
        UserClosed,
        GoodsListed,
        StockReceived,
        StockAdjusted,
        GoodsPurchased,
        PurchaseCancelled,
    )
}
"""The models by stored type."""


def stock_delta(event: AnyEvent) -> int:
    """By how many pieces the event changes the stock of its goods; 0 for a user's event."""
    match event:
        case GoodsPurchased():
            return -event.quantity
        case StockReceived() | PurchaseCancelled():
            return event.quantity
        case StockAdjusted():
            return event.delta
        case _:
            return 0
