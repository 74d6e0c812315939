"""Postgres goes away, stalls, or commits without a word: it is waited for, and nothing counts twice."""

import random
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ledger import failpoints
from ledger.domain.delivery import Lane
from ledger.errors import UnsafeSettings
from ledger.failpoints import STEPS
from ledger.store.tables import lane
from ledger.store.tables.lane import Owner
from tests.support.proxy import Proxy
from tests.support.publish import buys
from tests.support.workers import wait_for

COPY_DONE = b"c\0\0\0\4"
STATIC = {"group.instance.id": "one"}
"""A session that ends and begins again needn't wait for a rebalance."""


@pytest.fixture
def group(new_group):
    return new_group(partitions=2)


@pytest.fixture
def impatient(monkeypatch):
    """Tries again at once, also after many failures without progress."""
    monkeypatch.setattr("consumer.worker.BACKOFF_MAX_S", 0.2)


class LedgerProxy(Proxy):
    dsn: str


@pytest.fixture
def proxy(group):
    """Between the worker and Postgres; `proxy.dsn` is the ledger through it."""
    server = conninfo_to_dict(group.dsn)
    with LedgerProxy(str(server["host"]), int(str(server["port"]))) as proxy:
        # without encryption one chunk holds what was sent at once
        proxy.dsn = make_conninfo(
            group.dsn, host="127.0.0.1", port=proxy.port, sslmode="disable", gssencmode="disable"
        )
        yield proxy


def load(sender, name, count):
    """The same purchases through both lanes, so that half of them are duplicates."""
    for partition in range(2):
        sender.send(*(buys(f"{name}-{n}") for n in range(count)), partition=partition)
    sender.flush()


class Seals:
    """Whether the request is the last that the server needs to commit a batch: the seal's message, or, where
    rows travel with it, those of the last table."""

    def __init__(self) -> None:
        self._tables = 0

    def __call__(self, request: bytes) -> bool:
        if b"ledger.seal" in request:
            self._tables = request.count(b"FROM STDIN")
            return not self._tables
        if not request.endswith(COPY_DONE) or not self._tables:
            return False
        self._tables -= 1
        return not self._tables


def committed(reply: bytes) -> bool:
    return b"COMMIT\0" in reply


def nth(number, accepts):
    """A predicate that is true at the number-th time that `accepts` is."""
    left = [number]

    def matches(chunk):
        accepted = accepts(chunk)
        left[0] -= accepted
        return accepted and left[0] == 0

    return matches


@pytest.mark.parametrize("number", [1, 2, 7])
def test_a_commit_whose_acknowledgement_is_lost_counts_once(group, sender, proxy, number):
    """It did take effect and nobody was told: the lane's row says where to go on."""
    load(sender, "p", 20)
    lost = proxy.lose_answer(nth(number, Seals()), committed)
    group.catch_up(dsn=proxy.dsn, batch_size_max=5)
    assert lost.is_set()
    group.prove(sender, tally={"applied": 23, "duplicate": 20})


@pytest.mark.slow
def test_answers_lost_at_random_change_nothing(group, sender, proxy, impatient, seed):
    """Whatever statement was cut off, again and again: each record counts once in the end."""
    chance = random.Random(seed)
    load(sender, "p", 150)
    with group.running(dsn=proxy.dsn, batch_size_max=5, kafka=STATIC):
        for _ in range(8):
            lost = proxy.lose_answer(nth(chance.randrange(1, 25), bool))
            assert lost.wait(30)
        group.applies(sender)
    group.prove(sender, tally={"applied": 153, "duplicate": 150})


def test_a_stalled_postgres_is_waited_for(group, sender, proxy):
    """Longer than the group's session: the worker stays a member, keeps its lanes, and goes on."""
    load(sender, "p", 100)
    with group.running(dsn=proxy.dsn, batch_size_max=2):
        wait_for("progress", lambda: sum(group.next_offsets().values()) > 20)
        epochs = group.epochs()
        proxy.stall()
        session_s = int(group.kafka.get("session.timeout.ms", "1500")) / 1000
        with pytest.raises(AssertionError):  # nothing but waiting could show that nothing happens
            wait_for("a takeover", lambda: group.epochs() != epochs, session_s + 1)
        proxy.resume()
        group.applies(sender)
    assert group.epochs() == epochs
    group.prove(sender, tally={"applied": 103, "duplicate": 100})


