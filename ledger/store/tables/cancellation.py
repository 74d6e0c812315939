"""Cancelled purchases. The primary key is the purchase: it is cancelled once."""

from ledger.domain.events import PurchaseCancelled
from ledger.store.connection import copy

COPY = "COPY ledger.cancellation (entry, source, id) FROM STDIN"
LINES = """
COPY (SELECT entry, source, id
      FROM ledger.cancellation WHERE entry BETWEEN %s AND %s ORDER BY entry, id, source) TO STDOUT
"""


def line(entry: int, event: PurchaseCancelled) -> str:
    """The purchase's row."""
    return copy.line(entry, event.purchase_source, event.purchase_id)
