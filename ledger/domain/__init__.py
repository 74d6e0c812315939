"""The core: what a purchase is and when it may happen. No clock, no randomness, no I/O."""

from ledger.domain.commands import (
    AdjustStock,
    CancelPurchase,
    CloseUser,
    ListGoods,
    PurchaseGoods,
    ReceiveStock,
    RegisterUser,
)

__all__ = [
    "AdjustStock",
    "CancelPurchase",
    "CloseUser",
    "ListGoods",
    "PurchaseGoods",
    "ReceiveStock",
    "RegisterUser",
]