@pytest.mark.slow
def test_a_session_terminated_at_every_step_is_begun_anew(group, sender, impatient, monkeypatch):
    """An administrator or a crash ends the backend in the middle of anything: connect again, read on."""
    steps = [step for step in STEPS if step != "claim"]
    hit = failpoints.hit
    cut_at: list[str] = []

    def cuts_off(step):
        if len(cut_at) < len(steps) and step == steps[len(cut_at)] and group.cut_off_workers():
            cut_at.append(step)
        hit(step)

    load(sender, "p", 150)
    monkeypatch.setattr(failpoints, "hit", cuts_off)
    group.catch_up(batch_size_max=5, kafka=STATIC)
    assert cut_at == steps
    group.prove(sender, tally={"applied": 153, "duplicate": 150})


def test_a_lane_held_by_a_stranger_is_waited_for(group, sender):
    """A lock that neither times out nor belongs to the last owner delays the worker and doesn't end it."""
    with psycopg.connect(group.dsn) as stranger:
        stranger.execute("SELECT FROM ledger.lane FOR UPDATE")
        load(sender, "p", 5)
        with group.running() as running:
            running.says("waiting")
            stranger.rollback()
            group.applies(sender)
    group.prove(sender, tally={"applied": 8, "duplicate": 5})


def test_an_owner_that_hangs_in_its_transaction_is_ended_by_its_successor(group, sender):
    """No timeout of its own frees the lane: after the lock timeout the recorded session is terminated."""
    connection: Any = psycopg.connect(group.dsn, application_name="stockledger/run")
    with connection as frozen:
        lane.claim(frozen, Lane(group.topic, 0), Owner("elsewhere", 1))
        frozen.commit()
        frozen.execute("SELECT FROM ledger.lane FOR UPDATE")
        load(sender, "p", 5)
        group.catch_up()
        with pytest.raises(psycopg.errors.AdminShutdown):
            frozen.execute("SELECT 1")
    group.prove(sender, tally={"applied": 8, "duplicate": 5})


def test_a_session_that_would_not_be_durable_is_refused(group, sender):
    """`synchronous_commit` off for the database: refused at the start, and at the next connection."""
    [(name,)] = group.ask("SELECT quote_ident(current_database())")
    group.do(f"ALTER DATABASE {name} SET synchronous_commit = off")
    with pytest.raises(UnsafeSettings, match="synchronous_commit is off"):
        group.catch_up()
    group.do(f"ALTER DATABASE {name} RESET synchronous_commit")
    load(sender, "p", 5)
    with group.running() as running:
        group.applies(sender)
        group.do(f"ALTER DATABASE {name} SET synchronous_commit = off")
        group.cut_off_workers()
        sender.send(buys("q"), partition=0)
        sender.flush()
        assert isinstance(running.halts(), UnsafeSettings)
    group.do(f"ALTER DATABASE {name} RESET synchronous_commit")
    group.catch_up()
    group.prove(sender, tally={"applied": 9, "duplicate": 5})


def beyond(group, offsets):
    return sum(group.next_offsets().values()) > offsets


def test_postgres_killed_under_load_loses_nothing(group, sender, services, supported):
    """SIGKILL of the server in mid-batch and its recovery: the lane's row and the effects agree."""
    with supported():
        services.postgres.kill()
    services.postgres.start()
    worker = group.start("--batch", "5", group_instance_id="one")
    for turn in range(2):
        load(sender, f"p{turn}", 300)
        wait_for("progress", partial(beyond, group, sum(group.next_offsets().values()) + 20))
        services.postgres.kill()
        worker.says("waiting", times=turn + 1)
        services.postgres.start()
    group.applies(sender)
    worker.terminates()
    group.prove(sender, tally={"applied": 603, "duplicate": 600})


def test_a_database_that_is_down_at_the_start_is_waited_for(group, sender, services, supported):
    """One line says so, however often it is tried; it goes on by itself."""
    with supported():
        services.postgres.kill()
    try:
        worker = group.start()
        worker.says("waiting")
        wait_for("more tries", lambda: worker.alive and not worker.said("ready"))
    finally:
        services.postgres.start()
    worker.says("ready")
    load(sender, "p", 5)
    group.applies(sender)
    worker.terminates()
    causes = [line["cause"] for line in worker.said("waiting")]
    assert len(causes) == len(set(causes)) <= 2  # down; perhaps starting up
    group.prove(sender, tally={"applied": 8, "duplicate": 5})
