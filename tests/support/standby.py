"""A server's standby, streaming from it, which can be cut off and promoted."""

import shutil
import time
from pathlib import Path

import psycopg

from stockledger.embedded.postgres import EmbeddedPostgres

PATIENCE_S = 60


def become_standby(standby: EmbeddedPostgres, data: Path, primary: EmbeddedPostgres, source: Path) -> None:
    """Start the server of the folder `data` as the standby of the one of `source`, which starts anew."""
    primary.stop()
    shutil.copytree(source, data, dirs_exist_ok=True)
    for path in (source, *source.rglob("*")):
        _own(path, data / path.relative_to(source))
    primary.start()
    password, cluster = (data / "password").read_text(), data / "cluster"
    told = f"host=127.0.0.1 port={primary.port} user=postgres password={password}"
    with (cluster / "postgresql.auto.conf").open("a") as settings:
        settings.write(f"primary_conninfo = '{told}'\n")
    (cluster / "standby.signal").touch()
    _own(cluster / "PG_VERSION", cluster / "standby.signal")
    standby.start()


def cut_off(standby: EmbeddedPostgres) -> None:
    """From here on it hears nothing more of its primary."""
    with psycopg.connect(standby.dsn(), autocommit=True) as conn:
        conn.execute("ALTER SYSTEM SET primary_conninfo = ''")
        conn.execute("SELECT pg_reload_conf()")
    _until(standby, "SELECT count(*) = 0 FROM pg_stat_wal_receiver")


def _until(server: EmbeddedPostgres, question: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        while conn.execute(question).fetchone() != (True,):
            assert time.monotonic() < deadline, question
            time.sleep(0.02)


def _own(source: Path, target: Path) -> None:
    found = source.stat()
    shutil.chown(target, found.st_uid, found.st_gid)
