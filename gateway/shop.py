"""`buy_goods`, the one call: it publishes a purchase, waits, and returns what became of it, for good."""

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self
from uuid import UUID
from weakref import WeakKeyDictionary

from gateway.bell import Bell
from gateway.sender import REPEAT, Order
from gateway.till import Till, Wait, blocking, finished
from ledger.answers import RecordedOutcome
from ledger.domain.commands import PurchaseGoods
from ledger.store.connection.lending import ConnectionSource
from producer.arguments import message_key, require_key_part, seconds
from producer.publisher import Publisher

CLOSE_WAIT_S = 11.0
"""As long as the client may try to deliver what was ordered, and a second."""


class _Counter:
    """What both kinds of shop share."""

    def __init__(
        self, kafka: Mapping[str, Any], topic: str, source: str, dsn: ConnectionSource, **routing: Any
    ) -> None:
        self._source = require_key_part("source", source)
        self._till = Till(partial(Publisher, kafka, topic, **routing), topic, dsn)

    def close(self) -> None:
        self._till.close(CLOSE_WAIT_S)

    def order(
        self, request_id: str | UUID, user_id: str, goods_id: str, quantity: int, price: int | None
    ) -> Order:
        if request_id is None:  # else it would be made up, and no repeat could find it
            raise TypeError("request_id must be text or a UUID, not NoneType")
        command = PurchaseGoods(user_id=user_id, goods_id=goods_id, quantity=quantity, unit_price_minor=price)
        return Order(message_key(self._source, request_id), command)

    async def outcome(self, order: Order, timeout_s: float, wait: Wait) -> RecordedOutcome:
        [answer] = await self._till.answers([order], seconds(timeout_s), wait)
        if answer.outcome:
            return answer.outcome
        if answer.error:
            raise answer.error
        assert answer.receipt
        source, id = answer.key
        raise TimeoutError(
            f"no outcome of {source} {id} after {timeout_s} s; {self._till.place(answer.receipt)}, and a "
            f"worker will decide it; {REPEAT}"
        )


class Shop:
    """Buys in the name of one `source`, from any thread. Use it in a `with` block, or `close` it.

    `kafka` holds librdkafka's properties, `dsn` leads to the ledger, as for `Publisher` and `Ledger`. Which
    lane a purchase goes to is chosen as for `Publisher`; whoever buys elsewhere should choose the same. It
    connects at once, with a thread that publishes for all callers and one that waits for all of them.

    Raises what `Publisher` and `Ledger` raise when they are made. In a process that was forked off later
    `buy_goods` raises a LedgerError: make a shop in each process after its fork.
    """

    def __init__(
        self,
        kafka: Mapping[str, Any],
        topic: str,
        source: str,
        dsn: ConnectionSource = "",
        *,
        partition_by: str = "goods",
        hot_goods: Iterable[str] = (),
        hot_by: str = "isolate",
        hot_partitions: int | None = None,
    ) -> None:
        self._counter = _Counter(
            kafka, topic, source, dsn, partition_by=partition_by, hot_goods=tuple(hot_goods),
            hot_by=hot_by, hot_partitions=hot_partitions,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the threads and the connections, once what was ordered is reported."""
        self._counter.close()

    def buy_goods(
        self,
        user_id: str,
        goods_id: str,
        quantity: int,
        request_id: str | UUID,
        *,
        unit_price_minor: int | None = None,
        timeout_s: float = 5.0,
    ) -> RecordedOutcome:
        """Buy, once, however often this is called with the same `request_id`: each call has the same answer.

        The outcome is `applied`, or `rejected` with its reason: `insufficient_stock`, `user_not_found`,
        `user_closed` or `goods_not_found`. It is `conflict` where the `request_id` was first used for another
        purchase: this one isn't applied.

        Raises TimeoutError if there is no outcome after `timeout_s` seconds, BrokerUnavailable or Unavailable
        if Kafka or the database is away. In each case the same call is safe to repeat. Raises ValueError or
        TypeError for an argument that can't be one; nothing was published then.
        """
        order = self._counter.order(request_id, user_id, goods_id, quantity, unit_price_minor)
        return finished(self._counter.outcome(order, timeout_s, blocking))


class AsyncShop:
    """A `Shop` for asyncio: who waits in it holds no thread. Use it in an `async with` block, or `close` it.

    To make one connects, and so keeps the event loop waiting for a moment.
    """

    def __init__(
        self,
        kafka: Mapping[str, Any],
        topic: str,
        source: str,
        dsn: ConnectionSource = "",
        *,
        partition_by: str = "goods",
        hot_goods: Iterable[str] = (),
        hot_by: str = "isolate",
        hot_partitions: int | None = None,
    ) -> None:
        self._counter = _Counter(
            kafka, topic, source, dsn, partition_by=partition_by, hot_goods=tuple(hot_goods),
            hot_by=hot_by, hot_partitions=hot_partitions,
        )  # fmt: skip
        self._bells: WeakKeyDictionary[asyncio.AbstractEventLoop, Bell] = WeakKeyDictionary()
        """One for each loop: a shop may be used from several."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """As `Shop.close`."""
        await asyncio.to_thread(self._counter.close)

    async def buy_goods(
        self,
        user_id: str,
        goods_id: str,
        quantity: int,
        request_id: str | UUID,
        *,
        unit_price_minor: int | None = None,
        timeout_s: float = 5.0,
    ) -> RecordedOutcome:
        """As `Shop.buy_goods`."""
        order = self._counter.order(request_id, user_id, goods_id, quantity, unit_price_minor)
        bell = self._bells.setdefault(asyncio.get_running_loop(), Bell())
        return await self._counter.outcome(order, timeout_s, bell.wait)
