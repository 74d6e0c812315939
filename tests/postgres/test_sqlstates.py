"""What each SQLSTATE means, one real error of the server for each: retry, park or stop."""

import psycopg
import pytest

from ledger.errors import (
    Contended,
    Defect,
    LedgerError,
    Park,
    ReadOnly,
    SchemaMismatch,
    Stop,
    Unavailable,
    UnsafeSettings,
)
from ledger.store.connection import database, roundtrip
from ledger.store.connection.copy import Rows, TableLines
from ledger.store.tables import cancellation, stock

FAIL = """
CREATE FUNCTION public.fail(code text, name text) RETURNS void LANGUAGE plpgsql
AS $$ BEGIN RAISE EXCEPTION 'as ordered' USING ERRCODE = code, CONSTRAINT = name; END $$
"""
MEANINGS: dict[type[LedgerError], str] = {
    Contended: "23505 40001 40P01 55P03 57014 LG001 LG002",
    Unavailable: "08000 08001 08003 08004 08006 08P01 53000 53100 53200 53300 57P01 57P02 57P03 57P04 58030 "
    "25P03 25P04",
    ReadOnly: "25006",
    UnsafeSettings: "LG003",
    SchemaMismatch: "3F000 42P01 42703 42883",
    Stop: "42501",
    Defect: "0A000 21000 22000 22001 22003 22021 22P02 22P05 23502 23503 23514 23P01 25001 25P02 26000 28000 "
    "2D000 34000 38000 40002 40003 42601 42804 54000 54001 54011 55000 55006 P0001 P0002 LG004 "
    "SL010 XX000 XX001 XX002",
}


@pytest.fixture
def conn(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        conn.execute(FAIL)
        yield conn


def test_the_code_alone_says_what_a_database_error_means(conn):
    """Nothing is read out of an error's text; facts are attributes, and a Stop names the next step."""
    for meaning, codes in MEANINGS.items():
        for code in codes.split():
            with pytest.raises(LedgerError) as raised, database.faults():
                conn.execute("SELECT public.fail(%s, 'event_pkey')", (code,))
            assert type(raised.value) is meaning, code
            assert isinstance(raised.value.__cause__, psycopg.Error)
            if isinstance(raised.value, Contended):
                assert (raised.value.sqlstate, raised.value.constraint) == (code, "event_pkey")
            if isinstance(raised.value, Stop):
                assert raised.value.remedy


def test_a_named_check_parks_the_record_and_every_other_check_stops(conn):
    """`stock_bounds` is the one CHECK that a record may violate."""
    for name, meaning in {"stock_bounds": Park, "journal_tiles": Defect, "": Defect}.items():
        with pytest.raises(meaning), database.faults():
            conn.execute("SELECT public.fail('23514', %s)", (name,))
    for on_hand in (-1, 2**53 + 1):
        with pytest.raises(Park) as parked, database.faults():
            conn.execute("INSERT INTO ledger.stock VALUES (1, 'tea', %s, 1)", (on_hand,))
        assert parked.value.reason == "sqlstate_23514"


def test_what_no_record_can_cause_stops_and_names_the_table(conn):
    """A table that isn't as it was made: every record after it would be parked, too."""
    conn.execute("ALTER TABLE ledger.cancellation ALTER entry TYPE smallint")
    rows = Rows(cancellation.COPY, TableLines(["70000\tshop\tcanary\n"]))
    with pytest.raises(Defect, match=r"22003 \(cancellation\)") as raised, database.faults():
        roundtrip.finish(conn, roundtrip.Before([rows]), b"SELECT", ())
    assert "canary" not in raised.value.message


def test_a_stock_row_that_is_not_there_to_be_written_stops(conn):
    """It was locked, so nobody can have removed it: nothing of the batch may be committed."""
    with pytest.raises(Defect, match="1 stock rows were locked, but 0 could be written"), database.faults():
        conn.execute(stock.WRITE, (1, 1, 0, "tea", "1", "5"))


def test_a_database_error_never_quotes_a_row(conn):
    """DETAIL can hold what a record held; neither it nor the CONTEXT gets into the ledger's message."""
    insert = "INSERT INTO ledger.stock VALUES (1, 'canary', -1, 1)"
    with pytest.raises(LedgerError) as raised, database.faults():
        conn.execute(insert)
    assert isinstance(raised.value.__cause__, psycopg.Error)
    assert "canary" in str(raised.value.__cause__.diag.message_detail)
    assert "canary" not in raised.value.message


def test_errors_without_a_code_are_the_drivers(conn):
    """The driver refused what we asked for: stop. The connection was lost: retry."""
    with pytest.raises(Defect), database.faults():
        conn.execute("SELECT %s", (1, 2))
    conn.close()
    with pytest.raises(Unavailable), database.faults():
        conn.execute("SELECT 1")
