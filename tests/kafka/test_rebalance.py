"""Workers that come, go, freeze and come back while records flow: each lane has one owner that counts."""

import signal
import time

import pytest

from tests.support.publish import buys, shop
from tests.support.workers import STOP_BUDGET_S, wait_for

pytestmark = pytest.mark.real_kafka
PROTOCOLS = {
    "eager": {"partition_assignment_strategy": "range"},
    "cooperative": {"partition_assignment_strategy": "cooperative-sticky"},
    "KIP-848": {"group_protocol": "consumer"},
}
GOODS = [f"goods-{n}" for n in range(8)]


def purchases(name, count):
    return [buys(f"{name}-{n}", goods=GOODS[n % len(GOODS)]) for n in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_workers_join_and_leave_in_the_middle_of_batches(new_group, publisher, protocol):
    """Under every rebalance protocol each record is applied once, whoever owns its lane by then."""
    group = new_group(partitions=4, **PROTOCOLS[protocol])
    sender = publisher(group)
    sender.send(*shop(goods=GOODS), partition=0)
    sender.flush()
    first = group.start("--batch", "10", failpoints="seal=pause@4")
    group.applies(sender)
    sender.send(*purchases("a", 100))
    sender.flush()
    wait_for("a batch is held", group.in_transaction)
    second = group.start("--batch", "10")
    second.says("assigned")
    sender.send(*purchases("b", 100), *purchases("a", 30))
    third = group.start("--batch", "10")
    third.says("assigned")
    sender.flush()
    group.applies(sender)
    assert len({first.pid, second.pid, third.pid} & owners(group)) > 1, "nothing was shared out"
    sender.send(*purchases("c", 100))
    first.terminates()
    sender.send(*purchases("d", 50))
    second.send(signal.SIGKILL)
    sender.flush()
    group.applies(sender)
    third.terminates()
    group.prove(sender, tally={"applied": 1 + 2 * len(GOODS) + 350, "duplicate": 30})


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["cooperative", "KIP-848"])
def test_all_workers_end_in_time_while_lanes_change_hands(new_group, publisher, protocol):
    """SIGTERM for everybody at once, in the middle of a rebalance: all end within 5 s, well, and what they
    leave is applied once by whoever comes next."""
    group = new_group(partitions=4, **PROTOCOLS[protocol])
    sender = publisher(group)
    sender.send(*shop(goods=GOODS), partition=0)
    sender.flush()
    workers = [group.start("--batch", "10") for _ in range(2)]
    wait_for("both own a lane", lambda: owners(group) == {worker.pid for worker in workers})
    group.applies(sender)
    revoked = lanes_given_up(workers)
    sender.send(*purchases("a", 2000))
    sender.flush()
    workers.append(group.start("--batch", "10"))
    wait_for("a lane changes hands", lambda: lanes_given_up(workers) > revoked)
    for worker in workers:
        worker.send(signal.SIGTERM)
    deadline = time.monotonic() + STOP_BUDGET_S
    assert [worker.ended(max(0.0, deadline - time.monotonic())) for worker in workers] == [0, 0, 0]
    group.catch_up()
    group.prove(sender, tally={"applied": 1 + 2 * len(GOODS) + 2000})


def lanes_given_up(workers):
    return sum(len(worker.said("revoked")) for worker in workers)


def owners(group):
    return {pid for (pid,) in group.ask("SELECT owner_pid FROM ledger.lane")}


@pytest.mark.slow
@pytest.mark.parametrize("step", ["decode", "seal", "sending", "committed"])
def test_a_frozen_worker_changes_nothing_when_it_comes_back(new_group, publisher, step):
    """SIGSTOP past the session's end with a batch in hand: another one takes over, ends the frozen
    transaction, and goes on; the zombie writes nothing after SIGCONT, joins again, and works."""
    group = new_group(partitions=2)
    sender = publisher(group)
    sender.send(*shop(goods=GOODS), partition=0)
    sender.send(*purchases("a", 30), partition=0)
    sender.send(*purchases("a", 30), partition=1)
    sender.flush()
    zombie = group.start("--batch", "10", failpoints=f"{step}=stop@{1 if step == 'decode' else 3}")
    zombie.frozen()
    heir = group.start("--batch", "10")
    group.applies(sender)
    before = group.ask("TABLE ledger.journal")
    assert owners(group) == {heir.pid}
    zombie.send(signal.SIGCONT)
    zombie.says("assigned", times=2)
    assert group.ask("TABLE ledger.journal") == before
    wait_for("both own a lane", lambda: owners(group) == {heir.pid, zombie.pid})
    for partition in range(2):
        sender.send(*purchases(f"b{partition}", 20), partition=partition)
    sender.flush()
    group.applies(sender)
    for worker in (zombie, heir):
        worker.terminates()
        assert worker.result()["deliveries"]["applied"] > 0
    group.prove(sender)


@pytest.mark.slow
def test_a_worker_slower_than_its_poll_interval_loses_the_lane_and_nothing_else(new_group, publisher):
    """`max.poll.interval.ms` passes in mid-batch: the batch commits or is fenced, and the lane goes on."""
    group = new_group(partitions=1, max_poll_interval_ms="2000")
    sender = publisher(group)
    lanes = [f"{group.topic}[0]"]
    slow = group.start("--batch", "5", failpoints="seal=pause@2")
    slow.says("assigned", lanes=lanes)
    other = group.start("--batch", "5")
    other.says("assigned", lanes=[])  # a member, before the lane is let go of
    sender.send(*shop(), *(buys(f"p{n}") for n in range(20)), partition=0)
    sender.flush()
    wait_for("a batch is held", group.in_transaction)
    other.says("assigned", lanes=lanes)
    slow.says("waiting", code="SL-GRP-001")
    slow.says("ready", times=2)
    sender.send(buys("after"), partition=0)
    sender.flush()
    group.applies(sender)
    for worker in (slow, other):
        worker.terminates()
    group.prove(sender, tally={"applied": 24})


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_of_two_static_members_of_one_name_one_ends(new_group, publisher, protocol):
    """Two processes with one `group.instance.id`: one of them halts with an error, neither spins nor doubles.

    The classic protocol lets the newer one in, KIP-848 the older one stay.
    """
    group = new_group(partitions=1, group_protocol=protocol, group_instance_id="one")
    sender = publisher(group)
    sender.send(*shop(), partition=0)
    sender.flush()
    older = group.start()
    group.applies(sender)
    newer = group.start()
    ends, stays = (older, newer) if protocol == "classic" else (newer, older)
    assert ends.ended() == 4
    assert "the Kafka client gave up" in ends.result()["error"]["message"]
    sender.send(buys("p"), partition=0)
    sender.flush()
    group.applies(sender)
    stays.terminates()
    group.prove(sender, tally={"applied": 4})
