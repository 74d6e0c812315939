"""The one canonical workload: purchases that all apply, with UUIDv7 ids and CloudEvents headers."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import uuid_utils

from ledger.domain.commands import (
    AnyCommand,
    ListGoods,
    MessageKey,
    PurchaseGoods,
    ReceiveStock,
    RegisterUser,
)


@dataclass(frozen=True)
class Workload:
    """How many commands over how many goods and users; the seed makes two runs alike but for the ids."""

    commands: int = 200_000
    goods: int = 1_000
    users: int = 1_000
    seed: int = 7

    def setup(self) -> Iterator[tuple[MessageKey, AnyCommand]]:
        """What must be applied before the purchases."""
        for n in range(self.users):
            yield MessageKey("bench", f"user-{n}"), RegisterUser(user_id=f"user{n:05}")
        for n in range(self.goods):
            yield MessageKey("bench", f"goods-{n}"), ListGoods(goods_id=f"sku{n:05}")
        for n in range(self.goods):
            yield (
                MessageKey("bench", f"stock-{n}"),
                ReceiveStock(goods_id=f"sku{n:05}", quantity=1_000_000_000),
            )

    def purchases(self) -> Iterator[tuple[MessageKey, AnyCommand]]:
        """The commands that are timed."""
        choose = random.Random(self.seed)
        for _ in range(self.commands):
            yield (
                MessageKey("bench", str(uuid_utils.uuid7())),
                PurchaseGoods(
                    user_id=f"user{choose.randrange(self.users):05}",
                    goods_id=f"sku{choose.randrange(self.goods):05}",
                    quantity=choose.randint(1, 9),
                ),
            )
