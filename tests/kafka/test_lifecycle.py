"""How workers end: by a signal, by a fault, by their supervisor's end; and how they are started again."""

import os
import signal
import threading
import time
from datetime import timedelta

import pytest

from ledger.store.tables import stock_delta
from tests.support.publish import buys, shop
from tests.support.workers import state, wait_for

pytestmark = pytest.mark.real_kafka
STOP_BUDGET_S = 5


@pytest.fixture
def group(new_group):
    return new_group(partitions=3)


@pytest.fixture
def sender(group, publisher):
    """A producer of the group's topic; the shop is being set up."""
    sender = publisher(group)
    sender.send(*shop(stock=10_000), partition=0)
    sender.flush()
    return sender


def load(sender, count=3000):
    """More than is applied at once, in every lane."""
    for partition in range(3):
        sender.send(*(buys(f"p{partition}-{n}") for n in range(count // 3)), partition=partition)
    sender.flush()


def progress(group, least=1):
    """Wait until so many purchases are applied."""
    wait_for("progress", lambda: sum(group.next_offsets().values()) >= 3 + least)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_signal_under_load_ends_it_in_time_with_the_batch_in_hand(group, sender, workers, number, code):
    """Within 5 s and whole: what was begun is committed, what wasn't is left for the next one."""
    run = group.start("--workers", str(workers), "--batch", "10")
    group.applies(sender)
    load(sender)
    progress(group, 50)
    run.send_to_all(number) if number == signal.SIGINT else run.send(number)  # as Ctrl-C and as `kill` do
    assert run.ended(STOP_BUDGET_S) == code
    assert not run.said("worker died"), "a worker was cut off"
    if code == 0:
        [(journalled,)] = group.ask("SELECT sum(applied) FROM ledger.journal_entries")
        assert run.result()["deliveries"]["applied"] == journalled
    group.catch_up()
    group.prove(sender, tally={"applied": 3003})


def test_ctrl_c_lets_every_worker_finish_its_batch(group, sender):
    """A terminal's SIGINT goes to all processes at once; none of them counts it as a second signal."""
    run = group.start("--workers", "2", failpoints="seal=pause")
    wait_for("a batch is held", group.in_transaction)
    run.send_to_all(signal.SIGINT)
    assert run.ended(2 * STOP_BUDGET_S) == 130  # the batch is held for 3 s
    assert group.next_offsets()[0] == 3
    group.prove(sender, tally={"applied": 3})


def test_workers_end_together_when_all_is_caught_up(group, sender):
    """For CI: several processes end with 0 once the whole topic is applied, whoever applied it."""
    load(sender, 300)
    run = group.start("--workers", "3", "--until-caught-up")
    assert run.ended() == 0
    counts = run.result()["deliveries"]
    assert sum(counts.values()) == 303
    assert group.next_offsets() == {0: 103, 1: 100, 2: 100}
    group.prove(sender)


def test_a_goal_that_cant_be_known_is_never_ok(group, sender):
    """No broker answers when it is told to end: not "0 applied, ok"."""
    run = group.start("--until-caught-up", bootstrap_servers="127.0.0.1:1")
    run.says("waiting")
    run.send(signal.SIGTERM)
    assert run.ended() == 130
    assert (run.result()["ok"], run.result()["lag"]) == (False, None)


def test_a_bound_goal_ends_although_a_producer_is_busy(group, sender):
    """The end is the one that was seen at the start: what is published meanwhile doesn't move it."""
    stop = threading.Event()

    def publish():
        number = 0
        while not stop.is_set():
            sender.send(buys(f"p{number}"), partition=number % 3)
            number += 1
            stop.wait(0.003)  # some 300 a second: there is always one more than was read

    busy = threading.Thread(target=publish)
    busy.start()
    try:
        wait_for("records in every lane", lambda: len(sender.sent) > 100)
        totals = group.catch_up()
    finally:
        stop.set()
        busy.join()
    assert totals.caught_up
    sender.flush()
    group.catch_up()
    group.prove(sender)


def test_a_second_signal_ends_it_at_once(group, sender):
    """Whatever it is doing; what it was doing is undone as a whole."""
    group.catch_up()
    load(sender, 30)
    run = group.start("--batch", "10", failpoints="seal=pause")
    wait_for("a batch is held", group.in_transaction)
    run.send(signal.SIGTERM)
    time.sleep(0.2)  # two signals at once are one
    assert run.alive
    run.send(signal.SIGTERM)
    assert run.ended(1) == -signal.SIGTERM
    group.catch_up()
    group.prove(sender, tally={"applied": 33})


def test_a_worker_that_dies_is_started_again(group, sender):
    """Its lanes go to the others, or wait for it; the supervisor says so and goes on."""
    run = group.start("--workers", "3", "--batch", "10")
    group.applies(sender)
    assert len(run.children()) == 3
    load(sender, 300)
    victim = group.ask("SELECT owner_pid FROM ledger.lane WHERE partition = 1")[0][0]
    os.kill(victim, signal.SIGKILL)
    [died] = run.says("worker died")
    assert died["exit"] == -signal.SIGKILL
    wait_for("three workers", lambda: len(run.children()) == 3)
    assert victim not in run.children()
    group.applies(sender)
    run.terminates()
    group.prove(sender, tally={"applied": 303})


def test_a_worker_that_keeps_dying_is_started_with_growing_pauses(group, sender):
    """A crash on every start doesn't become a busy loop."""
    run = group.start("--workers", "2", failpoints="claim=kill")
    run.says("worker died", worker=1, times=2)
    pauses = [line["again_in_s"] for line in run.said("worker died", worker=1)]
    assert pauses == sorted(set(pauses))
    run.terminates()
    group.catch_up()
    group.prove(sender, tally={"applied": 3})


def test_workers_end_by_themselves_when_their_supervisor_is_gone(group, sender):
    """SIGKILL of the supervisor leaves no orphans, and nothing half done."""
    run = group.start("--workers", "2", "--batch", "10")
    group.applies(sender)
    load(sender, 300)
    children = run.children()
    run.send(signal.SIGKILL)
    assert run.ended() == -signal.SIGKILL
    wait_for("no orphans", lambda: not any(map(state, children)), STOP_BUDGET_S)
    group.catch_up()
    group.prove(sender, tally={"applied": 303})


def test_a_single_worker_outlives_the_shell_that_started_it(group, sender):
    """It has no supervisor, so its parent's end is nobody's business (`nohup`, `&`, a closed terminal)."""
    run = group.start(shell=True)
    group.applies(sender)
    [(worker,)] = group.ask("SELECT DISTINCT owner_pid FROM ledger.lane")
    assert worker != run.pid
    run.send(signal.SIGKILL)
    load(sender, 30)
    group.applies(sender)
    os.kill(worker, signal.SIGTERM)
    wait_for("its end", lambda: not state(worker), STOP_BUDGET_S)
    group.prove(sender, tally={"applied": 33})


def test_what_halts_one_halts_all_with_its_error(group, sender):
    """A fault that would stop the others too isn't retried: exit 4, the cause and the one next step."""
    run = group.start("--workers", "2")
    group.applies(sender)
    group.ask("UPDATE ledger.lane SET topic_id = 'another' RETURNING 1")
    group.cut_off_workers()
    load(sender, 3)
    assert run.ended() == 4
    error = run.result()["error"]
    assert error["code"] == "SL-GRP-004"
    assert "deleted and made again" in error["message"]
    assert error["remedy"]
    assert run.said("halted", code="SL-GRP-004")
    assert not run.said("worker died"), run.logged


def test_a_worker_forgets_what_no_cache_needs(group, sender, monkeypatch):
    """While it works, changes of stock that are older than it keeps them; what is left is still proved."""
    monkeypatch.setattr("consumer.worker.PRUNE_INTERVAL_S", 0)
    monkeypatch.setattr(stock_delta, "KEEP", timedelta(0))
    group.catch_up()  # else the other lanes' purchases may come before the shop's set-up
    load(sender)
    group.catch_up()
    [(horizon, left)] = group.ask(
        "SELECT position, (SELECT count(*) FROM ledger.stock_delta) FROM ledger.stock_horizon"
    )
    assert horizon > 0
    assert left <= 1
    group.prove(sender, tally={"applied": 3003})
