"""The schema, as Postgres has it: no table, grant or trigger changes without a diff that somebody reads.

What it is stands in `ledger/store/schema/schema.txt`; `verify`, `doctor` and `migrate` compare with it.

After a change that is meant:

    STOCKLEDGER_UPDATE_SNAPSHOTS=1 python -m pytest tests/postgres/test_schema.py

writes it and `migrations.txt` anew. A migration that was released is never edited, so from the
first release on its line in `migrations.txt` never changes; only new lines are added.
"""

import os
import re
from pathlib import Path

import pytest

from ledger.store.connection import database
from ledger.store.schema import dump, migrate

HERE = Path(__file__).parent
README = Path(__file__).parents[2] / "README.md"
SCHEMA = Path(dump.__file__).with_name("schema.txt")
CHECKSUMS = HERE / "migrations.txt"
UPDATE = "STOCKLEDGER_UPDATE_SNAPSHOTS" in os.environ

VIEWS = {
    "events": "position ordinal stream version type data source id recorded_at",
    "outcomes": "source id outcome reason topic partition offset position recorded_at",
    "stock_levels": "goods_id on_hand version",
    "purchases": "source id user_id goods_id quantity cancelled purchased_at",
    "dead_letters": "topic partition offset code detail status recorded_at",
    "conflicts": "source id first_fingerprint second_fingerprint first_topic first_partition first_offset "
    "second_topic second_partition second_offset",
    "gaps": "topic partition first_offset next_offset cause accepted_by",
    "journal_entries": "position topic partition first_offset next_offset "
    "applied rejected duplicate conflict dead skipped events hash",
    "projections": "name generation version status position lag lag_seconds started_at swapped_at",
    "purchases_by_user": "user_id goods_id purchases quantity cancelled cancelled_quantity",
    "sales_by_day": "day purchases quantity cancelled cancelled_quantity priced revenue_minor",
    "user_events": "user_id position ordinal source id",
}
"""What other programs build on."""


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        yield conn


def compare(file: Path, text: str) -> None:
    """The file says exactly this; or, when told to, it does from now on."""
    if UPDATE:
        file.write_text(text, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == text


def test_the_schema_is_the_one_that_was_reviewed(conn):
    """Tables, columns, constraints, indexes, triggers, functions and grants are those of `schema.txt`."""
    compare(SCHEMA, dump.dumped(dump.stored(conn)))


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_keeps_its_columns(conn, view):
    """Each view has at least the columns that other programs rely on."""
    with conn.cursor() as cursor:
        cursor.execute(f"SELECT * FROM ledger.{view} LIMIT 0")
        assert set(VIEWS[view].split()) <= {column.name for column in cursor.description}


def test_every_view_is_listed(conn):
    """The views that there are, those listed here and those that the README names are the same."""
    found = conn.execute("SELECT viewname FROM pg_views WHERE schemaname = 'ledger'").fetchall()
    assert {name for (name,) in found} == set(VIEWS)
    section = README.read_text(encoding="utf-8").partition("### From SQL\n")[2].partition("\n#")[0]
    named = {
        name for line in section.splitlines() if line[:1] == "*" for name in re.findall("`(\\w+)`", line)
    }
    assert named == set(VIEWS)


def test_migrations_are_numbered_without_a_hole():
    """Migrations are 1, 2, 3, ..., so no two branches can both add the next one unnoticed."""
    assert [m.number for m in migrate.migrations()] == list(range(1, len(migrate.migrations()) + 1))


def test_no_migration_is_edited():
    """A migration's text is the one that was released: a database that has it has exactly that."""
    compare(CHECKSUMS, "".join(f"{m.name} {m.checksum}\n" for m in migrate.migrations()))
