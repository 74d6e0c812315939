"""Evidence of a message key that came again with another payload: both fingerprints, both deliveries."""

from ledger.domain.delivery import Delivery, Lane, Request
from ledger.store import copy
from ledger.store.processed_message import Processed

COPY = """
COPY ledger.conflict
    (entry, source, id, first_fingerprint, first_topic, first_partition, first_offset,
     second_fingerprint, second_topic, second_partition, second_offset, second_value) FROM STDIN
"""


def line(
    entry: int, again: Request, first: Processed, first_lane: Lane, delivery: Delivery, lane: Lane
) -> str:
    """The row of a `delivery` in `lane` that brought the key of `first` `again`, changed."""
    return copy.line(
        entry,
        *again.key,
        first.fingerprint,
        *first_lane,
        first.offset,
        again.fingerprint,
        *lane,
        delivery.offset,
        delivery.record.value,
    )
