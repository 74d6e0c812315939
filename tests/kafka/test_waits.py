"""A database that keeps a worker waiting: it waits, says for whom, and ends in time when it is told to."""

import signal
from collections.abc import Callable
from contextlib import contextmanager
from threading import Thread

import psycopg
import pytest

from ledger.errors import Held
from ledger.store.connection.database import Budgets, connect
from ledger.store.schema.migrate import migrate
from stockledger.embedded.postgres import EmbeddedPostgres
from tests.support.publish import Publisher, buys, shop
from tests.support.workers import STOP_BUDGET_S, Group, wait_for

QUICK = Budgets(lock_timeout_ms=200)


@pytest.fixture
def group(new_group):
    return new_group(partitions=2)


def load(sender, name, count=30):
    for partition in range(2):
        sender.send(*(buys(f"{name}-{partition}-{n}") for n in range(count)), partition=partition)
    sender.flush()


@contextmanager
def locked(group, table="ledger.event"):
    """The table as VACUUM FULL or REINDEX take it; yields the pid of who does."""
    with psycopg.connect(group.dsn, application_name="a person") as person:
        person.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield person.info.backend_pid


@pytest.mark.parametrize("table", ["ledger.event", "ledger.lane", "ledger.head", "ledger.processed_message"])
def test_a_table_that_a_person_holds_locked_is_waited_for(group, sender, table):
    """Longer than twelve tries would take: it says who holds it, and goes on once it is free."""
    with group.running() as running:
        running.says("assigned")
        with locked(group, table) as pid:
            load(sender, "p")
            [said] = running.says("waiting", code="SL-DB-011")
            assert f"{table} is locked by the session {pid} of" in said["cause"]
            assert "(a person)" in said["cause"]
            assert said["next"].endswith(f"pg_terminate_backend({pid});")
        group.applies(sender)
        running.says("goes on")
    group.prove(sender, tally={"applied": 63})


def test_a_locked_table_ends_a_run_that_somebody_waits_for_by_name(group, sender, monkeypatch):
    """Exit 3 with who holds it, not "lost 12 races in a row"."""
    load(sender, "p")
    with monkeypatch.context() as hurried, locked(group) as pid:
        hurried.setattr("consumer.worker.PATIENCE_S", 4)
        hurried.setattr("consumer.processor.LOCKED_MAX_S", 4)
        with pytest.raises(Held, match=f"ledger.event is locked by the session {pid} of"):
            group.catch_up()
    group.catch_up()
    group.prove(sender, tally={"applied": 63})


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_signal_ends_it_in_time_although_a_table_is_locked(group, sender, workers, number, code):
    """Within 5 s, its batch undone as a whole."""
    load(sender, "p")
    with locked(group):
        run = group.start("--workers", workers)
        wait_for("it waits for the lock", lambda: group.ask("SELECT 1 FROM pg_locks WHERE NOT granted"))
        run.send(number)
        assert run.ended(STOP_BUDGET_S) == code
        assert not run.said("worker died"), "it was killed"
        assert sum(group.next_offsets().values()) == 3
    group.catch_up()
    group.prove(sender, tally={"applied": 63})


@pytest.fixture(scope="module")
def own_postgres():
    """A server of this module's own: what it is told is nobody else's business."""
    with EmbeddedPostgres() as server:
        yield server


class Lonely(Group):
    standby: Callable[..., None]


