"""What a session means by what it says, whatever the server, the database or the role has as its default.

A connection pins all of this before its first statement. `search_path` comes first, by a statement that calls
nothing: a function or operator that somebody planted in `public` would otherwise run as the worker, or as the
owner. Then everything that changes how a value is read, printed, planned or isolated. A setting that this
version of Postgres lacks is left out.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

SEARCH_PATH = "SET search_path = pg_catalog, pg_temp"
SETTINGS = {
    # values: what is sent, what comes back, and what a cast makes of it
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "timezone_abbreviations": "Default",
    "array_nulls": "on",
    "backslash_quote": "safe_encoding",
    "bytea_output": "hex",
    "default_text_search_config": "pg_catalog.simple",
    "escape_string_warning": "on",
    "extra_float_digits": "1",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "xmlbinary": "base64",
    "xmloption": "content",
    # transactions
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": "read committed",
    "exit_on_error": "off",  # a savepoint is of use only to a session that outlives its errors
    "idle_session_timeout": "0",  # a pause is no reason to lose a lane
    # rows: what a policy would hide is an error, never a smaller answer
    "restrict_nonsystem_relation_kind": "",
    "row_security": "off",
    # what is made: in the places, and checked as it was tested
    "check_function_bodies": "on",
    "default_table_access_method": "heap",
    "default_tablespace": "",
    # plans
    "constraint_exclusion": "partition",
    "cursor_tuple_fraction": "0.1",
    "debug_parallel_query": "off",
    "enable_bitmapscan": "on",
    "enable_hashagg": "on",
    "enable_hashjoin": "on",
    "enable_indexonlyscan": "on",
    "enable_indexscan": "on",
    "enable_material": "on",
    "enable_memoize": "on",
    "enable_mergejoin": "on",
    "enable_nestloop": "on",
    "enable_partition_pruning": "on",
    "enable_seqscan": "on",
    "enable_sort": "on",
    "enable_tidscan": "on",
    "from_collapse_limit": "8",
    "geqo": "on",
    "geqo_threshold": "12",
    "jit": "off",  # a compilation takes longer than any statement of a batch
    "join_collapse_limit": "8",
    "plan_cache_mode": "auto",
}
# Without a join: how that is planned is a setting, which may ask for more memory than there is.
SET = """
SELECT set_config(name, (%(values)s::text[])[array_position(%(names)s::text[], name)], %(local)s)
FROM pg_settings WHERE name = ANY(%(names)s::text[])
"""
PIN = SEARCH_PATH + ";" + SET + "; SELECT pg_backend_pid()"
# For one transaction; the path first here, too.
PATH = "SHOW search_path"
PIN_PATH = "SET LOCAL search_path = pg_catalog, pg_temp"
SET_PATH = "SELECT set_config('search_path', %s, true)"
GET = "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)"


def pin(conn: psycopg.Connection, more: dict[str, str]) -> int:
    """Pin the session's settings, and `more` of them, in one round trip; returns the backend's process id."""
    with psycopg.ClientCursor(conn) as cursor:  # a simple query may hold several statements
        cursor.execute(PIN, _arguments(SETTINGS | more, local=False))
        row = cursor.set_result(-1).fetchone()
    assert row is not None
    return int(row[0])


@contextmanager
def pinned(conn: psycopg.Connection, more: dict[str, str], *, goes_on: bool) -> Iterator[None]:
    """Pin the same for the caller's transaction or savepoint; set back where the transaction `goes_on`.

    An error rolls back to the savepoint, which sets them back, too.
    """
    path = conn.execute(PATH).fetchone()
    conn.execute(PIN_PATH)
    settings = SETTINGS | more
    before: dict[str, str] = dict(conn.execute(GET, (list(settings),)).fetchall())
    conn.execute(SET, _arguments(settings, local=True))
    yield
    if goes_on:
        conn.execute(SET, _arguments(before, local=True))
        conn.execute(SET_PATH, path)


def _arguments(settings: dict[str, str], *, local: bool) -> dict[str, bool | list[str]]:
    return {"local": local, "names": list(settings), "values": list(settings.values())}
