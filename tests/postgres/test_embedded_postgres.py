"""The embedded PostgreSQL: needs the wheel, no services."""

import os
import pwd
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest

from ledger.errors import Unavailable
from stockledger.embedded.cluster import OWN_IDS
from stockledger.embedded.postgres import SERVER_SETTINGS, EmbeddedPostgres


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


def pid_of(data):
    """The server's process id, as text."""
    return (data / "cluster/postmaster.pid").read_text().split()[0]


def as_nobody(*command):
    """The exit code of a command that the shared user `nobody` runs."""
    account = pwd.getpwnam("nobody")
    done = subprocess.run(
        command,
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        check=False,
    )
    return done.returncode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives servers a user of their own")
def test_roots_server_is_closed_to_the_shared_user():
    """Started by root, it runs as a user and a group that nothing else has: `nobody`, as whom other programs
    run, reads neither secret nor data, can't replace the log, and can't look into the process."""
    with tempfile.TemporaryDirectory() as top:
        Path(top).chmod(0o755)
        data = Path(top, "data")
        with EmbeddedPostgres(data) as server:
            pid, inside = pid_of(data), (data / "cluster").stat()
            process = Path("/proc", pid).stat()
            assert process.st_uid == inside.st_uid == inside.st_gid in OWN_IDS
            assert {path.lstat().st_uid for path in (data / "cluster").rglob("*")} == {process.st_uid}
            for path in (data, data / "password", data / "server.log"):
                assert path.stat().st_uid == 0
            for name in ("password", "server.log", "cluster", "cluster/pg_hba.conf"):
                assert as_nobody("stat", str(data / name)) != 0
            assert as_nobody("ln", "-sf", "/etc/passwd", str(data / "server.log")) != 0
            assert as_nobody("ls", str(data)) != 0
            assert as_nobody("cat", f"/proc/{pid}/environ") != 0
            assert as_nobody("ls", f"/proc/{pid}/fd/") != 0
            assert as_nobody("kill", "-0", pid) != 0
            assert as_nobody("stat", top) == 0, "the probe itself works"
            server.stop()
            server.start()
            assert (
                Path("/proc", (data / "cluster/postmaster.pid").read_text().split()[0]).stat().st_uid
                == process.st_uid
            )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives servers a user of their own")
def test_two_servers_of_root_are_two_users():
    """So the one can't read the other's data either."""
    with EmbeddedPostgres() as one, EmbeddedPostgres() as other:
        owners = {(server._cluster).stat().st_uid for server in (one, other)}
        assert len(owners) == 2


def test_a_folder_that_cant_be_used_is_named(tmp_path):
    """Where the data can't be kept, one line says which folder and why, and nothing is left running."""
    (tmp_path / "file").touch()
    with pytest.raises(
        Unavailable, match=f"PostgreSQL can't be started in {tmp_path}/file/data: Not a directory"
    ):
        EmbeddedPostgres(tmp_path / "file" / "data").start()


def test_a_server_that_doesnt_start_leaves_nothing_behind(monkeypatch):
    """Neither its temporary folder nor a process, and what it said is in the error."""
    monkeypatch.setitem(SERVER_SETTINGS, "shared_buffers", "nonsense")
    with tempfile.TemporaryDirectory() as top:
        Path(top).chmod(0o755)
        monkeypatch.setattr(tempfile, "tempdir", top)
        with pytest.raises(Unavailable, match="shared_buffers"):
            EmbeddedPostgres().start()
        assert list(Path(top).iterdir()) == []
