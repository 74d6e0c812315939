"""One key is one command, whichever gateways it comes by, and whatever becomes of them meanwhile."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ledger.api import Ledger
from tests.support.doorstep import SOURCE, Client, Served, gateway, records
from tests.support.publish import buys
from tests.support.workers import PATIENCE_S, wait_for

AT_ONCE = 12


@pytest.fixture(scope="module")
def doors(open_shop):
    """Two gateways of one ledger."""
    with gateway(open_shop) as one, gateway(open_shop) as other:
        yield one, other


def at_once(doors, call):
    """What each of many clients is told, who call at the same moment by both gateways."""
    ready = threading.Barrier(AT_ONCE)

    def one(number):
        ready.wait(PATIENCE_S)
        return call(doors[number % 2], number)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [*pool.map(one, range(AT_ONCE))]


def test_a_repeat_while_the_first_is_decided(doors):
    """At the same moment by two gateways: one answer for all, and all but one know that it is a repeat."""
    told = at_once(doors, lambda door, _: door.buys("while"))
    assert {each.status for each in told} == {200}
    assert len({each.body["token"] for each in told}) == 1
    assert sum(not each.replayed for each in told) == 1


def test_a_repeat_before_and_after(new_group):
    """Before anybody has decided: 202 for each. Afterwards each gateway, also a new one, has the outcome."""
    group = new_group(partitions=2)
    with gateway(group) as one, gateway(group) as other:
        assert [door.buys("before", wait=0).status for door in (one, other, one)] == [202, 202, 202]
        group.catch_up()
        first = one.buys("before")
        assert (first.status, first.replayed) == (200, True)
    with gateway(group) as later:
        again = later.buys("before")
        assert (again.body, again.replayed) == (first.body, True)
    assert group.ask("SELECT count(*) FROM ledger.outcomes") == [(1,)]


def test_one_key_and_different_bodies_at_the_same_moment(doors, open_shop):
    """On two gateways: one is applied, each other one gets 422 with the fingerprint of the first."""
    told = at_once(doors, lambda door, number: door.buys("race", quantity=1 + number))
    applied = [each for each in told if each.status == 200]
    conflicts = [each for each in told if each.status == 422]
    assert (len(applied), len(conflicts)) == (1, AT_ONCE - 1)
    first = applied[0].body["fingerprint"][:8]
    assert {each.body["first_fingerprint"] for each in conflicts} == {first}
    assert len({each.body["fingerprint"] for each in conflicts} - {first}) == AT_ONCE - 1
    with Ledger(open_shop.dsn) as ledger:
        assert len(ledger.outcome("race", SOURCE)) == 1


@pytest.mark.parametrize("when", ["in the topic", "answered by nobody"])
def test_a_gateway_that_is_killed_before_it_answers(new_group, when):
    """SIGKILL between delivery and answer: a repeat by another gateway gets the outcome of the first."""
    group = new_group(partitions=2)
    with Served(group, "--source", SOURCE) as killed, ThreadPoolExecutor(1) as pool:
        door = Client(killed.ready())
        waits = pool.submit(door.buys, "killed", wait=30)
        wait_for("the record", lambda: records(group))
        if when == "in the topic":
            killed.ends(signal.SIGKILL)
            assert waits.exception(PATIENCE_S)
        else:
            killed.process.send_signal(signal.SIGSTOP)
            group.catch_up()
            killed.ends(signal.SIGKILL)
            assert waits.exception(PATIENCE_S)
    with gateway(group) as other:
        if when == "in the topic":
            assert other.buys("killed", wait=0).status == 202
            group.catch_up()
        told = other.buys("killed")
    assert (told.status, told.replayed) == (200, True)
    assert group.ask("SELECT count(*) FROM ledger.outcomes") == [(1,)]


def test_a_key_that_came_by_kafka_first(doors, open_shop, publisher):
    """Whoever published it, the register answers, and another payload is a conflict."""
    sender = publisher(open_shop)
    sender.send(buys("by-kafka") | {"source": SOURCE})
    sender.flush()
    open_shop.applies(sender)
    assert doors[0].buys("by-kafka").replayed
    assert doors[1].buys("by-kafka", quantity=2).status == 422
