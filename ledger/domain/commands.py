"""The seven commands, as they are on the wire: frozen, strict, bounded, closed to unknown fields.

A command holds its business fields only. Who sent it (`source`, `id`) is its message key and travels
in the envelope (`ledger.domain.envelope`). Fields stand in alphabetical order, because a fingerprint
covers them sorted; every optional field has the default `None`.
"""

import unicodedata
from typing import Annotated, ClassVar, NamedTuple, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.config import JsonDict

QUANTITY_MAX = 1_000_000_000
PRICE_MINOR_MAX = 10**12
KEY_PART_MAX = 128


class MessageKey(NamedTuple):
    """The identity of a command: CloudEvents' (`source`, `id`). Never topic, partition or offset."""

    source: str
    id: str


def is_key_part(value: str) -> bool:
    """Whether `value` may be a `source` or an `id`: 1 to 128 visible ASCII characters."""
    return 0 < len(value) <= KEY_PART_MAX and value.isascii() and value.isprintable() and " " not in value


def _key_part(value: str) -> str:
    if not is_key_part(value):
        raise ValueError(f"must be 1 to {KEY_PART_MAX} visible ASCII characters")
    return value


def _business_id(value: str) -> str:
    # One spelling per id: two byte sequences that look alike must not be two goods by accident.
    if not value.isprintable():
        raise ValueError("has characters that can't be printed")
    if value[0] == " " or value[-1] == " ":
        raise ValueError("begins or ends with a space")
    if not value.isascii() and not unicodedata.is_normalized("NFC", value):
        raise ValueError("isn't in Unicode normal form C")
    return value


def _no_nul(value: str) -> str:
    if "\0" in value:  # Postgres text can't hold it
        raise ValueError("has a NUL character")
    return value


def _not_zero(value: int) -> int:
    if value == 0:
        raise ValueError("must not be 0")
    return value


# What validators hold, as far as JSON Schema can say it in every language: no more than they refuse.
_NEVER_IN_ID = r"\x00-\x1f\x7f-\xa0\xad"
_BUSINESS_ID_SAID: JsonDict = {"pattern": rf"^[^ {_NEVER_IN_ID}]([^{_NEVER_IN_ID}]*[^ {_NEVER_IN_ID}])?$"}
_KEY_PART_SAID: JsonDict = {"pattern": rf"^[!-~]{{1,{KEY_PART_MAX}}}$"}
_TEXT_SAID: JsonDict = {"pattern": r"^[^\x00]*$"}
_DELTA_SAID: JsonDict = {"not": {"const": 0}}

BusinessId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=64),
    AfterValidator(_business_id),
    Field(json_schema_extra=_BUSINESS_ID_SAID),
]
"""A user's or goods' id: 1 to 64 printable characters in NFC, compared byte for byte."""
KeyPart = Annotated[str, AfterValidator(_key_part), Field(json_schema_extra=_KEY_PART_SAID)]
Text = Annotated[
    str, StringConstraints(max_length=200), AfterValidator(_no_nul), Field(json_schema_extra=_TEXT_SAID)
]
Quantity = Annotated[int, Field(ge=1, le=QUANTITY_MAX)]
Delta = Annotated[
    int,
    Field(ge=-QUANTITY_MAX, le=QUANTITY_MAX, json_schema_extra=_DELTA_SAID),
    AfterValidator(_not_zero),
]
PriceMinor = Annotated[int, Field(ge=0, le=PRICE_MINOR_MAX)]


class Command(BaseModel):
    """Base of the commands. `NAME` is the stable name on the wire, whatever the class is called."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)
    NAME: ClassVar[str]


class RegisterUser(Command):
    """Make a user known; an id is never given out twice, not even after `CloseUser`."""

    NAME: ClassVar[str] = "RegisterUser"
    name: Text | None = None
    user_id: BusinessId


class CloseUser(Command):
    """End a user's right to buy."""

    NAME: ClassVar[str] = "CloseUser"
    user_id: BusinessId


class ListGoods(Command):
    """Make goods known, with a stock of 0."""

    NAME: ClassVar[str] = "ListGoods"
    goods_id: BusinessId
    name: Text | None = None


class ReceiveStock(Command):
    """Add `quantity` pieces to the stock."""

    NAME: ClassVar[str] = "ReceiveStock"
    goods_id: BusinessId
    quantity: Quantity


class AdjustStock(Command):
    """Correct the stock by `delta` pieces, either way."""

    NAME: ClassVar[str] = "AdjustStock"
    delta: Delta
    goods_id: BusinessId
    note: Text | None = None


class PurchaseGoods(Command):
    """The user buys `quantity` pieces of the goods: all of them, or none. The price is in minor units."""

    NAME: ClassVar[str] = "PurchaseGoods"
    goods_id: BusinessId
    quantity: Quantity
    unit_price_minor: PriceMinor | None = None
    user_id: BusinessId


class CancelPurchase(Command):
    """Return a purchase's goods to the stock. `purchase_source` is the canceller's own when left out."""

    NAME: ClassVar[str] = "CancelPurchase"
    goods_id: BusinessId
    purchase_id: KeyPart
    purchase_source: KeyPart | None = None


UserCommand = RegisterUser | CloseUser
GoodsCommand = ListGoods | ReceiveStock | AdjustStock | PurchaseGoods | CancelPurchase
AnyCommand = UserCommand | GoodsCommand

COMMANDS: dict[str, type[AnyCommand]] = {command.NAME: command for command in get_args(AnyCommand)}
"""The models by name."""


def record_key(command: AnyCommand) -> str:
    """The record key unless a producer chooses another: what the command changes, so that all its changes
    come through one lane."""
    return command.user_id if isinstance(command, UserCommand) else command.goods_id
