"""Who owns a lane: frozen owners, their successors, zombies, and commits whose answer is lost."""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from itertools import product
from pathlib import Path

import pytest

from consumer.assignment import take_over
from ledger.domain.commands import ListGoods, PurchaseGoods, ReceiveStock, RegisterUser
from ledger.domain.delivery import Lane, Record
from ledger.domain.outcome import Outcome
from ledger.errors import Contended, Fenced, Unavailable
from ledger.store.connection.database import Connection
from ledger.store.tables import lane
from tests.support.batches import TOPIC, says
from tests.support.stepper import FENCE, PATIENCE_S, ApplyRun, Session, Stepper

ZERO = Lane(TOPIC, 0)
ROOT = Path(__file__).parents[2]
HELD = (FENCE, "dedup", "load", "append", "project", "seal", "sealing")
"""Where a batch holds its lane, between two statements."""
OPEN_SHOP = [
    says("anna", RegisterUser(user_id="anna")),
    *(says(f"list-{goods}", ListGoods(goods_id=goods)) for goods in ("tea", "cup")),
    *(says(f"fill-{goods}", ReceiveStock(goods_id=goods, quantity=99)) for goods in ("tea", "cup")),
]
CHILD = """
import sys
from tests.postgres import test_interleavings_owners as owners
from tests.support.stepper import Stepper
with Stepper(sys.argv[1]) as stepper:
    owners.child(stepper.session())
"""


@pytest.fixture
def stepper(ledger_dsn):
    """A user, tea and cups; every test ends with the judge."""
    with Stepper(ledger_dsn) as stepper:
        stepper.session().do(99, *OPEN_SHOP)
        yield stepper
        stepper.judge()


def buy(n: int = 0) -> Record:
    return says(f"p{n}", PurchaseGoods(user_id="anna", goods_id="tea", quantity=1))


def other_lane_works(stepper: Stepper) -> None:
    """A lane that shares no goods seals at once."""
    session = stepper.session(lock_timeout_ms=500)
    record = says(f"other{session.pid}", PurchaseGoods(user_id="anna", goods_id="cup", quantity=1))
    assert session.do(session.pid, record).outcomes == [Outcome.APPLIED]


def frozen(stepper: Stepper, step: str, partition: int = 0, **budgets: int) -> ApplyRun:
    """A batch of the lane whose client stopped at the step."""
    run = stepper.session(**budgets).start(partition, buy(partition), halt=[step])
    run.reaches(step)
    return run


def wait_until(truth) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not truth():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_the_owner_that_froze_in_its_transaction_is_ended_by_its_successor(stepper):
    """Other lanes go on. The successor waits for its lock timeout, ends the recorded backend, claims with
    a higher epoch and applies the batch; the zombie, when it thaws, fails and changes nothing."""
    for n, step in enumerate(HELD):
        zombie = frozen(stepper, step, n)
        other_lane_works(stepper)
        successor = stepper.session(lock_timeout_ms=100)
        with pytest.raises(Contended) as waited:
            successor.lanes.claim(n)
        assert waited.value.sqlstate == "55P03"
        assert lane.terminate_owner(successor.conn, Lane(TOPIC, n))
        assert successor.lanes.claim(n)[:2] == (0, 2)
        assert isinstance(zombie.fails(), Unavailable)
        assert zombie.session.conn.closed
        assert successor.apply(zombie.batch).outcomes == [Outcome.APPLIED]
        assert stepper.ask("SELECT epoch FROM ledger.journal WHERE partition = %s", n) == [(2,)]


def test_an_assignment_takes_a_frozen_lane_over_by_itself(stepper):
    """`take_over` waits out one lock timeout, ends the frozen owner, and has the lane at the second try."""
    zombie = frozen(stepper, "seal")
    successor = stepper.session(lock_timeout_ms=100)
    assert take_over(successor.conn, ZERO)[:2] == (0, 2)
    assert isinstance(zombie.fails(), Unavailable)


@pytest.mark.parametrize("wrong", ["backend_start = backend_start - interval '1 us'", "backend_pid = {}"])
def test_a_backend_that_is_not_surely_the_owners_is_left_alone(stepper, wrong):
    """Pid and start must both match: a pid alone may be somebody else's by now."""
    owner, bystander = stepper.session(), stepper.session()
    owner.lanes.claim(0)
    # Nobody can write this (`name_owner`); it is what stands there once the system gave a pid out again.
    stepper.watch.execute("ALTER TABLE ledger.lane DISABLE TRIGGER name_owner")
    stepper.watch.execute("UPDATE ledger.lane SET " + wrong.format(bystander.pid) + " WHERE partition = 0")
    stepper.watch.execute("ALTER TABLE ledger.lane ENABLE TRIGGER name_owner")
    run = owner.start(0, buy(), halt=["seal"])
    run.reaches("seal")
    assert not lane.terminate_owner(stepper.session().conn, ZERO)
    assert run.result().outcomes == [Outcome.APPLIED]
    assert stepper.ask("SELECT pid FROM pg_stat_activity WHERE pid = %s", bystander.pid)


