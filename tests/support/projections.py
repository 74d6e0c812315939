"""Ledgers with projections: connections as a rebuild uses them, busy workers, rows to compare."""

import random
import threading
from collections.abc import Callable
from typing import Any

from ledger.domain.commands import CancelPurchase, ListGoods, PurchaseGoods, ReceiveStock, RegisterUser
from ledger.domain.delivery import Record
from ledger.errors import Contended
from ledger.projections.projection import Projection
from ledger.rebuilding.projector import Projector
from ledger.rebuilding.rebuild import BUDGETS, Rebuilt
from ledger.rebuilding.swap import Comparison
from ledger.store.connection.database import Connection, connect
from tests.support.batches import Lanes, says

USERS, GOODS = 5, 7


def connector(dsn: str) -> Callable[[], Connection]:
    """Makes connections as a rebuild and a projector use them."""
    return lambda: connect(dsn, purpose="test", budgets=BUDGETS)


def compared(done: Rebuilt) -> Comparison:
    """What the rebuild found when it compared its rows with the live ones."""
    assert done.comparison
    return done.comparison


def follow(dsn: str, *projections: Projection) -> None:
    """Bring the projections' followed generations up to the head."""
    Projector(connector(dsn), projections, until_caught_up=True).run()


def shop(conn: Connection) -> Lanes:
    """Users and goods with plenty of stock, in one entry on lane 0."""
    lanes = Lanes(conn)
    lanes.apply(
        0,
        *(says(f"shop-u{n}", RegisterUser(user_id=f"user{n}")) for n in range(USERS)),
        *(says(f"shop-g{n}", ListGoods(goods_id=f"goods{n}")) for n in range(GOODS)),
        *(says(f"shop-r{n}", ReceiveStock(goods_id=f"goods{n}", quantity=100_000)) for n in range(GOODS)),
    )
    return lanes


def purchases(seed: int, prefix: str, number: int) -> list[Record]:
    """So many purchases and a few cancellations of them, mixed."""
    choose = random.Random(f"{seed} {prefix}")
    records: list[Record] = []
    for n in range(number):
        goods = f"goods{choose.randrange(GOODS)}"
        price = choose.choice([None, 0, 250, 10**12])
        bought = PurchaseGoods(
            user_id=f"user{choose.randrange(USERS)}",
            goods_id=goods,
            quantity=choose.randint(1, 4),
            unit_price_minor=price,
        )
        records.append(says(f"{prefix}-{n}", bought))
        if choose.random() < 0.2:
            records.append(
                says(f"{prefix}-c{n}", CancelPurchase(goods_id=goods, purchase_id=f"{prefix}-{n}"))
            )
    return records


class Busy:
    """Workers in threads that apply small batches, each on a lane of its own, until the block is left.

    A batch that lost a race (a swapped stock, among others) is applied again, as a worker does.
    """

    def __init__(self, dsn: str, seed: int, workers: int = 2, size: int = 8, pause_s: float = 0.0) -> None:
        self.batches = 0
        self.retries: list[str] = []
        self.faults: list[BaseException] = []
        self._stop = threading.Event()
        self._size, self._seed, self._pause_s = size, seed, pause_s
        self._threads = [
            threading.Thread(target=self._work, args=(dsn, number)) for number in range(1, workers + 1)
        ]

    def _work(self, dsn: str, number: int) -> None:
        try:
            with connect(dsn, purpose="test") as conn:
                lanes = Lanes(conn)
                while not self._stop.is_set():
                    self._apply(lanes, number, purchases(self._seed, f"w{number}-{self.batches}", self._size))
                    self._stop.wait(self._pause_s)
        except BaseException as fault:  # noqa: BLE001 (handed to the test)
            self.faults.append(fault)

    def _apply(self, lanes: Lanes, number: int, records: list[Record]) -> None:
        while True:
            try:
                lanes.apply(number, *records)
            except Contended as lost:
                self.retries.append(lost.sqlstate)
                continue
            self.batches += 1
            return

    def __enter__(self) -> "Busy":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self.faults, self.faults


def rows(conn: Connection, query: str) -> list[tuple[Any, ...]]:
    """What the query gives."""
    return conn.execute(query).fetchall()


EXPECTED = {
    "stock": """
        SELECT substr(stream, 7), sum(delta)::bigint, max(version) FROM ledger.event
        WHERE starts_with(stream, 'goods-') GROUP BY stream ORDER BY 1""",
    "purchases_by_user": """
        SELECT user_id, goods_id, count(*), sum(quantity)::bigint, count(*) FILTER (WHERE cancelled),
               coalesce(sum(quantity) FILTER (WHERE cancelled), 0)::bigint
        FROM ledger.purchases GROUP BY 1, 2 ORDER BY 1, 2""",
    "user_events": """
        SELECT user_id, position, ordinal, source, id FROM ledger.event JOIN ledger.journal USING (entry)
        WHERE user_id IS NOT NULL ORDER BY 1, 2, 3""",
}
"""From the events and the always current views, by other statements than the projections'."""
ACTUAL = {
    "stock": "SELECT goods_id, on_hand, version FROM ledger.stock_levels ORDER BY 1",
    "purchases_by_user": "SELECT * FROM ledger.purchases_by_user ORDER BY 1, 2",
    "user_events": "SELECT * FROM ledger.user_events ORDER BY 1, 2, 3",
}


def is_right(conn: Connection, name: str) -> bool:
    """Whether what readers see of the projection is what the events say."""
    return rows(conn, ACTUAL[name]) == rows(conn, EXPECTED[name])


def forge(
    conn: Connection, type_: str, payload: str = "{}", delta: int = 0, stream: str = "goods-goods0"
) -> int:
    """An entry with one event that no batch of this build would write; returns its position."""
    [(entry, version, position)] = conn.execute(
        """SELECT nextval('ledger.entry_number'),
           (SELECT max(version) + 1 FROM ledger.event WHERE stream = %s),
           (SELECT position + 1 FROM ledger.head)""",
        [stream],
    )
    conn.execute(
        "INSERT INTO ledger.event VALUES (%s, 0, %s, %s, %s, %s, %s, NULL, 'x', %s)",
        [entry, stream, version, type_, payload, delta, f"forged-{entry}"],
    )
    conn.execute(
        """INSERT INTO ledger.journal
           VALUES (%s, %s, 'forged', 0, 1, %s, %s, 1, 0, 0, 0, 0, 0, now(), '', '')""",
        [position, entry, position, position + 1],
    )
    conn.execute("UPDATE ledger.head SET position = %s", [position])
    return int(position)
