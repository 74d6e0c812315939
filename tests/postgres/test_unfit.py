"""A server or database that can't keep the promise is named before anything is done, with a way out."""

import os
import pwd
import shutil
import subprocess
import time
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ledger.domain.commands import RegisterUser
from ledger.errors import IncompleteCopy, ReadOnly, ServerUnfit, Unavailable
from ledger.store.connection import database, fit, server
from ledger.store.schema import migrate
from stockledger.doctor import postgres
from stockledger.embedded.postgres import free_port
from stockledger.settings import load
from tests.support.batches import Lanes, says
from tests.support.history import history

POOLER = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"


def findings(dsn):
    """What doctor finds in the database, by what it looked at."""
    return {f.what: f for f in postgres.examine(load({"dsn": dsn}, ()), []) if f.level != "ok"}


def name_of(dsn):
    return sql.Identifier(str(conninfo_to_dict(dsn)["dbname"]))


def alter(dsn, statement):
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute(sql.SQL(statement).format(name_of(dsn)))


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_a_database_that_can_not_hold_every_text_is_refused(services, encoding):
    """A name with another letter would be dead, and all that rests on it rejected for good."""
    name = f"stockledger_test_{os.getpid()}_{encoding.lower()}"
    with psycopg.connect(services.postgres.dsn(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
        try:
            dsn = services.postgres.dsn(name)
            with pytest.raises(ServerUnfit, match=encoding) as refused:
                database.connect(dsn, purpose="test")
            assert findings(dsn)["postgres"].fix == refused.value.remedy
            command, _, _ = refused.value.remedy.partition(" makes one")
            assert "--encoding=UTF8" in command
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_an_older_server_is_refused(ledger_dsn, monkeypatch):
    """By its version, before the first statement that it may not understand."""
    monkeypatch.setattr(fit, "VERSION_MIN", 99)
    with pytest.raises(ServerUnfit, match="needs 99 or newer"):
        database.connect(ledger_dsn, purpose="test")


@pytest.mark.parametrize("how", ["DATABASE", "ROLE IN DATABASE", "options"])
def test_a_read_only_database_is_named(ledger_dsn, how):
    """Preflight, migrate and doctor say so, and what undoes it works as it is printed."""
    name = name_of(ledger_dsn).as_string()
    dsn = ledger_dsn
    if how == "options":
        dsn = make_conninfo(ledger_dsn, options="-c default_transaction_read_only=on")
    else:
        whose = f"DATABASE {name}" if how == "DATABASE" else f"ROLE CURRENT_USER IN DATABASE {name}"
        alter(ledger_dsn, f"ALTER {whose} SET default_transaction_read_only = on")
    with database.connect(dsn, purpose="test") as conn:
        for check in (server.require_writable, migrate.migrate):
            with pytest.raises(ReadOnly) as refused:
                check(conn)
        with pytest.raises(ReadOnly), database.faults():
            conn.execute("CREATE TABLE ledger.mine ()")
        conn.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE")
        remedy = refused.value.remedy
        assert findings(dsn)["writes"].fix == remedy
        if how != "options":
            conn.execute(remedy)
            assert "writes" not in findings(dsn)


def test_a_standby_is_named(ledger_dsn, monkeypatch):
    """Whatever it is asked to do, it takes no writes."""
    monkeypatch.setattr(server, "WRITABLE", server.WRITABLE.replace("pg_is_in_recovery()", "true"))
    with database.connect(ledger_dsn, purpose="test") as conn, pytest.raises(ReadOnly, match="standby"):
        server.require_writable(conn)
    assert "primary" in findings(ledger_dsn)["writes"].fix


def test_a_copy_whose_sequence_was_left_behind_is_named(ledger_dsn):
    """As logical replication makes it: no lost race, but found by preflight, doctor and the batch itself."""
    with database.connect(ledger_dsn, purpose="test") as conn:
        lanes = history(conn)
        conn.execute("SELECT setval('ledger.entry_number', 1, false)")
        with pytest.raises(IncompleteCopy, match="journal has entries up to") as refused:
            server.require_whole(conn)
        assert findings(ledger_dsn)["copy"].fix == refused.value.remedy
        record = says("new", RegisterUser(user_id="new"))
        with pytest.raises(IncompleteCopy) as collided:
            lanes.apply(0, record)
        assert collided.value.remedy == refused.value.remedy
        conn.execute(refused.value.remedy)
        server.require_whole(conn)
        lanes.apply(0, record)
    assert "copy" not in findings(ledger_dsn)


def test_a_clock_that_was_fast_once_is_named(ledger_dsn):
    """Later entries share the time that lies in the future, until the clock has come there."""
    with database.connect(ledger_dsn, purpose="test") as conn:
        lanes = Lanes(conn)
        lanes.apply(0, says("u1", RegisterUser(user_id="anna")))
        assert server.ahead_s(conn) == 0
        conn.execute("UPDATE ledger.head SET recorded_at = clock_timestamp() + interval '1 hour'")
        lanes.apply(0, says("u2", RegisterUser(user_id="ben")))
        assert 3_500 < server.ahead_s(conn) <= 3_600
    assert "future" in findings(ledger_dsn)["clock"].found


@contextmanager
def pooled(dsn, tmp_path, mode, size):
    """The DSN of the same database behind pgbouncer."""
    facts = conninfo_to_dict(dsn)
    port = free_port()
    server = " ".join(f"{name}={facts[name]}" for name in ("host", "port", "user", "password"))
    file = tmp_path / "pgbouncer.ini"
    file.write_text(
        f"[databases]\n{facts['dbname']} = {server}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
        f"auth_type = any\npool_mode = {mode}\ndefault_pool_size = {size}\nunix_socket_dir =\n"
    )
    file.chmod(0o644)
    nobody = pwd.getpwnam("nobody")
    user, group = (nobody.pw_uid, nobody.pw_gid) if os.geteuid() == 0 else (None, None)
    with file.open() as config:  # the folders above are the test's own
        process = subprocess.Popen(
            [POOLER, f"/dev/fd/{config.fileno()}"], pass_fds=[config.fileno()], user=user, group=group
        )
        try:
            yield make_conninfo(dsn, host="127.0.0.1", port=port), process
        finally:
            process.terminate()
            process.wait()


def through(dsn, process):
    """A connection, once the pooler listens."""
    until = time.monotonic() + 90
    while True:
        try:
            return database.connect(dsn, purpose="test")
        except Unavailable:
            if time.monotonic() > until or process.poll() is not None:
                raise
            time.sleep(0.05)


@pytest.mark.skipif(not os.access(POOLER, os.X_OK), reason="pgbouncer is not installed")
def test_a_pooler_in_transaction_mode_is_refused(ledger_dsn, tmp_path):
    """Settings, prepared statements and locks of a session don't hold there; in session mode all works."""
    with pooled(ledger_dsn, tmp_path, "transaction", 5) as (dsn, process):
        with pytest.raises(ServerUnfit, match="transaction mode"):
            through(dsn, process)
        assert "pool_mode = session" in findings(dsn)["postgres"].fix
    for size in (1, 5):
        with pooled(ledger_dsn, tmp_path, "session", size) as (dsn, process), through(dsn, process) as conn:
            Lanes(conn).apply(0, says(f"u{size}", RegisterUser(user_id=f"anna{size}")))