def test_an_owner_never_ends_itself_nor_one_that_is_gone(stepper):
    """`terminate_owner` finds nobody where the recorded session is ours, ended, or was never recorded."""
    owner = stepper.session()
    assert not lane.terminate_owner(stepper.watch, ZERO)
    owner.lanes.claim(0)
    assert not lane.terminate_owner(owner.conn, ZERO)
    owner.terminate()
    assert not lane.terminate_owner(stepper.watch, ZERO)


@pytest.mark.parametrize("budget", ["idle_in_transaction_timeout_ms", "transaction_timeout_ms"])
def test_postgres_itself_ends_an_owner_that_froze(stepper, budget):
    """With nobody to terminate it, a frozen transaction ends by its own session's budget."""
    if budget == "transaction_timeout_ms" and stepper.watch.info.server_version < 170_000:
        pytest.skip("PostgreSQL has transaction_timeout from version 17 on")
    zombie = frozen(stepper, "seal", **{budget: 200})
    successor = stepper.session()
    assert successor.lanes.claim(0)[:2] == (0, 2)
    assert isinstance(zombie.fails(), Unavailable)
    assert successor.apply(zombie.batch).outcomes == [Outcome.APPLIED]


def test_an_owner_that_froze_while_sealing_holds_nothing(stepper):
    """Seal and COMMIT leave in one message: the transaction ends by itself, and the head is free."""
    sleeper = frozen(stepper, "asked", idle_in_transaction_timeout_ms=0)
    wait_until(lambda: stepper.ask("SELECT 1 FROM ledger.journal WHERE partition = 0"))
    other_lane_works(stepper)
    successor = stepper.session(lock_timeout_ms=100)
    assert successor.lanes.claim(0)[:2] == (1, 2)
    assert sleeper.result().outcomes == [Outcome.APPLIED]
    assert isinstance(sleeper.session.start(0, buy()).fails(), Contended)
    assert successor.do(0, buy()).outcomes == [Outcome.DUPLICATE]


def test_seal_and_commit_are_one_exchange_with_the_server(stepper):
    """There is no moment at which a client has sent its seal but not yet the COMMIT behind it."""
    run = frozen(stepper, "sealing")
    before = run.answers
    run.result()
    assert run.answers == before + 1


def test_an_owner_that_froze_after_its_commit_holds_nothing(stepper):
    """Not one lock, not a transaction: the lane can be claimed at once, behind the batch."""
    sleeper = frozen(stepper, "committed")
    held = "SELECT locktype FROM pg_locks WHERE pid = %s"
    assert stepper.ask(held, sleeper.session.pid) == []
    assert stepper.session(lock_timeout_ms=100).lanes.claim(0)[:2] == (1, 2)
    assert sleeper.result().outcomes == [Outcome.APPLIED]


@pytest.mark.parametrize("step", ["seal", "asked"])
def test_a_stopped_process(stepper, step):
    """The same with a real SIGSTOP: before the seal it holds its lane until it is ended, and fails when it
    continues; stopped behind its seal it has committed, and learns so."""
    command = [sys.executable, "-c", CHILD, stepper.dsn, step]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            delivered = (
                stepper.session().lanes.batch(1, buy()).deliveries
            )  # as the process made them for lane 0
            stepper.delivered[ZERO] = {d.offset: d for d in delivered}
            successor = stepper.session(lock_timeout_ms=100)
            if step == "seal":
                with pytest.raises(Contended):
                    successor.lanes.claim(0)
                assert lane.terminate_owner(successor.conn, ZERO)
            else:
                wait_until(lambda: stepper.ask("SELECT 1 FROM ledger.journal WHERE partition = 0"))
            other_lane_works(stepper)
            claimed = successor.lanes.claim(0)[:2]
            process.send_signal(signal.SIGCONT)
            word, _ = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    ended = {"seal": ("Unavailable", (0, 2)), "asked": ("Applied", (1, 2))}
    assert (word.decode().strip(), claimed) == ended[step]


def child(session: Session) -> None:
    """What the stopped process does: apply one batch, stop itself where told, say how it ended."""
    # to this very thread: a signal to the process may let it run on for a moment
    hooks = {sys.argv[2]: lambda: signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)}
    print(type(session.start(0, buy(), hooks=hooks).end()).__name__)


