"""The five outcomes and a rejection's reasons: one word each, the same in SQL, Python, CLI and metrics."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What became of a delivery. `applied` and `rejected` belong to a command and never change."""

    APPLIED = "applied"
    REJECTED = "rejected"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    DEAD = "dead"


class Reason(StrEnum):
    """Why a command was rejected. Stored as written here: never renamed."""

    USER_ALREADY_EXISTS = "user_already_exists"
    USER_NOT_FOUND = "user_not_found"
    USER_CLOSED = "user_closed"
    GOODS_ALREADY_EXIST = "goods_already_exist"
    GOODS_NOT_FOUND = "goods_not_found"
    INSUFFICIENT_STOCK = "insufficient_stock"
    STOCK_LIMIT = "stock_limit"
    PURCHASE_NOT_FOUND = "purchase_not_found"
    ALREADY_CANCELLED = "already_cancelled"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A business "no": an outcome with a reason, no event."""

    reason: Reason
