"""Transactional producers: what was aborted is never applied, and the holes it leaves are accounted for."""

import signal

import pytest

from ledger.errors import OpenTransaction
from tests.support.publish import buys, shop
from tests.support.workers import wait_for

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


@pytest.fixture
def open_transaction(group, sender, publisher):
    """A record in an open transaction in partition 0; acknowledged ones of another producer after it."""
    group.catch_up()  # else the other lane's purchase may come before the shop's set-up
    plain = publisher(group)
    sender.producer.begin_transaction()
    sender.send(buys("open"), partition=0)
    sender.flush()
    plain.send(*(buys(f"after-{n}") for n in range(20)), partition=0)
    plain.send(buys("beside"), partition=1)
    plain.flush()
    return plain


def test_an_open_transaction_holds_its_lane_and_is_read_once_it_commits(group, sender, open_transaction):
    """Records after it wait, so that the order is the log's; the other lanes go on, and it isn't the end."""
    with group.running(until_caught_up=True) as running:
        wait_for("the other lane", lambda: group.next_offsets() == {0: 4, 1: 1})
        assert running.alive
        sender.producer.commit_transaction()
        running.ends()
    group.prove(sender, open_transaction, tally={"applied": 25})
    places = {record.line["id"]: place for place, record in (sender.sent | open_transaction.sent).items()}
    assert places["open"] < places["after-0"]


def test_a_run_with_a_goal_names_the_open_transaction(group, sender, open_transaction, monkeypatch):
    """Acknowledged commands are left over: never "ok", and the remedy has the transaction's first offset."""
    with monkeypatch.context() as hurried:
        hurried.setattr("consumer.worker.PATIENCE_S", 3)
        hurried.setattr("consumer.worker.SAY_AFTER_S", 1)
        with pytest.raises(OpenTransaction, match=r"21 records of .* began at offset 4, open for") as caught:
            group.catch_up()
    assert f"abort --topic {group.topic} --partition 0 --start-offset 4" in caught.value.remedy
    assert group.next_offsets() == {0: 4, 1: 1}
    sender.producer.abort_transaction()
    group.catch_up()
    assert group.next_offsets()[0] == 26


@pytest.mark.parametrize("number", [signal.SIGTERM])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_goal_that_was_not_reached_is_never_ok(group, sender, open_transaction, number, workers):
    """A signal before the end of the topic: exit 130, `ok` false, and how much is left."""
    run = group.start("--workers", workers, "--until-caught-up")
    wait_for("the other lane", lambda: group.next_offsets() == {0: 4, 1: 1})
    run.send(number)
    assert run.ended() == 130
    told = run.result()
    assert (told["ok"], told["error"]["code"], told["caught_up"]) == (False, "SL-CLI-004", False)
    assert told["lag"] == 21
    sender.producer.abort_transaction()


def test_everybody_who_asks_how_much_there_is_sees_what_waits(group, sender, open_transaction):
    """`status` counts it as lag, `doctor` warns, `verify --topic` says that it couldn't be compared."""
    with group.running():
        wait_for("the other lane", lambda: group.next_offsets() == {0: 4, 1: 1})
    found = group.cli("status")
    assert found["lag"] == 21
    [waits] = found["hidden"]
    assert (waits["partition"], waits["first_offset"], waits["records"]) == (0, 4, 21)
    assert waits["since"]
    findings = {each["what"]: each for each in group.cli("doctor")["findings"]}
    assert "21 records" in findings["transactions"]["found"]
    [waits] = group.cli("verify", "--topic")["hidden"]
    assert waits["records"] == 21
    sender.producer.abort_transaction()


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
