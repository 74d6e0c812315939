"""No statement of a batch or a look-up turns into a scan, whatever the statistics say.

Autovacuum looks at a table about once a minute; a load grows it a hundredfold meanwhile, and a generic plan
that was made for the small table stays.
"""

import re
from contextlib import suppress

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from ledger.store.connection import database, roundtrip
from tests.postgres.test_plans import FREEZE, SHARED, grow, hot, named, prepared

SMALL, GROWN = 1_000, 100_000
MISSTATE = """
UPDATE pg_class SET reltuples = %s, relpages = %s
WHERE relnamespace = 'ledger'::regnamespace AND relkind IN ('r', 'i')
"""
STATISTICS = {
    "none": [],
    "of empty tables": ["ANALYZE"],
    "of small tables": ["ANALYZE"],
    "a million times too few": [MISSTATE % (0, 1_000)],
    "a million times too many": [MISSTATE % (10**10, 10)],
}
UNKIND = "-c enable_indexscan=off -c enable_nestloop=off -c random_page_cost=1000 -c work_mem=64"


@pytest.fixture
def owner(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        conn.execute(FREEZE)
        yield conn


BATCH = (
    "lane: advance",
    "head: read",
    "register: known keys",
    "register: fresh keys",
    "register: entries",
    "stock: lock",
    "stock: read",
    "stock: write",
    "stock: insert",
    "account: read",
    "account: write",
    "event: purchases",
)
LOOK_UPS = ("outcome by id", "conflicts of a range", "dead letters of a range", "entries of a lane")


class Prepared:
    """Statements that a session has prepared while the tables were small, and executed once."""

    def __init__(self, conn, names, settings) -> None:
        self._conn, self._names, self._settings = conn, list(names), settings
        for number, name in enumerate(self._names):
            conn.execute(f"PREPARE hot{number} AS {prepared(hot(SMALL)[name][0])}")
        with suppress(psycopg.DatabaseError):  # there is nothing to write in empty tables
            self.costly("force_generic_plan", SMALL)

    def costly(self, mode: str, size: int) -> dict[str, tuple[int, int]]:
        """Those that read more buffers than they may, with the parameters of this size."""
        found = {}
        for number, name in enumerate(self._names):
            statement, parameters, allowed = hot(size)[name]
            values = [parameters[key] for key in named(statement)] or list(parameters)
            marks = f"({', '.join(['%s'] * len(values))})" if values else ""
            with self._conn.transaction(force_rollback=True), psycopg.ClientCursor(self._conn) as cursor:
                for setting in self._settings:
                    cursor.execute(setting)
                cursor.execute(f"SET LOCAL plan_cache_mode = {mode}")
                cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS) EXECUTE hot{number} {marks}", values)
                plan, _, _ = "\n".join(line for (line,) in cursor).partition("\nPlanning")
            reads = (sum(map(int, re.findall(r" (?:hit|read)=(\d+)", line))) for line in SHARED.findall(plan))
            found[name] = (max(reads), allowed)
        # a fifth more: what was rolled back lies between the rows
        return {name: (reads, allowed) for name, (reads, allowed) in found.items() if reads > 1.2 * allowed}


BEFORE_17 = {"stock: read", "stock: write"}
"""PostgreSQL 15 and 16 read the whole generation there, where the statistics say that it is all but empty."""


@pytest.mark.parametrize("statistics", STATISTICS)
def test_a_batch_keeps_its_indexes(owner, ledger_dsn, statistics):
    """Planned for small tables, or for what the statistics claim, each statement reads no more in tables a
    hundred times as large than with the best of statistics; generic plans and custom ones."""
    if statistics != "of empty tables":
        grow(owner, 0, SMALL)
    for statement in STATISTICS[statistics]:
        owner.execute(statement)
    unkind = make_conninfo(ledger_dsn, options=UNKIND if statistics == "none" else "")
    with database.connect(unkind, purpose="test") as conn:
        planned = Prepared(conn, BATCH, roundtrip.BEGIN[1:])
        grow(owner, 0 if statistics == "of empty tables" else SMALL, GROWN)
        for mode in ("force_generic_plan", "force_custom_plan"):
            costly = planned.costly(mode, GROWN)
            assert costly.keys() <= (BEFORE_17 if conn.info.server_version < 170_000 else set()), costly


def test_a_look_up_keeps_its_index(owner, ledger_dsn):
    """What is planned anew each time, by the tables' real size and old statistics."""
    grow(owner, 0, SMALL)
    owner.execute("ANALYZE")
    grow(owner, SMALL, GROWN)
    with database.connect(ledger_dsn, purpose="test") as conn:
        assert Prepared(conn, LOOK_UPS, []).costly("force_custom_plan", GROWN) == {}
