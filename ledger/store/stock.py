"""The stock rows that `decide` needs: locked before they are read, held to the commit, written set-wise."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ledger.domain.goods import Goods
from ledger.store.copy import texts
from ledger.store.database import Connection
from ledger.store.together import Question

# In sorted order: two batches that share goods lock them in the same order and can't deadlock. A join,
# because Postgres checks the conditions again for each row that it waited for: none may hold the whole list.
LOCK = """
SELECT s.goods_id
FROM unnest(string_to_array(%s, E'\\n')) AS w (goods_id) JOIN ledger.stock s ON s.goods_id = w.goods_id
WHERE s.generation = %s ORDER BY s.goods_id FOR UPDATE OF s
"""
READ = """
SELECT goods_id, version, on_hand FROM ledger.stock
WHERE generation = %s AND goods_id = ANY(string_to_array(%s, E'\\n'))
"""
UPDATE = "SELECT ledger.write_stock(%s, %s, %s, %s)"
INSERT = """
INSERT INTO ledger.stock (generation, goods_id, version, on_hand)
SELECT %s, n.goods_id, n.version, n.on_hand
FROM unnest(string_to_array(%s, E'\\n'), string_to_array(%s, E'\\n')::bigint[],
            string_to_array(%s, E'\\n')::bigint[]) AS n (goods_id, version, on_hand) ORDER BY n.goods_id
"""
LEVEL = "SELECT goods_id, on_hand, version FROM ledger.stock_levels WHERE goods_id = %s"


class StockLevel(NamedTuple):
    """How many pieces of the goods there are, after `version` events of its stream."""

    goods_id: str
    on_hand: int
    version: int


def level(conn: Connection, goods_id: str) -> StockLevel | None:
    """The goods' live stock as of the last commit; None if they were never listed."""
    row = conn.execute(LEVEL, (goods_id,)).fetchone()
    return StockLevel(*row) if row else None


def lock(generation: int, goods_ids: Iterable[str]) -> Question[set[str]]:
    """Hold the goods' rows until the transaction ends; returns those that have one.

    Only these count: a row that is committed between this statement and `read` is seen by the second and
    held by neither.
    """
    return Question(LOCK, (texts(goods_ids), generation), lambda rows: {goods_id for (goods_id,) in rows})


def read(generation: int, goods_ids: Iterable[str]) -> Question[dict[str, Goods]]:
    """The goods that have a row. In a statement of its own, after `lock`.

    The locking statement itself may return a row as it was before the wait for its lock.
    """
    return Question(
        READ,
        (generation, texts(goods_ids)),
        lambda rows: {goods_id: Goods(version, on_hand) for goods_id, version, on_hand in rows},
    )


def update(generation: int, goods: Mapping[str, Goods]) -> Question[None] | None:
    """Write the goods' new state over the rows that `lock` holds; None where there is nothing to write."""
    return Question(UPDATE, (generation, *_columns(goods)), lambda _: None) if goods else None


def insert(conn: Connection, generation: int, goods: Mapping[str, Goods]) -> None:
    """Write the rows of goods that were just listed."""
    if goods:
        conn.execute(INSERT, (generation, *_columns(goods)))


def _columns(goods: Mapping[str, Goods]) -> tuple[str, str, str]:
    versions, on_hand = ([str(g.version) for g in goods.values()], [str(g.on_hand) for g in goods.values()])
    return texts(goods), texts(versions), texts(on_hand)
