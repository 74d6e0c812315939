"""Why there is no connection: each situation has its code, its cause first, and a step that works."""

import getpass
import shlex
import shutil
import subprocess

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ledger.api import Ledger
from ledger.errors import BadSettings, LedgerError, LoginRefused, Unavailable
from ledger.store.connection.database import connect
from ledger.store.connection.dsn import unreachable

CANARY = "canary-41d7"
NOBODY = "stockledger_test_nobody"


def failure(dsn):
    """What is raised by connecting, which never quotes the password."""
    with pytest.raises(LedgerError) as caught:
        connect(dsn, purpose="test").close()
    error = caught.value
    assert CANARY not in repr(error) + error.message + error.remedy
    assert error.remedy
    return error


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    """No variable of libpq takes part."""
    for name in ("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGPASSFILE", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(services):
    """The server's place, and its superuser."""
    return conninfo_to_dict(services.postgres.dsn())


@pytest.mark.parametrize(
    ("changed", "kind", "cause", "remedy"),
    [
        (
            {"password": CANARY},
            LoginRefused,
            "the password of the role {user} is wrong",
            "correct the password",
        ),
        ({"user": NOBODY, "password": CANARY}, LoginRefused, "role " + NOBODY, "correct the password"),
        ({"password": ""}, LoginRefused, "needs a password", "give the password of {user}"),
        (
            {"dbname": "no such"},
            LoginRefused,
            "there is no database no such",
            "createdb -h {host} -p {port} ",
        ),
        ({"port": "1"}, Unavailable, "nothing listens at {host}:1", "start PostgreSQL at {host}:1"),
        ({"host": "nowhere.invalid"}, Unavailable, "the host name nowhere.invalid", "correct the host name"),
        ({"host": "/nowhere"}, Unavailable, "no server listens at the local", "start PostgreSQL on this"),
        ({"target_session_attrs": "standby"}, Unavailable, "isn't of the kind", "name the primary"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_cause_comes_first(server, changed, kind, cause, remedy):
    """What is wrong is said in the first words, by its own code, with the step that mends it."""
    error = failure(make_conninfo(**{**server, **changed}))
    assert type(error) is kind
    assert cause.format(**server) in error.message
    assert error.remedy.startswith(remedy.format(**server))


def test_of_several_hosts_the_root_cause_is_shown(server):
    """Neither the first failure nor the last: the server that answered knows more than the silent one."""
    for hosts, ports in (("127.0.0.1,{host}", "1,{port}"), ("{host},127.0.0.1", "{port},1")):
        both = {"host": hosts.format(**server), "port": ports.format(**server), "password": CANARY}
        assert "is wrong" in failure(make_conninfo(**{**server, **both})).message


def test_the_missing_database_is_made_as_printed(server):
    """The remedy can be pasted, awkward names included."""
    name = f"stockledger test {getpass.getuser()}'s"
    error = failure(make_conninfo(**{**server, "dbname": name}))
    if not shutil.which("createdb"):
        assert shlex.split(error.remedy)[-1] == name
        return
    subprocess.run(
        error.remedy, shell=True, check=True, env={"PGPASSWORD": server["password"], "PATH": "/usr/bin"}
    )
    with psycopg.connect(make_conninfo(**{**server, "dbname": name})):
        pass
    with psycopg.connect(make_conninfo(**server), autocommit=True) as admin:
        admin.execute(psycopg.sql.SQL("DROP DATABASE {}").format(psycopg.sql.Identifier(name)))


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql+psycopg://app:{CANARY}@db/shop",
        f"postgres+asyncpg://app:{CANARY}@db/shop",
        f"postgresql://app:{CANARY} x@db/shop",
        f"postgresql://app:%{CANARY}@db/shop",
        f"postgresql://app@db/shop?pasword={CANARY}",
        f"host=db password='{CANARY}",
        f"host=db {CANARY}",
        CANARY,
    ],
)
def test_a_dsn_that_cant_be_read_is_never_quoted(dsn):
    """The library masks as the command line does, whoever's URL it is: also in what `raise from` keeps."""
    with pytest.raises(BadSettings) as caught:
        Ledger(dsn)
    shown = caught.getrepr(style="native", chain=True)
    assert CANARY not in "".join(line for line in str(shown).splitlines() if "Ledger(dsn)" not in line)
    assert caught.value.remedy


def test_an_at_sign_in_a_password_doesnt_show_it(server):
    """Not percent-encoded, it makes the password's end a part of the host's name."""
    error = failure(f"postgresql://app:p@{CANARY}@nowhere.invalid/shop")
    assert "%40" in error.remedy


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ('FATAL:  role "app" does not exist', "there is no role app"),
        (
            'FATAL:  no pg_hba.conf entry for host "10.0.0.9", user "app", database "shop", no encryption',
            "TLS",
        ),
        (
            'FATAL:  no pg_hba.conf entry for host "10.0.0.9", user "app", database "shop", SSL on',
            "in from this",
        ),
        ("server does not support SSL, but SSL was required", "no TLS"),
        ("SSL error: certificate verify failed", "TLS failed"),
        ("FATAL:  sorry, too many clients already", "no connection left"),
        ("FATAL:  the database system is starting up", "starting or ending"),
        ("timeout expired", "db:5432 doesn't answer"),
        ("Mot de passe refusé... FATAL: authentification", "db:5432 can't be reached"),
    ],
)
def test_what_other_servers_say(words, cause):
    """Words of the server or of libpq, as they come; unknown ones are shown as they are."""
    said = f'connection failed: connection to server at "10.0.0.1", port 5432 failed: {words}'
    error = unreachable(psycopg.OperationalError(said), "postgresql://app@db/shop")
    assert cause in error.message
    assert error.message.endswith(f"{' '.join(words.split())})") or words in error.message
