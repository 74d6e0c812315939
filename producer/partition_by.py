"""The words for how commands are routed, quick to import. What they do: `producer.routing`."""

from enum import StrEnum

PARTITIONS_MAX = 10_000
"""More than any topic has."""


class PartitionBy(StrEnum):
    """Whose commands stay in order on one lane; `mixed`: the goods', but for those that are hot."""

    GOODS = "goods"
    USER = "user"
    MIXED = "mixed"


class HotBy(StrEnum):
    """What becomes of hot goods: partitions that nothing else uses, or several by the users who buy."""

    ISOLATE = "isolate"
    SPREAD = "spread"