@pytest.mark.parametrize("applied", [False, True], ids=["", "after its successor's batch"])
def test_a_zombie_that_begins_late_writes_nothing(stepper, applied):
    """With the old epoch the compare-and-set matches no row, whatever the offset; `resume` says Fenced."""
    zombie = stepper.session()
    batch = zombie.batch(0, buy())
    successor = stepper.session()
    successor.lanes.claim(0)
    if applied:
        successor.apply(batch)
    run = zombie.again(batch)
    assert isinstance(run.fails(), Contended)
    assert run.steps[-1] == "answer 4", "it went on after its fence: three questions, ROLLBACK"
    with pytest.raises(Fenced):
        lane.resume(zombie.conn, ZERO, zombie.lanes.claims[0].epoch)
    if not applied:
        successor.apply(batch)


def test_a_batch_that_does_not_begin_where_its_lane_stands_is_refused(stepper):
    """Not ahead of it, which would skip records, nor behind it: it gets no further than its fence."""
    session = stepper.session()
    batch = session.batch(0, buy(0), buy(1), buy(2))
    session.apply(batch._replace(next_offset=1, deliveries=batch.deliveries[:1]))
    for first in (2, 0):
        run = session.again(batch._replace(first_offset=first, deliveries=batch.deliveries[first:]))
        assert isinstance(run.fails(), Contended)
        assert FENCE not in run.steps
        assert "dedup" not in run.steps
    session.apply(batch._replace(first_offset=1, deliveries=batch.deliveries[1:]))


def test_a_claim_waits_for_what_the_last_owner_is_committing(stepper):
    """The new owner's offset is behind the old one's last batch, or before it if that one failed."""
    for n, (step, commits) in enumerate(product(HELD, (True, False))):
        owner, successor = frozen(stepper, step, n), stepper.session()
        claim = successor.begin(partial(successor.lanes.claim, n))
        assert claim.stands() == "blocked"
        assert claim.blockers() == [owner.session.pid]
        if commits:
            owner.result()
            assert claim.result()[:2] == (1, 2)
        else:
            owner.session.terminate()
            assert claim.result()[:2] == (0, 2)
            assert isinstance(owner.fails(), Unavailable)
            successor.apply(owner.batch)


def commit_in_flight(stepper: Stepper) -> tuple[ApplyRun, int, Connection]:
    """A client that was cut off while its COMMIT waits for the head, its backend, and who holds the head."""
    head = stepper.connect()
    head.execute("BEGIN")
    head.execute("SELECT FROM ledger.head FOR UPDATE")
    run = stepper.session().start(0, buy())
    assert run.stands() == "blocked"
    backend = run.session.pid
    run.session.cut()
    assert isinstance(run.fails(), Unavailable)
    run.session.reconnect()
    return run, backend, head


def test_a_commit_whose_answer_was_lost_is_found_in_the_lane(stepper):
    """The same batch on a new connection matches no row and writes nothing; `resume` has the new offset."""
    run, backend, head = commit_in_flight(stepper)
    head.execute("ROLLBACK")
    wait_until(lambda: not stepper.ask("SELECT 1 FROM pg_stat_activity WHERE pid = %s", backend))
    assert isinstance(run.session.again(run.batch).fails(), Contended)
    assert lane.resume(run.session.conn, ZERO, 1) == 1


@pytest.mark.parametrize("commits", [True, False], ids=["commits", "rolls back"])
@pytest.mark.parametrize("by", ["resume", "claim", "the same batch again"])
def test_who_takes_up_a_lane_waits_for_its_commit_in_flight(stepper, by, commits):
    """The client is gone, its COMMIT still runs: a plain read has the old offset, but neither the owner's
    `resume`, nor another's `claim`, nor the batch tried again answers before the commit's fate is known."""
    run, backend, head = commit_in_flight(stepper)
    assert [(row.partition, row.next_offset) for row in lane.read_all(stepper.watch)] == [(0, 0), (99, 5)]
    owner, another = run.session, stepper.session()
    works = {
        "resume": lambda: owner.begin(lambda: lane.resume(owner.conn, ZERO, 1)),
        "claim": lambda: another.begin(lambda: another.lanes.claim(0).next_offset),
        "the same batch again": lambda: owner.again(run.batch),
    }
    taken_up = works[by]()
    assert taken_up.stands() == "blocked"
    assert taken_up.blockers() == [backend]
    if commits:
        head.execute("ROLLBACK")
    else:
        stepper.ask("SELECT pg_terminate_backend(%s, 5000)", backend)
        head.execute("ROLLBACK")
    if by != "the same batch again":
        assert taken_up.result() == int(commits)
    elif commits:
        assert isinstance(taken_up.fails(), Contended)
    else:
        assert taken_up.result().outcomes == [Outcome.APPLIED]


def test_resume_after_a_lost_answer_tells_who_was_fenced(stepper):
    """A new owner came while the fate was unknown: `resume` says Fenced, not an offset to go on from."""
    run, _, head = commit_in_flight(stepper)
    head.execute("ROLLBACK")
    assert stepper.session().lanes.claim(0)[:2] == (1, 2)
    with pytest.raises(Fenced):
        lane.resume(run.session.conn, ZERO, 1)
