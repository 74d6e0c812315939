"""The stock rows that `decide` needs: locked before they are read, held to the commit, written set-wise."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ledger.domain.goods import Goods
from ledger.errors import Defect
from ledger.store.copy import texts
from ledger.store.database import Connection

# In sorted order: two batches that share goods lock them in the same order and can't deadlock.
LOCK = """
SELECT goods_id FROM ledger.stock
WHERE generation = %s AND goods_id = ANY(string_to_array(%s, E'\\n')) ORDER BY goods_id FOR UPDATE
"""
READ = """
SELECT goods_id, version, on_hand FROM ledger.stock
WHERE generation = %s AND goods_id = ANY(string_to_array(%s, E'\\n'))
"""
UPDATE = """
UPDATE ledger.stock s SET version = n.version, on_hand = n.on_hand
FROM unnest(string_to_array(%s, E'\\n'), string_to_array(%s, E'\\n')::bigint[],
            string_to_array(%s, E'\\n')::bigint[]) AS n (goods_id, version, on_hand)
WHERE s.generation = %s AND s.goods_id = n.goods_id
"""
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


def lock(conn: Connection, generation: int, goods_ids: Iterable[str]) -> set[str]:
    """Hold the goods' rows until the transaction ends; returns those that have one.

    Only these may be read afterwards: a row that is committed between the two statements is seen by the
    second and held by neither.
    """
    return {goods_id for (goods_id,) in conn.execute(LOCK, (generation, texts(goods_ids)))}


def read(conn: Connection, generation: int, goods_ids: Iterable[str]) -> dict[str, Goods]:
    """The goods that have a row. In a statement of its own, after `lock`.

    The locking statement itself may return a row as it was before the wait for its lock.
    """
    rows = conn.execute(READ, (generation, texts(goods_ids)), binary=True)
    return {goods_id: Goods(version, on_hand) for goods_id, version, on_hand in rows}


def update(conn: Connection, generation: int, goods: Mapping[str, Goods]) -> None:
    """Write the goods' new state over the rows that `lock` holds."""
    if not goods:
        return
    written = conn.execute(UPDATE, (*_columns(goods), generation)).rowcount
    if written != len(goods):
        raise Defect(f"{len(goods)} stock rows were locked, but {written} could be written")


def insert(conn: Connection, generation: int, goods: Mapping[str, Goods]) -> None:
    """Write the rows of goods that were just listed."""
    if goods:
        conn.execute(INSERT, (generation, *_columns(goods)))


def _columns(goods: Mapping[str, Goods]) -> tuple[str, str, str]:
    versions, on_hand = ([str(g.version) for g in goods.values()], [str(g.on_hand) for g in goods.values()])
    return texts(goods), texts(versions), texts(on_hand)
