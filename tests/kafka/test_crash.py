"""A worker that dies at any step: whoever comes next goes on, and nothing is lost or doubled."""

import signal

import pytest
from confluent_kafka import Consumer, TopicPartition

from ledger import failpoints
from ledger.failpoints import STEPS, Injected
from tests.support.publish import buys, shop
from tests.support.workers import wait_for

pytestmark = pytest.mark.real_kafka
STATIC = {"group.instance.id": "one"}
"""A static member that comes back needn't wait for its dead self's session to time out."""
ONCE_A_RUN = {"claim", "decode"}


def fill(sender):
    """A lane of set-up and purchases, another with some of the same and bad records between."""
    purchases = [buys(f"p{n}", quantity=n % 3 + 1) for n in range(12)]
    sender.send(*shop(), *purchases, partition=0)
    for purchase in purchases[::2]:
        sender.send(purchase, partition=1)
        sender.send_raw(b"no command", partition=1)
    sender.flush()


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_killed_at_any_step_leaves_nothing_lost_or_doubled(new_group, publisher, step):
    """SIGKILL before, in and after the transaction, also between the commit and the hand-over to Kafka."""
    group = new_group(**STATIC)
    sender = publisher(group)
    fill(sender)
    count = 1 if step in ONCE_A_RUN else 3
    worker = group.start("--batch", "4", failpoints=f"{step}=kill@{count}")
    assert worker.ended() == -signal.SIGKILL
    before = sum(group.next_offsets().values())
    assert before < 27, "it had nothing left to do"
    assert before == 0 or step not in ONCE_A_RUN
    group.catch_up(batch_size_max=4)
    model = group.prove(sender)
    assert model.tally.total() + 6 == 27


@pytest.mark.parametrize("step", STEPS)
def test_an_exception_at_any_step_ends_the_worker_and_skips_nothing(new_group, publisher, monkeypatch, step):
    """Also one in the assignment: no record is read without an offset of the ledger's own."""
    group = new_group(**STATIC)
    sender = publisher(group)
    fill(sender)
    monkeypatch.setitem(failpoints._armed, step, ("raise", 1 if step in ONCE_A_RUN else 3))
    with pytest.raises(Injected, match=step):
        group.catch_up(batch_size_max=4)
    group.catch_up(batch_size_max=4)
    group.prove(sender)


def test_the_group_offset_that_was_never_handed_over_is_not_missed(new_group, publisher):
    """Kafka's own offsets are for lag tools: without them, or with wrong ones, nothing is skipped."""
    group = new_group(partitions=1)
    sender = publisher(group)
    sender.send(*shop(), *(buys(f"p{n}") for n in range(5)), partition=0)
    sender.flush()
    group.catch_up()
    liar = Consumer({"bootstrap.servers": group.kafka["bootstrap.servers"], "group.id": group.name})
    for wrong in (2, 7, 8):
        liar.commit(offsets=[TopicPartition(group.topic, 0, wrong)], asynchronous=False)
        sender.send(buys(f"after-{wrong}"), partition=0)
        sender.flush()
        group.catch_up()
    liar.close()
    group.prove(sender, tally={"applied": 11})


def test_lag_tools_see_what_is_applied(new_group, publisher):
    """Kafka is told how far each lane is: soon, while the worker works on, and when it ends."""
    group = new_group(partitions=2)
    sender = publisher(group)
    for partition in range(2):
        sender.send(*shop(), *(buys(f"p{n}") for n in range(5)), partition=partition)
    sender.flush()
    sent = 2 * (len(shop()) + 5)
    watcher = Consumer({"bootstrap.servers": group.kafka["bootstrap.servers"], "group.id": group.name})
    lanes = [TopicPartition(group.topic, partition) for partition in range(2)]

    def handed_over() -> bool:
        ends = group.next_offsets()
        return bool({p.partition: p.offset for p in watcher.committed(lanes, timeout=60)} == ends)

    with group.running():
        wait_for("all to be applied", lambda: sum(group.next_offsets().values()) == sent)
        wait_for("Kafka to be told", handed_over)
    sender.send(buys("more"), partition=1)
    sender.flush()
    group.catch_up()
    wait_for("Kafka to be told", handed_over)
    watcher.close()
