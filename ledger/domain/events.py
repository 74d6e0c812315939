"""The events, as they are stored: what happened, in the words of the commands.

An event is built only by `decide`, from a command that was validated, so its fields carry no bounds
of their own; they are checked again where a stored payload is read back.
"""

from typing import ClassVar, get_args

import msgspec


class Event(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Base of the events. `TYPE` is the storage format: it is never renamed, whatever the class is called."""

    TYPE: ClassVar[str]

    @property
    def stock_delta(self) -> int:
        """By how many pieces the event changes the stock of its goods; 0 for a user's event."""
        return 0


class UserRegistered(Event, frozen=True):
    """The user may buy from here on."""

    TYPE: ClassVar[str] = "UserRegistered"
    user_id: str
    name: str | None = None


class UserClosed(Event, frozen=True):
    """The user may not buy any more."""

    TYPE: ClassVar[str] = "UserClosed"
    user_id: str


class GoodsListed(Event, frozen=True):
    """The goods exist, with a stock of 0."""

    TYPE: ClassVar[str] = "GoodsListed"
    goods_id: str
    name: str | None = None


class StockReceived(Event, frozen=True):
    """The stock grew by `quantity` pieces."""

    TYPE: ClassVar[str] = "StockReceived"
    goods_id: str
    quantity: int

    @property
    def stock_delta(self) -> int:
        return self.quantity


class StockAdjusted(Event, frozen=True):
    """The stock was corrected by `delta` pieces."""

    TYPE: ClassVar[str] = "StockAdjusted"
    goods_id: str
    delta: int
    note: str | None = None

    @property
    def stock_delta(self) -> int:
        return self.delta


class GoodsPurchased(Event, frozen=True):
    """The stock fell by `quantity` pieces and the user's purchases grew by as many."""

    TYPE: ClassVar[str] = "GoodsPurchased"
    user_id: str
    goods_id: str
    quantity: int
    unit_price_minor: int | None = None

    @property
    def stock_delta(self) -> int:
        return -self.quantity


class PurchaseCancelled(Event, frozen=True):
    """The `quantity` of a purchase, made by `user_id`, returned to the stock."""

    TYPE: ClassVar[str] = "PurchaseCancelled"
    goods_id: str
    purchase_source: str
    purchase_id: str
    user_id: str
    quantity: int

    @property
    def stock_delta(self) -> int:
        return self.quantity


UserEvent = UserRegistered | UserClosed
GoodsEvent = GoodsListed | StockReceived | StockAdjusted | GoodsPurchased | PurchaseCancelled
AnyEvent = UserEvent | GoodsEvent

EVENTS: dict[str, type[AnyEvent]] = {event.TYPE: event for event in get_args(AnyEvent)}
"""The models by stored type."""


payload = msgspec.json.Encoder().encode
"""An event's fields as they are stored: compact UTF-8 JSON, those at their default left out."""
