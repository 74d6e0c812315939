"""Every fault at every step: nothing is written, or everything, and one retry applies the batch once."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import product

import psycopg
import pytest

from ledger import failpoints
from ledger.batch import Applied
from ledger.domain.commands import (
    AnyCommand,
    CancelPurchase,
    CloseUser,
    ListGoods,
    PurchaseGoods,
    ReceiveStock,
    RegisterUser,
)
from ledger.domain.delivery import Lane, Record
from ledger.domain.outcome import Outcome
from ledger.errors import Contended, Contradiction, Defect, Unavailable
from ledger.store.connection import database
from ledger.store.tables import lane
from tests.support.batches import TOPIC, Hole, says
from tests.support.stepper import FENCE, Session, Stepper

IN_TRANSACTION = [FENCE, "dedup", "load", "decide", "append", "project", "seal"]
STEPS = ["begin", *IN_TRANSACTION, "committed"]
FAIL = """
CREATE FUNCTION public.fail(code text) RETURNS void LANGUAGE plpgsql
AS $$ BEGIN RAISE EXCEPTION 'as ordered' USING ERRCODE = code; END $$
"""
TABLES = {  # how many rows `everything` adds to each
    "journal": 1,
    "event": 7,
    "processed_message": 8,
    "cancellation": 1,
    "dead_letter": 1,
    "conflict": 1,
    "gap": 1,
    "stock": 1,
    "account": 1,
}


@pytest.fixture
def stepper(ledger_dsn):
    with Stepper(ledger_dsn) as stepper:
        stepper.watch.execute(FAIL)
        yield stepper
        stepper.judge()


@pytest.fixture
def tampered(ledger_dsn):
    """A ledger that the test writes to past the program, so there is nothing to judge."""
    with Stepper(ledger_dsn) as stepper:
        yield stepper


def everything(n: int) -> list[Record | Hole]:
    """A batch that writes every table there is: all outcomes, an event on each kind of stream, a gap."""
    return [
        says(f"anna{n}", RegisterUser(user_id=f"anna{n}")),
        says(f"tea{n}", ListGoods(goods_id=f"tea{n}")),
        says(f"fill{n}", ReceiveStock(goods_id=f"tea{n}", quantity=5)),
        says(f"p{n}", PurchaseGoods(user_id=f"anna{n}", goods_id=f"tea{n}", quantity=5)),
        says(f"p{n}", PurchaseGoods(user_id=f"anna{n}", goods_id=f"tea{n}", quantity=5)),
        says(f"p{n}", PurchaseGoods(user_id=f"anna{n}", goods_id=f"tea{n}", quantity=4)),
        says(f"late{n}", PurchaseGoods(user_id=f"anna{n}", goods_id=f"tea{n}", quantity=1)),
        says(f"old{n}", PurchaseGoods(user_id="old", goods_id="old", quantity=1)),
        says(f"cancel{n}", CancelPurchase(goods_id=f"tea{n}", purchase_id=f"p{n}")),
        says(f"close{n}", CloseUser(user_id=f"anna{n}")),
        Record(None, b"no command", None),
        Hole(2),
    ]


def fill_shop(stepper: Stepper) -> None:
    commands: list[AnyCommand] = [
        RegisterUser(user_id="old"),
        ListGoods(goods_id="old"),
        ReceiveStock(goods_id="old", quantity=999),
    ]
    stepper.session().do(9, *(says(f"old-{n}", command) for n, command in enumerate(commands)))


def rows(stepper: Stepper) -> list[int]:
    return [stepper.ask(f"SELECT count(*) FROM ledger.{table}")[0][0] for table in TABLES]


def take_up(session: Session, partition: int) -> int:
    """As a worker after a retryable fault: a new connection if need be, then the lane's own word."""
    if not session.conn.closed:
        assert session.conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    for _ in range(2):
        try:
            with database.faults():
                return lane.resume(
                    session.conn, Lane(TOPIC, partition), session.lanes.claims[partition].epoch
                )
        except Unavailable:
            session.reconnect()
    raise AssertionError("a new connection doesn't work either")


def ordered(code: str) -> Callable[[Session], object]:
    return lambda session: session.conn.execute("SELECT public.fail(%s)", (code,))


def raised(session: Session) -> None:
    raise failpoints.Injected


def interrupted(session: Session) -> None:
    raise KeyboardInterrupt


FAULTS: dict[str, tuple[Callable[[Session], object], list[str], type[BaseException]]] = {
    "deadlock": (ordered("40P01"), IN_TRANSACTION, Contended),
    "serialization": (ordered("40001"), IN_TRANSACTION, Contended),
    "lock timeout": (ordered("55P03"), IN_TRANSACTION, Contended),
    "statement timeout": (ordered("57014"), IN_TRANSACTION, Contended),
    "terminated": (Session.terminate, [*STEPS, "asked"], Unavailable),
    "cut": (Session.cut, [*STEPS, "sealing"], Unavailable),
    "exception": (raised, STEPS, failpoints.Injected),
    "Ctrl-C": (interrupted, STEPS, KeyboardInterrupt),
}


