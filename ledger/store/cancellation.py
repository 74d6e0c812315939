"""Cancelled purchases. The primary key is the purchase: it is cancelled once."""

from ledger.domain.events import PurchaseCancelled
from ledger.store import copy

COPY = "COPY ledger.cancellation (entry, source, id) FROM STDIN"


def line(entry: int, event: PurchaseCancelled) -> str:
    """The purchase's row."""
    return copy.line(entry, event.purchase_source, event.purchase_id)
