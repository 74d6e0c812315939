"""The stock rows that `decide` needs: locked before they are read, held to the commit, written set-wise."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ledger.domain.goods import Goods
from ledger.store.connection.copy import texts
from ledger.store.connection.database import Connection
from ledger.store.connection.roundtrip import Statement

# In sorted order: two batches that share goods lock them in the same order and can't deadlock. One after the
# other by its key (OFFSET 0 keeps it so): a join could read the whole table. And Postgres checks the
# conditions again for each row that it waited for, so none may hold the whole list.
LOCK = """
SELECT s.goods_id
FROM (SELECT id FROM unnest(string_to_array(%s, E'\\n')) AS u (id) ORDER BY id COLLATE "C") w
CROSS JOIN LATERAL (
    SELECT goods_id FROM ledger.stock WHERE generation = %s AND goods_id = w.id OFFSET 0 FOR UPDATE
) s
"""
READ = """
SELECT goods_id, version, on_hand FROM ledger.stock
WHERE generation = %s AND goods_id = ANY(string_to_array(%s, E'\\n'))
"""
WRITE = "SELECT ledger.write_stock(%s, %s, %s, %s, %s, %s)"
INSERT = """
INSERT INTO ledger.stock (generation, goods_id, version, on_hand)
SELECT %s, n.goods_id, n.version, n.on_hand
FROM unnest(string_to_array(%s, E'\\n'), string_to_array(%s, E'\\n')::bigint[],
            string_to_array(%s, E'\\n')::bigint[]) AS n (goods_id, version, on_hand) ORDER BY n.goods_id
"""
LEVEL = "SELECT goods_id, on_hand, version FROM ledger.stock_levels WHERE goods_id = %s"
# Along the primary key.
LISTED = """
SELECT s.goods_id, s.on_hand, s.version FROM ledger.stock s
WHERE s.generation = (SELECT stock_generation FROM ledger.head) AND s.goods_id > %s
ORDER BY s.goods_id LIMIT %s
"""

# Along the primary key, both ways.
NEIGHBOURS = """
(SELECT s.goods_id FROM ledger.stock s
 WHERE s.generation = (SELECT stock_generation FROM ledger.head) AND s.goods_id >= %(goods_id)s
 ORDER BY s.goods_id LIMIT %(limit)s)
UNION ALL
(SELECT s.goods_id FROM ledger.stock s
 WHERE s.generation = (SELECT stock_generation FROM ledger.head) AND s.goods_id < %(goods_id)s
 ORDER BY s.goods_id DESC LIMIT %(limit)s)
"""
NEIGHBOURS_MAX = 200


class StockLevel(NamedTuple):
    """How many pieces of the goods there are, after `version` events of its stream."""

    goods_id: str
    on_hand: int
    version: int


def level(conn: Connection, goods_id: str) -> StockLevel | None:
    """The goods' live stock as of the last commit; None if they were never listed."""
    row = conn.execute(LEVEL, (goods_id,)).fetchone()
    return StockLevel(*row) if row else None


def listed(conn: Connection, after: str, limit: int) -> list[StockLevel]:
    """The live stock of the next goods whose ids come after this one, by id."""
    return [StockLevel(*row) for row in conn.execute(LISTED, (after, limit))]


def neighbours(conn: Connection, goods_id: str) -> list[str]:
    """Some of the goods whose ids come before and after this one, which may not be there."""
    rows = conn.execute(NEIGHBOURS, {"goods_id": goods_id, "limit": NEIGHBOURS_MAX})
    return [found for (found,) in rows]


def lock_statement(generation: int, goods_ids: Iterable[str]) -> Statement[set[str]]:
    """Hold the goods' rows until the transaction ends; returns those that have one.

    Only these count: a row that is committed between this statement and `read_statement` is seen by that
    one and held by neither.
    """
    return Statement(LOCK, (texts(goods_ids), generation), lambda rows: {goods_id for (goods_id,) in rows})


def read_statement(generation: int, goods_ids: Iterable[str]) -> Statement[dict[str, Goods]]:
    """Read the goods that have a row. In a statement of its own, after `lock_statement`.

    The locking statement itself may return a row as it was before the wait for its lock.
    """
    return Statement(
        READ,
        (generation, texts(goods_ids)),
        lambda rows: {goods_id: Goods(version, on_hand) for goods_id, version, on_hand in rows},
    )


def write_statement(
    entry: int, generation: int, listed: Mapping[str, Goods], changed: Mapping[str, Goods]
) -> Statement[None]:
    """Write the changed goods' new state over rows that it has locked.

    It is noted with that of the listed ones, whose rows are there already: caches follow it (`stock_delta`).
    """
    return Statement(
        WRITE, (entry, generation, len(listed), *_columns({**listed, **changed})), lambda _: None
    )


def insert_statement(generation: int, goods: Mapping[str, Goods]) -> Statement[None]:
    """Write the rows of goods that were just listed."""
    return Statement(INSERT, (generation, *_columns(goods)), lambda _: None)


def _columns(goods: Mapping[str, Goods]) -> tuple[str, str, str]:
    versions, on_hand = ([str(g.version) for g in goods.values()], [str(g.on_hand) for g in goods.values()])
    return texts(goods), texts(versions), texts(on_hand)
