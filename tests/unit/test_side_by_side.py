"""Services for tests side by side: who gets which, who may harm them, and that the owner ends them."""

import os
import threading
from contextlib import closing
from typing import Any

import pytest

from tests.support import lending
from tests.support.java_kafka import NotUsable
from tests.support.services import Kafka, Postgres, Services, Unsupported


class Ended:
    made: list[Any]

    def stop(self):
        self.made.remove(self)

    def wait_ready(self):
        pass


class Broker(Ended, Kafka):
    def __init__(self, made):
        super().__init__(f"localhost:{len(made)}", "a broker")
        self.made = made
        made.append(self)

    def kill(self):
        raise Unsupported("not from here")


class Server(Ended, Postgres):
    def __init__(self, made):
        super().__init__(f"postgresql://localhost/{len(made)}")
        self.made = made
        made.append(self)

    def version(self):
        return "PostgreSQL"


@pytest.fixture
def made(monkeypatch):
    """All that runs."""
    made: list[Any] = []

    def found():
        return Services(
            "docker", Broker(made), Server(made), [], [], lambda: Broker(made), lambda: Server(made)
        )

    monkeypatch.setattr(lending, "find_services", found)
    return made


@pytest.fixture
def lender(made):
    lender = lending.Lender()
    yield lender
    lender.stop()


@pytest.fixture
def borrow(lender):
    """`borrow(worker, alone=False)`: what this worker gets."""
    lines = []

    def line(worker, alone=False):
        lines.append(lending.Line(lender.address, worker, alone))
        return lines[-1].borrow()

    yield line
    for each in lines:
        each.close()


def test_nothing_starts_before_a_worker_asks(lender, made, borrow):
    """A run of unit tests needs no services; then the first worker gets what the rung started."""
    assert not made
    borrow("gw1")
    assert len(made) == 2
    assert lender.described == "docker: a broker, PostgreSQL"


def test_each_has_a_postgres_and_all_share_a_broker_but_one(borrow, made):
    """What a test does to a server or to the broker it has alone is nobody else's business."""
    one, other, alone, again = borrow("gw1"), borrow("gw2"), borrow("gw0", alone=True), borrow("gw1")
    brokers = [each.kafka.bootstrap_servers for each in (one, other, alone, again)]
    assert brokers[0] == brokers[1] == brokers[3] != brokers[2]
    servers = [each.postgres.dsn() for each in (one, other, alone, again)]
    assert len(set(servers[:3])) == 3
    assert servers[3] == servers[0]
    assert len(made) == 5


def test_a_broker_of_all_is_not_harmed(borrow):
    """It is said that the test stands on the wrong list, and not skipped."""
    with pytest.raises(AssertionError, match="others use this broker"):
        borrow("gw1").kafka.kill()


def test_what_the_owner_cannot_do_is_told(borrow):
    """A test skips with the service's own words, as where tests run one after the other."""
    with pytest.raises(Unsupported, match="not from here"):
        borrow("gw0", alone=True).kafka.kill()


def test_no_services_are_told_with_the_reasons(borrow, monkeypatch):
    """The same error as where one process does it all."""

    def none():
        raise NotUsable("no engine, no java")

    monkeypatch.setattr(lending, "find_services", none)
    with pytest.raises(match="no engine, no java"):
        borrow("gw1")


def test_the_owner_ends_what_runs(made, borrow, lender):
    """All of it, whatever became of the workers."""
    borrow("gw1")
    borrow("gw0", alone=True)
    lender.stop()
    assert not made


def test_an_interrupt_waits_until_the_workers_have_cleaned_up(lender, monkeypatch):
    """Each is told once; the services outlive it."""
    told = threading.Event()
    monkeypatch.setattr(os, "kill", lambda pid, number: told.set())
    line = lending.Line(lender.address, "gw1", False)
    with closing(line):
        line.borrow()
        ending = threading.Thread(target=lender.interrupt, args=(60,))
        ending.start()
        assert told.wait(60)
        assert ending.is_alive()
    ending.join(60)
    assert not ending.is_alive()
