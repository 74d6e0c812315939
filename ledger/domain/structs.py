"""The commands as the ledger decides on them: their fields alone, small and quick to make.

The models (`ledger.domain.commands`) are what people build and what judges a record; a command that one of
them let pass goes on as the struct of its name (`PurchaseGoods` as `PurchaseGoodsStruct`). `DECODE` makes one
straight from a record's bytes; where these are plain (`is_plain`) the model would accept them too, with the
same fields, and all else is left to it. (A model's object and its canonical form take 3.2 us, these 0.4.)
"""

from collections.abc import Callable
from typing import Annotated, ClassVar, get_args
from unicodedata import is_normalized

from msgspec import Meta, Struct
from msgspec.json import Decoder, Encoder

from ledger.domain.commands import KEY_PART_MAX, PRICE_MINOR_MAX, QUANTITY_MAX, AnyCommand

_BusinessId = Annotated[str, Meta(min_length=1, max_length=64)]
_KeyPart = Annotated[str, Meta(pattern=rf"\A[!-~]{{1,{KEY_PART_MAX}}}\Z")]
_Text = Annotated[str, Meta(max_length=200)]
_Quantity = Annotated[int, Meta(ge=1, le=QUANTITY_MAX)]
_PriceMinor = Annotated[int, Meta(ge=0, le=PRICE_MINOR_MAX)]


class CommandStruct(Struct, frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    """Base of the structs. Each has the `NAME` and the fields of its model, in the same order."""

    NAME: ClassVar[str]


class RegisterUserStruct(CommandStruct, frozen=True, kw_only=True):
    NAME = "RegisterUser"
    name: _Text | None = None
    user_id: _BusinessId


class CloseUserStruct(CommandStruct, frozen=True, kw_only=True):
    NAME = "CloseUser"
    user_id: _BusinessId


class ListGoodsStruct(CommandStruct, frozen=True, kw_only=True):
    NAME = "ListGoods"
    goods_id: _BusinessId
    name: _Text | None = None


class ReceiveStockStruct(CommandStruct, frozen=True, kw_only=True):
    NAME = "ReceiveStock"
    goods_id: _BusinessId
    quantity: _Quantity


class AdjustStockStruct(CommandStruct, frozen=True, kw_only=True):
    NAME = "AdjustStock"
    delta: _Quantity  # when decoded; the model judges those below 1
    goods_id: _BusinessId
    note: _Text | None = None


class PurchaseGoodsStruct(CommandStruct, frozen=True, kw_only=True):
    NAME = "PurchaseGoods"
    goods_id: _BusinessId
    quantity: _Quantity
    unit_price_minor: _PriceMinor | None = None
    user_id: _BusinessId


class CancelPurchaseStruct(CommandStruct, frozen=True, kw_only=True):
    NAME = "CancelPurchase"
    goods_id: _BusinessId
    purchase_id: _KeyPart
    purchase_source: _KeyPart | None = None


UserStruct = RegisterUserStruct | CloseUserStruct
GoodsStruct = (
    ListGoodsStruct | ReceiveStockStruct | AdjustStockStruct | PurchaseGoodsStruct | CancelPurchaseStruct
)
AnyStruct = UserStruct | GoodsStruct

STRUCTS: dict[str, type[AnyStruct]] = {command.NAME: command for command in get_args(AnyStruct)}
"""The structs by name."""


def struct_of(command: AnyStruct | AnyCommand) -> AnyStruct:
    """The command that a model holds, or the command itself."""
    return command if isinstance(command, CommandStruct) else STRUCTS[command.NAME](**dict(command))


canonical: Callable[[AnyStruct | AnyCommand], bytes] = Encoder(enc_hook=struct_of).encode
"""The fields as compact UTF-8 JSON in their declared order, those at their default (`None`) left out."""


DECODE: dict[str, Callable[[bytes], AnyStruct]] = {
    name: Decoder(command).decode for name, command in STRUCTS.items()
}
"""What makes a struct of a record's value, or raises MsgspecError or UnicodeDecodeError, by the name.

What `is_plain` then says yes to, the model accepts, with the same fields.
"""


def is_plain(value: bytes, payload: bytes) -> bool:
    """Whether the model needn't be asked about a value that `DECODE` took; `payload` is its canonical form.

    It must be about repeated keys, nulls, escapes, and texts that begin or end with a space or hold what
    can't be printed or isn't in NFC.
    """
    text = payload.decode()
    return (
        text.isprintable()
        and "\\" not in text
        and '" ' not in text
        and ' "' not in text
        and (text.isascii() or is_normalized("NFC", text))
        # As many colons as in the canonical form, and none spelt otherwise: no key is repeated, none is null.
        and (value == payload or (value.count(b":") == payload.count(b":") and b"\\" not in value))
    )