def test_a_fault_at_any_step_leaves_nothing_or_everything_and_one_retry_applies_once(stepper):
    """Before the COMMIT a fault leaves no row, behind it all of them; the lane says which."""
    fill_shop(stepper)
    session, n = stepper.session(), 0
    for fault, (strike, steps, expected) in FAULTS.items():
        for step in steps:
            case, before, n = (fault, step), rows(stepper), n + 1
            run = session.start(0, *everything(n), hooks={step: partial(strike, session)})
            ended = run.end()
            offset = take_up(session, 0)
            if step in ("committed", "asked"):
                assert offset == run.batch.next_offset or step == "asked", case
                assert isinstance(ended, expected | Applied), case
            else:
                assert isinstance(ended, expected), (case, ended)
                assert offset == run.batch.first_offset, case
                assert rows(stepper) == before, case
            if offset == run.batch.first_offset:
                assert session.apply(run.batch).counts[Outcome.APPLIED] == 7, case
            claim = session.lanes.claims[0]
            session.lanes.claims[0] = claim._replace(next_offset=run.batch.next_offset)
            assert rows(stepper) == [b + grown for b, grown in zip(before, TABLES.values(), strict=True)], (
                case
            )


WAITS = {
    "fence": "SELECT FROM ledger.lane WHERE partition = 0 FOR UPDATE",
    "load": "SELECT FROM ledger.stock WHERE goods_id = 'old' FOR UPDATE",
    "append": "INSERT INTO ledger.processed_message VALUES (0, 0, 1, NULL, '', 'shop', 'anna{}')",
    "events": "INSERT INTO ledger.event VALUES (0, 0, 'user-anna{}', 1, 'x', '{{}}', 0, NULL, 'x', 'x')",
    "seal": "SELECT FROM ledger.head FOR UPDATE",
}


def test_a_wait_that_ends_in_a_fault_leaves_nothing(stepper):
    """Whatever the batch waits for: a lock timeout, a cancel and the backend's end are all retryable, and
    leave no row."""
    fill_shop(stepper)
    ways = {
        "55P03": lambda run: None,
        "57014": lambda run: stepper.ask("SELECT pg_cancel_backend(%s)", run.session.pid),
        "57P01": lambda run: run.session.terminate(),
    }
    session, holder = stepper.session(), stepper.connect()
    session.lanes.claim(0)
    for n, ((wait, lock), (state, way)) in enumerate(product(WAITS.items(), ways.items())):
        session.conn.execute(f"SET lock_timeout = {100 if state == '55P03' else 5000}")
        before = rows(stepper)
        holder.execute("BEGIN")
        holder.execute(lock.format(n))
        run = session.start(0, *everything(n))
        assert run.stands() == "blocked", wait
        way(run)
        failed = run.fails()
        assert isinstance(failed, Unavailable if state == "57P01" else Contended), (wait, failed)
        assert getattr(failed, "sqlstate", state) == state, wait
        holder.execute("ROLLBACK")
        assert take_up(session, 0) == run.batch.first_offset
        assert rows(stepper) == before, wait
        assert session.apply(run.batch).counts[Outcome.APPLIED] == 7


def test_a_deadlock_made_by_a_foreign_program_is_a_retry(stepper):
    """Somebody who locks the head and then a stock row is not ours; where it hits the batch, that retries."""
    fill_shop(stepper)
    session, foreign = stepper.session(), stepper.session()
    session.conn.execute("SET deadlock_timeout = '20ms'")
    run = session.start(0, *everything(0), halt=["seal"])
    run.reaches("seal")
    foreign.conn.execute("BEGIN")
    foreign.conn.execute("SELECT FROM ledger.head FOR UPDATE")
    lock = foreign.begin(
        lambda: foreign.conn.execute("SELECT FROM ledger.stock WHERE goods_id = 'old' FOR UPDATE")
    )
    assert lock.stands() == "blocked"
    failed = run.fails()
    assert isinstance(failed, Contended)
    assert failed.sqlstate == "40P01"
    lock.result()
    foreign.conn.execute("ROLLBACK")
    assert session.apply(run.batch).counts[Outcome.APPLIED] == 7


def test_a_swallowed_error_can_not_pass_for_a_commit(stepper):
    """A statement that failed and was ignored: the next one stops the batch; a bare COMMIT, which Postgres
    answers with ROLLBACK, is found out too."""

    def swallow():
        with suppress(psycopg.Error):
            session.conn.execute("SELECT 1 / 0")

    session = stepper.session()
    for step in IN_TRANSACTION:
        run = session.start(0, says("anna", RegisterUser(user_id="anna")), hooks={step: swallow})
        assert isinstance(run.fails(), Defect), step
    with pytest.raises(Defect, match="ROLLBACK"), database.transaction(session.conn):
        swallow()
    assert rows(stepper)[0] == 0
    assert session.apply(run.batch).outcomes == [Outcome.APPLIED]


@pytest.mark.parametrize(
    "intruder",
    [
        "INSERT INTO ledger.event VALUES (0, 0, 'goods-old', 3, 'x', '{}', 0, NULL, 'x', 'x')",
        "INSERT INTO ledger.cancellation VALUES (0, 'shop', 'p')",
    ],
    ids=["event", "cancellation"],
)
def test_a_row_that_nobody_could_have_raced_for_stops(tampered, intruder):
    """A duplicate event or cancellation of locked goods can't be a race: who met it halts."""
    fill_shop(tampered)
    session = tampered.session()
    buy = PurchaseGoods(user_id="old", goods_id="old", quantity=1)
    cancel = CancelPurchase(goods_id="old", purchase_id="p")
    tampered.watch.execute("BEGIN")
    tampered.watch.execute(intruder)
    run = session.start(0, says("p", buy), says("c", cancel), halt=["append"])
    assert run.stands() == "blocked"
    tampered.watch.execute("COMMIT")
    assert isinstance(run.fails(), Contradiction)
