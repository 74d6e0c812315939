"""Transactional producers: what was aborted is never applied, and the holes it leaves are accounted for."""

import pytest

from tests.support.publish import buys, shop

pytestmark = pytest.mark.real_kafka


@pytest.fixture
def group(new_group):
    return new_group(partitions=2)


@pytest.fixture
def sender(group, publisher):
    """A transactional producer; the shop is set up by its first transaction, in partition 0."""
    sender = publisher(group, transactional_id=f"of-{group.topic}")
    with sender.transaction():
        sender.send(*shop(), partition=0)
    return sender


def gaps(group):
    return group.ask("SELECT partition, first_offset, next_offset, cause FROM ledger.gaps ORDER BY 1, 2")


def test_committed_records_are_applied_and_markers_are_gaps(group, sender):
    """Each transaction ends with a marker that holds an offset: a `log_hole`, counted as skipped."""
    for turn in range(3):
        with sender.transaction():
            sender.send(*(buys(f"p{turn}-{n}") for n in range(4)), partition=0)
    group.catch_up(batch_size_max=3)
    group.prove(sender, tally={"applied": 15})
    marks = [(0, at, at + 1, "log_hole") for at in (3, 8, 13, 18)]
    assert gaps(group) == marks


def test_aborted_records_are_never_applied(group, sender):
    """Neither alone nor between committed ones; their ids are free, also with another payload."""
    with sender.transaction(abort=True):
        sender.send(*(buys(f"p{n}", quantity=7) for n in range(5)), partition=0)
    with sender.transaction():
        sender.send(*(buys(f"p{n}", quantity=1) for n in range(5)), partition=0)
    with sender.transaction(abort=True):
        sender.send(*(buys(f"p{n}", quantity=8) for n in range(5)), partition=1)
    group.catch_up()
    model = group.prove(sender, tally={"applied": 8})
    assert model.stock == {"tea": 995}
    assert gaps(group) == [(0, 3, 10, "log_hole"), (0, 15, 16, "log_hole"), (1, 0, 6, "log_hole")]


def test_the_end_is_reached_over_trailing_markers(group, sender):
    """`--until-caught-up` ends, and the next run begins behind the markers: no record, nothing to do."""
    for _ in range(3):
        with sender.transaction(abort=True):
            sender.send(buys("never"), partition=0)
    group.catch_up()
    assert group.next_offsets()[0] == 10
    assert group.catch_up().counts == {}
    group.prove(sender, tally={"applied": 3})


def test_an_open_transaction_holds_its_lane_and_is_read_once_it_commits(group, sender, publisher):
    """Records behind it wait, so that the order is the log's; the run ends at what is committed."""
    plain = publisher(group)
    sender.producer.begin_transaction()
    sender.send(buys("open"), partition=0)
    sender.flush()
    plain.send(buys("behind"), partition=0)
    plain.send(buys("beside"), partition=1)
    plain.flush()
    group.catch_up()
    assert group.next_offsets() == {0: 4, 1: 1}
    sender.producer.commit_transaction()
    group.catch_up()
    group.prove(sender, plain, tally={"applied": 6})
    places = {record.line["id"]: place for place, record in (sender.sent | plain.sent).items()}
    assert places["open"] < places["behind"]


def test_many_transactions_cost_few_seeks(group, sender):
    """One look back serves all the markers that were read: a lane of small transactions keeps up."""
    for turn in range(100):
        with sender.transaction():
            sender.send(buys(f"p{turn}"), partition=0)
    with group.running() as running:
        group.applies(sender)
    assert len(running.said("seek back to a hole")) < 20
    group.prove(sender, tally={"applied": 103})


def test_transactions_flow_while_a_worker_runs(group, sender, publisher):
    """Commits, aborts and plain records in turn, under load: all and only what was committed."""
    plain = publisher(group)
    with group.running(batch_size_max=7) as running:
        for turn in range(30):
            with sender.transaction(abort=turn % 3 == 1):
                for partition in range(2):
                    sender.send(*(buys(f"t{turn}-{partition}-{n}") for n in range(3)), partition=partition)
            plain.send(buys(f"plain-{turn}"), buys(f"t{turn}-0-1"), partition=turn % 2)
        plain.flush()
        group.applies(sender)
        group.applies(plain)
        assert running.said("seek back to a hole")
    group.prove(sender, plain)
