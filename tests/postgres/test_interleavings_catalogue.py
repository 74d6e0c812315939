"""What a batch read but couldn't lock: users, and goods that don't exist. The head's counter guards it."""

import pytest

from ledger import batch
from ledger.domain.commands import (
    AnyCommand,
    CancelPurchase,
    CloseUser,
    ListGoods,
    PurchaseGoods,
    ReceiveStock,
    RegisterUser,
)
from ledger.domain.outcome import Outcome
from ledger.errors import Contended, UnsafeSettings
from tests.support.batches import Hole, says
from tests.support.stepper import Stepper

BUY = PurchaseGoods(user_id="anna", goods_id="tea", quantity=1)
NEXT_GENERATION = (
    "CREATE TABLE ledger.stock_{0} PARTITION OF ledger.stock FOR VALUES IN ({0})",
    "INSERT INTO ledger.stock SELECT {0}, goods_id, on_hand, version FROM ledger.stock_{1}",
)
TOO_MANY = 40  # exchanges with the server in one batch
OPEN_SHOP: list[AnyCommand] = [
    RegisterUser(user_id="anna"),
    RegisterUser(user_id="otto"),
    ListGoods(goods_id="tea"),
    ReceiveStock(goods_id="tea", quantity=1000),
]


@pytest.fixture
def stepper(ledger_dsn):
    """Two users, plenty of tea; every test ends with the judge."""
    with Stepper(ledger_dsn) as stepper:
        stepper.session().do(9, *(says(f"open-{n}", command) for n, command in enumerate(OPEN_SHOP)))
        yield stepper
        stepper.judge()


def stored(stepper: Stepper, partition: int) -> int:
    """How many entries the lane has in the journal, and that its offset tells the same."""
    entries = stepper.ask("SELECT count(*) FROM ledger.journal WHERE partition = %s", partition)[0][0]
    offset = stepper.ask("SELECT next_offset FROM ledger.lane WHERE partition = %s", partition)[0][0]
    assert bool(entries) == bool(offset)
    return int(entries)


def test_a_moved_catalogue_raises_so_that_the_commit_behind_it_is_not_executed(stepper):
    """Seal raises LG001, the COMMIT sent with it does nothing, the head is free, and after a second look
    that finds nothing changed the same transaction is sealed with the new counter."""
    session, other, third = stepper.session(), stepper.session(), stepper.session(lock_timeout_ms=1000)
    elsewhere: list[AnyCommand] = [
        RegisterUser(user_id="nina"),
        CloseUser(user_id="otto"),
        ListGoods(goods_id="cup"),
    ]
    for n, command in enumerate(elsewhere):
        run = session.start(n, says(f"p{n}", BUY), halt=["seal"])
        run.reaches("seal")
        other.do(8, says(f"elsewhere{n}", command))
        run.go("moved")
        run.reaches("moved")
        assert stored(stepper, n) == 0
        state = stepper.ask("SELECT state FROM pg_stat_activity WHERE pid = %s", session.pid)
        assert state == [("idle in transaction (aborted)",)]
        third.do(7, says(f"third{n}", ListGoods(goods_id=f"jug{n}")), Hole(3))
        assert run.result().outcomes == [Outcome.APPLIED]
        assert run.steps.count("sealing") == 2
        assert stored(stepper, n) == 1


CHANGES: dict[str, tuple[AnyCommand, AnyCommand, tuple[str | None, str | None]]] = {
    "a buyer registers": (
        PurchaseGoods(user_id="nina", goods_id="tea", quantity=1),
        RegisterUser(user_id="nina"),
        ("user_not_found", None),
    ),
    "the buyer is closed": (BUY, CloseUser(user_id="anna"), (None, "user_closed")),
    "who is to be closed registers": (
        CloseUser(user_id="nina"),
        RegisterUser(user_id="nina"),
        ("user_not_found", None),
    ),
    "the goods to fill are listed": (
        ReceiveStock(goods_id="cup", quantity=5),
        ListGoods(goods_id="cup"),
        ("goods_not_found", None),
    ),
    "the goods to buy are listed": (
        PurchaseGoods(user_id="anna", goods_id="cup", quantity=1),
        ListGoods(goods_id="cup"),
        ("goods_not_found", "insufficient_stock"),
    ),
    "the goods of a cancelled purchase are listed": (
        CancelPurchase(goods_id="cup", purchase_id="p"),
        ListGoods(goods_id="cup"),
        ("goods_not_found", "purchase_not_found"),
    ),
}


def test_a_decision_on_something_that_changed_is_never_stored(stepper):
    """Wherever the change commits, the batch is decided either wholly before or wholly after it: up to the
    seal the stored reason is the later one, whether at once or by one retry."""
    session, other = stepper.session(), stepper.session()
    for number, (change, (mine, elsewhere, (before, after))) in enumerate(CHANGES.items()):
        rounds, retried = range(number * TOO_MANY, (number + 1) * TOO_MANY), 0
        other.do(1, *(says(f"anna{n}", RegisterUser(user_id=f"anna{n}")) for n in rounds))
        for n in rounds:
            answers = n - rounds[0] + 1
            run = session.start(0, says(f"mine{n}", of_round(n, mine)), halt=[f"answer {answers}"])
            if run.stands() == "ended":
                break
            sealed = "asked" in run.steps
            other.do(1, says(f"elsewhere{n}", of_round(n, elsewhere)))
            ended = run.end()
            if isinstance(ended, Contended):
                assert "moved" in run.steps
                session.apply(run.batch)
                retried += 1
            reason = stepper.ask("SELECT reason FROM ledger.outcomes WHERE id = %s", f"mine{n}")
            assert reason == [(before if sealed else after,)], (change, run.steps, ended)
        assert 0 < retried < answers < TOO_MANY


