"""Logical replication beside the ledger: `CREATE PUBLICATION ... FOR ALL TABLES`, as Debezium makes it."""

import pytest

from examples.own_projection import BestCustomers
from ledger.projections.registry import SHIPPED
from ledger.rebuilding.rebuild import rebuild
from ledger.store.connection import database
from tests.support.history import history
from tests.support.projections import connector, follow, purchases, rows, shop

ALL = (*SHIPPED, BestCustomers())
WITHOUT_IDENTITY = """
SELECT relname FROM pg_class c
WHERE relnamespace = 'ledger'::regnamespace AND relkind = 'r' AND relreplident = 'd'
  AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)
ORDER BY 1
"""


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        yield conn


class Unkeyed(BestCustomers):
    """An own one whose table has no primary key."""

    name, table = "unkeyed", "unkeyed_rows"
    ddl = """CREATE TABLE ledger.unkeyed_rows (generation integer NOT NULL, one boolean NOT NULL,
             events bigint NOT NULL) PARTITION BY LIST (generation)"""
    key = ("one",)

    def apply(self, conn, generation, events):
        facts = {"generation": generation, "events": events.events}
        conn.execute(
            """INSERT INTO ledger.unkeyed_rows SELECT %(generation)s, true, 0
               WHERE NOT EXISTS (SELECT FROM ledger.unkeyed_rows WHERE generation = %(generation)s)""",
            facts,
        )
        conn.execute(
            """UPDATE ledger.unkeyed_rows SET events = events + %(events)s
               WHERE generation = %(generation)s""",
            facts,
        )
        return events.events


def test_a_publication_for_all_tables_breaks_nothing(conn, ledger_dsn, seed):
    """Every table of the ledger that is updated has a replica identity, those of generations and of own
    projections too: batches, projectors and rebuilds go on under such a publication."""
    conn.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    history(conn)
    lanes = shop(conn)
    lanes.apply(1, *purchases(seed, "p", 20))
    follow(ledger_dsn, *ALL, Unkeyed())
    for projection in (*ALL, Unkeyed()):
        assert rebuild(connector(ledger_dsn), projection).swapped.live == 2
    lanes.apply(1, *purchases(seed, "q", 20))
    follow(ledger_dsn, *ALL, Unkeyed())
    assert rows(conn, "SELECT name FROM ledger.projections WHERE lag > 0") == []
    assert rows(conn, WITHOUT_IDENTITY) == []