@pytest.fixture
def lonely(own_postgres, kafka, topic, tmp_path):
    """A group on a ledger whose synchronous standby can be gone: `group.standby(gone=True)`."""
    name = f"ledger_{tmp_path.name}"
    with psycopg.connect(own_postgres.dsn(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    dsn = own_postgres.dsn(name)
    with connect(dsn, purpose="test") as conn:
        migrate(conn)
    group = Lonely(dsn, kafka, topic(2))

    def standby(*, gone):
        with psycopg.connect(own_postgres.dsn(), autocommit=True) as admin:
            admin.execute("SET synchronous_commit = local")
            wanted = "lost" if gone else ""
            admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{wanted}'")
            admin.execute("SELECT pg_reload_conf()")
        # Each session reads the setting by itself; whether a COMMIT waits is up to the checkpointer.
        wait_for("the setting", lambda: commits_wait(dsn) == gone)

    group.standby = standby
    yield group
    standby(gone=False)
    group.close()


def commits_wait(dsn):
    """Whether a COMMIT waits for a standby by now: one is tried, and cancelled if it does."""
    with psycopg.connect(dsn, autocommit=True) as probe, psycopg.connect(dsn, autocommit=True) as watcher:
        committing = Thread(target=probe.execute, args=("SELECT pg_logical_emit_message(true, 'probe', '')",))
        committing.start()
        waiting = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep'"
        while committing.is_alive():
            if watcher.execute(waiting, [probe.info.backend_pid]).fetchone():
                probe.cancel_safe()
                committing.join()
                return True
            committing.join(0.05)
        return False


def waits_for_standby(group):
    return group.ask("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")


def test_a_commit_that_waits_for_a_lost_standby_is_said_and_ends_in_time(lonely):
    """The server never ends that wait. SIGTERM does, within 5 s; once the standby is back it counts once."""
    sender = Publisher(lonely.kafka, lonely.topic)
    sender.send(*shop(stock=10_000), partition=0)
    sender.flush()
    lonely.catch_up()
    lonely.standby(gone=True)
    load(sender, "p")
    run = lonely.start()
    [said] = run.says("waiting", code="SL-DB-011")
    assert "synchronous_standby_names is lost" in said["cause"]
    assert waits_for_standby(lonely)
    for verb in (["status"], ["verify"], ["doctor"]):
        lonely.cli(*verb)  # none of them hangs
    run.send(signal.SIGTERM)
    assert run.ended(STOP_BUDGET_S) == 0
    with lonely.running() as successor:
        successor.says("waiting", code="SL-DB-011")
        assert waits_for_standby(lonely), "the commit took effect before its standby had it"
        lonely.standby(gone=False)
        lonely.applies(sender)
    lonely.catch_up()
    lonely.prove(sender, tally={"applied": 63})


def test_a_run_with_a_goal_gives_up_on_a_lost_standby(lonely, monkeypatch):
    """Exit 3, named; nothing is lost, and the next run goes on."""
    sender = Publisher(lonely.kafka, lonely.topic)
    sender.send(*shop(stock=10_000), partition=0)
    sender.flush()
    lonely.catch_up()
    lonely.standby(gone=True)
    load(sender, "p")
    with monkeypatch.context() as hurried:
        hurried.setattr("consumer.worker.PATIENCE_S", 6)
        hurried.setattr("ledger.store.connection.database.SILENCE_MARGIN_S", -26)
        with pytest.raises(Held, match="synchronous_standby_names is lost"):
            lonely.catch_up()
    lonely.standby(gone=False)
    lonely.catch_up()
    lonely.prove(sender, tally={"applied": 63})


def test_migrate_names_the_standby_that_a_holder_waits_for(lonely):
    """A COMMIT that waits for its standby holds the lock. Ended, it would take effect unseen."""
    with psycopg.connect(lonely.dsn) as other, connect(lonely.dsn, purpose="test", budgets=QUICK) as conn:
        other.execute("LOCK TABLE ledger.migration IN ACCESS EXCLUSIVE MODE")
        other.execute("CREATE TABLE public.written ()")
        lonely.standby(gone=True)
        committing = Thread(target=other.commit)
        committing.start()
        wait_for("the COMMIT waits", lambda: waits_for_standby(lonely))
        with pytest.raises(Held, match="waits itself: a COMMIT waits for a synchronous standby") as held:
            migrate(conn)
        assert "synchronous_standby_names" in held.value.remedy
        assert "pg_terminate_backend" not in held.value.remedy
        lonely.standby(gone=False)
        committing.join(30)
        assert not committing.is_alive()
