"""The commands as the ledger decides on them: their fields alone, small and quick to make.

The models (`ledger.domain.commands`) are what people build and what judges a record; a command that one of
them let pass goes on as one of these. `DECODE` makes one straight from a record's bytes; where these are
plain (`is_plain`) the model would accept them too, with the same fields, and all else is left to it. (A
model's object and its canonical form take 3.2 us, these 0.4.)
"""

from collections.abc import Callable
from typing import Annotated, ClassVar, get_args
from unicodedata import is_normalized

from msgspec import Meta, Struct
from msgspec.json import Decoder, Encoder

from ledger.domain.commands import KEY_PART_MAX, PRICE_MINOR_MAX, QUANTITY_MAX
from ledger.domain.commands import AnyCommand as AnyModel

BusinessId = Annotated[str, Meta(min_length=1, max_length=64)]
KeyPart = Annotated[str, Meta(pattern=rf"\A[!-~]{{1,{KEY_PART_MAX}}}\Z")]
Text = Annotated[str, Meta(max_length=200)]
Quantity = Annotated[int, Meta(ge=1, le=QUANTITY_MAX)]
PriceMinor = Annotated[int, Meta(ge=0, le=PRICE_MINOR_MAX)]


class Command(Struct, frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    """Base of them. Each has the name and the fields of its model, in the same order."""

    NAME: ClassVar[str]


class RegisterUser(Command, frozen=True, kw_only=True):
    NAME = "RegisterUser"
    name: Text | None = None
    user_id: BusinessId


class CloseUser(Command, frozen=True, kw_only=True):
    NAME = "CloseUser"
    user_id: BusinessId


class ListGoods(Command, frozen=True, kw_only=True):
    NAME = "ListGoods"
    goods_id: BusinessId
    name: Text | None = None


class ReceiveStock(Command, frozen=True, kw_only=True):
    NAME = "ReceiveStock"
    goods_id: BusinessId
    quantity: Quantity


class AdjustStock(Command, frozen=True, kw_only=True):
    NAME = "AdjustStock"
    delta: Quantity  # when decoded; the model judges those below 1
    goods_id: BusinessId
    note: Text | None = None


class PurchaseGoods(Command, frozen=True, kw_only=True):
    NAME = "PurchaseGoods"
    goods_id: BusinessId
    quantity: Quantity
    unit_price_minor: PriceMinor | None = None
    user_id: BusinessId


class CancelPurchase(Command, frozen=True, kw_only=True):
    NAME = "CancelPurchase"
    goods_id: BusinessId
    purchase_id: KeyPart
    purchase_source: KeyPart | None = None


UserCommand = RegisterUser | CloseUser
GoodsCommand = ListGoods | ReceiveStock | AdjustStock | PurchaseGoods | CancelPurchase
AnyCommand = UserCommand | GoodsCommand

COMMANDS: dict[str, type[AnyCommand]] = {command.NAME: command for command in get_args(AnyCommand)}
"""By name."""


def of(command: AnyCommand | AnyModel) -> AnyCommand:
    """The command that a model holds, or the command itself."""
    return command if isinstance(command, Command) else COMMANDS[command.NAME](**dict(command))


canonical: Callable[[AnyCommand | AnyModel], bytes] = Encoder(enc_hook=of).encode
"""The fields as compact UTF-8 JSON in their declared order, those at their default (`None`) left out."""


DECODE: dict[str, Callable[[bytes], AnyCommand]] = {
    name: Decoder(command).decode for name, command in COMMANDS.items()
}
"""By name, what makes a command of a record's value, or raises MsgspecError or UnicodeDecodeError.

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
