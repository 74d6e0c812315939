"""The newest entries: which offsets of which lanes they took, and which goods came by several lanes.

Bounded by the number of entries, however long the journal is. The caller owns the connection.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from ledger.domain.delivery import Lane
from ledger.store.connection.database import Connection

ENTRIES_MAX = 100_000
NEWEST = """
SELECT topic, partition, greatest(min(first_offset), max(next_offset) - %(offsets)s), max(next_offset),
       count(*), min(position), max(position)
FROM (SELECT position, topic, partition, first_offset, next_offset,
             sum(next_offset - first_offset - skipped) OVER (ORDER BY position DESC)
             - (next_offset - first_offset - skipped) AS newer
      FROM (SELECT position, topic, partition, first_offset, next_offset, skipped
            FROM ledger.journal ORDER BY position DESC LIMIT %(entries)s) j) j
WHERE newer < %(offsets)s
GROUP BY topic, partition ORDER BY topic, partition
"""
SEVERAL_ENTRIES = 200
SEVERAL_GOODS = 50_000
"""So many goods of these entries are looked at; an item counts in each of them."""
EXAMPLES = 3
# The newest first: the limit stops the loop over the entries.
SEVERAL_LANES = """
SELECT topic, goods_id, partitions, count(*) OVER (),
       count(*) FILTER (WHERE cardinality(partitions) > 1) OVER ()
FROM (SELECT topic, goods_id, array_agg(DISTINCT partition ORDER BY partition) AS partitions
      FROM (SELECT j.topic, j.partition, g.goods_id
            FROM (SELECT position, entry, topic, partition FROM ledger.journal
                  ORDER BY position DESC LIMIT %(entries)s) j
            CROSS JOIN LATERAL (SELECT d.goods FROM ledger.stock_delta d WHERE d.entry = j.entry) d
            CROSS JOIN LATERAL unnest(string_to_array(d.goods, E'\\n')) g (goods_id)
            LIMIT %(goods)s) changed
      GROUP BY topic, goods_id) goods
ORDER BY cardinality(partitions) DESC, goods_id LIMIT %(examples)s
"""


class LaneRange(NamedTuple):
    """The offsets that a lane's newest entries took, how many entries, and the positions of these."""

    lane: Lane
    first_offset: int
    next_offset: int
    entries: int
    first_position: int
    last_position: int


class GoodsLanes(NamedTuple):
    """An item, and the lanes that its last changes of stock came by."""

    goods_id: str
    lanes: list[Lane]


@dataclass(frozen=True)
class SeveralLanes:
    """How many of the goods whose stock changed in the last `entries` came by several lanes, and some.

    That is expected where producers route by user, or spread hot goods; else two of them route differently.
    """

    goods: int = 0
    of: int = 0
    entries: int = SEVERAL_ENTRIES
    examples: list[GoodsLanes] = field(default_factory=list)


def newest(conn: Connection, offsets: int) -> list[LaneRange]:
    """The newest entries that took so many offsets together, lane by lane; an entry is never cut."""
    bounds = {"offsets": offsets, "entries": min(offsets, ENTRIES_MAX)}
    return [LaneRange(Lane(*row[:2]), *row[2:]) for row in conn.execute(NEWEST, bounds)]


def several_lanes(conn: Connection) -> SeveralLanes:
    """The goods that came by several lanes of one topic lately, as far as the change log still has them."""
    bounds = {"entries": SEVERAL_ENTRIES, "goods": SEVERAL_GOODS, "examples": EXAMPLES}
    rows = conn.execute(SEVERAL_LANES, bounds).fetchall()
    if not rows:
        return SeveralLanes()
    found = [GoodsLanes(row[1], [Lane(row[0], at) for at in row[2]]) for row in rows if len(row[2]) > 1]
    return SeveralLanes(goods=rows[0][4], of=rows[0][3], examples=found)