def of_round(n: int, command: AnyCommand) -> AnyCommand:
    """The same about users and goods of their own, save for the tea."""
    fields = command.model_dump()
    ids = {name: f"{fields[name]}{n}" for name in ("user_id", "goods_id") if fields.get(name, "tea") != "tea"}
    return type(command)(**fields | ids)


def test_registrations_without_end_starve_nobody(stepper):
    """A batch that finds the catalogue moved in every round holds the head first, and gets through."""
    run = stepper.session().start(0, says("p", BUY), halt=["sealing"])
    registrar, n = stepper.session(), 0
    while True:
        run.reaches("sealing")
        other = registrar.start(1, says(f"r{n}", RegisterUser(user_id=f"user{n}")))
        if other.stands() == "blocked":
            break
        other.result()
        n += 1
        run.go("sealing")
    assert n == batch.SEAL_ROUNDS
    assert other.blockers() == [run.session.pid]
    assert run.result().position < other.result().position
    assert run.steps.count("moved") == n
    assert "head locked" in run.steps


def test_a_change_between_any_two_statements_of_a_later_round_is_seen(stepper):
    """That earlier looks found nothing changed proves nothing: a later change raises again, and the last
    look is taken under the head's lock, when a change has to wait."""
    session, other = stepper.session(), stepper.session()
    other.do(1, *(says(f"anna{n}", RegisterUser(user_id=f"anna{n}")) for n in range(3 * TOO_MANY)))
    for rounds in range(1, batch.SEAL_ROUNDS + 1):
        last = rounds == batch.SEAL_ROUNDS
        for answers in range(1, TOO_MANY):
            n = rounds * TOO_MANY + answers
            buy = PurchaseGoods(user_id=f"anna{n}", goods_id="tea", quantity=1)
            run = session.start(0, says(f"p{n}", buy), halt=["sealing"])
            for turn in range(1, rounds + 1):
                run.reaches("sealing")
                other.do(1, says(f"r{n}-{turn}", RegisterUser(user_id=f"user{n}-{turn}")))
                run.go("moved" if turn == rounds else "sealing")
            run.reaches("moved")
            run.go(f"answer {run.answers + answers}")
            sealed = run.stands() == "ended" or run.steps.count("asked") > rounds
            closing = other.start(1, says(f"c{n}", CloseUser(user_id=f"anna{n}")))
            if sealed or closing.stands() == "blocked":
                break
            closing.result()
            assert isinstance(run.fails(), Contended), (rounds, run.steps)
            assert session.apply(run.batch).outcomes == [Outcome.REJECTED]
        assert answers > 4, "not one change between the statements"
        assert sealed != last, "a change has to wait in the last round, and only there"
        assert run.result().position < closing.result().position


def test_a_batch_that_read_nothing_unlocked_is_sealed_whatever_the_catalogue_does(stepper):
    """Stock arriving for listed goods reads no user and no missing row: nothing to compare."""
    run = stepper.session().start(0, says("r", ReceiveStock(goods_id="tea", quantity=1)), halt=["seal"])
    run.reaches("seal")
    stepper.session().do(1, says("nina", RegisterUser(user_id="nina")))
    assert run.result().outcomes == [Outcome.APPLIED]
    assert "moved" not in run.steps


def test_a_swapped_stock_generation_rolls_the_batch_back(stepper):
    """LG002: what was decided on the old generation's rows isn't stored; the retry works on the new ones.
    So with and without something to compare, and in a later round."""
    session, other = stepper.session(), stepper.session()
    cases: list[tuple[AnyCommand, bool]] = [
        (BUY, False),
        (BUY, True),
        (ReceiveStock(goods_id="tea", quantity=1), False),
    ]
    for generation, (command, later) in enumerate(cases, 2):
        for statement in NEXT_GENERATION:
            stepper.watch.execute(statement.format(generation, generation - 1))
        run = session.start(0, says(f"p{generation}", command), halt=["seal"])
        run.reaches("seal")
        if later:
            other.do(1, says(f"u{generation}", RegisterUser(user_id=f"u{generation}")))
            run.go("moved")
            run.reaches("moved")
        stepper.watch.execute(f"UPDATE ledger.head SET stock_generation = {generation}")
        failed = run.fails()
        assert isinstance(failed, Contended)
        assert failed.sqlstate == "LG002"
        assert session.apply(run.batch).outcomes == [Outcome.APPLIED]
        versions = stepper.ask("SELECT version FROM ledger.stock ORDER BY generation")
        assert versions[-2:] == [(generation,), (generation + 1,)]


def test_a_session_that_would_not_be_durable_writes_nothing(stepper):
    """`synchronous_commit` off, which any role may set: seal refuses, and the worker stops."""
    session = stepper.session()
    session.conn.execute("SET synchronous_commit = off")
    run = session.start(0, says("p", BUY))
    assert isinstance(run.fails(), UnsafeSettings)
    assert stored(stepper, 0) == 0
    session.conn.execute("SET synchronous_commit = on")
    assert session.apply(run.batch).outcomes == [Outcome.APPLIED]


def test_a_batch_that_was_overtaken_on_a_new_stock_generation_is_a_retry(stepper):
    """Who locked the old generation's row doesn't keep out who locks the new one's: the event that the
    other one wrote first is a race here, no defect."""
    for statement in NEXT_GENERATION:
        stepper.watch.execute(statement.format(2, 1))
    run = stepper.session().start(0, says("p", BUY), halt=["load"])
    run.reaches("load")
    stepper.watch.execute("UPDATE ledger.head SET stock_generation = 2")
    stepper.session().do(1, says("q", BUY))
    assert isinstance(run.fails(), Contended)
    assert run.session.apply(run.batch).outcomes == [Outcome.APPLIED]
