"""The embedded PostgreSQL: needs the wheel, no services."""

import tempfile
from pathlib import Path

import psycopg
import pytest

from stockledger.embedded.postgres import EmbeddedPostgres


def test_a_killed_server_starts_again_with_what_was_committed():
    """What was committed is there after a crash, at the same address, and the settings are durable."""
    with EmbeddedPostgres() as server:
        with psycopg.connect(server.dsn()) as conn:
            conn.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        with psycopg.connect(server.dsn()) as conn:
            server.kill()
            with pytest.raises(psycopg.OperationalError):
                conn.execute("SELECT 1")
        server.start()
        with psycopg.connect(server.dsn()) as conn:
            assert conn.execute("SELECT answer FROM kept").fetchone() == (42,)
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                assert conn.execute("SELECT current_setting(%s)", [setting]).fetchone() == ("on",)
            assert conn.execute("SHOW server_encoding").fetchone() == ("UTF8",)


def test_a_given_folder_is_kept_and_used_again():
    """`stop` keeps the folder that the caller gave; another server object goes on with it."""
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path: root's is closed to the server's user
        with EmbeddedPostgres(Path(folder)) as server, psycopg.connect(server.dsn()) as conn:
            conn.execute("CREATE TABLE kept ()")
        with EmbeddedPostgres(Path(folder)) as server, psycopg.connect(server.dsn()) as conn:
            assert conn.execute("SELECT to_regclass('kept') IS NOT NULL").fetchone() == (True,)


def test_only_the_password_opens_it():
    """Other users of the machine can't connect."""
    with EmbeddedPostgres() as server, pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(server.dsn(), password="guess")
