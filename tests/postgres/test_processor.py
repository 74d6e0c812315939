"""A batch until it is done: poison is isolated, its neighbours are applied once, a lost race is run again."""

from collections import Counter
from itertools import chain, combinations

import pytest

import ledger.batch_state
from consumer import processor
from consumer.log import logger
from consumer.processor import ATTEMPTS_MAX, PARKS_IN_A_ROW_MAX, Processor
from ledger.batch import apply_batch
from ledger.domain.commands import ListGoods, MessageKey, PurchaseGoods, ReceiveStock, RegisterUser
from ledger.domain.decider import decide
from ledger.domain.delivery import Batch
from ledger.domain.events import GoodsPurchased
from ledger.domain.outcome import Outcome
from ledger.errors import Contended, Fenced, Park, Stop, Unavailable
from ledger.store.connection.database import Budgets, connect
from ledger.verify.run import verify
from tests.support.batches import Hole, Lanes, says

DECIDE = decide
POISON = "poison"
APPLIED, DEAD = Outcome.APPLIED, Outcome.DEAD
SETUP = (
    says("user", RegisterUser(user_id="anna")),
    says("goods", ListGoods(goods_id="tea")),
    says("stock", ReceiveStock(goods_id="tea", quantity=1_000_000)),
)


@pytest.fixture
def conn(ledger_dsn):
    conn = connect(ledger_dsn, purpose="test", budgets=Budgets(lock_timeout_ms=100))
    yield conn
    conn.close()


@pytest.fixture
def lanes(conn):
    lanes = Lanes(conn)
    lanes.apply(100, *SETUP)
    return lanes


def raises(state, request):
    """A fault of ours in `decide`."""
    if POISON in request.key.id:
        raise ZeroDivisionError("a bug\0")
    return DECIDE(state, request)


def oversells(state, request):
    """A fault of ours that only the database's CHECK finds."""
    if POISON in request.key.id:
        return GoodsPurchased(user_id="anna", goods_id="tea", quantity=10**9)
    return DECIDE(state, request)


FAULTS = {"bug": raises, "sqlstate_23514": oversells}


@pytest.fixture(params=FAULTS)
def code(request, monkeypatch):
    """The dead letter's code of a record whose id has `poison` in it."""
    monkeypatch.setattr(ledger.batch_state, "decide", FAULTS[request.param])
    return request.param


def buy(name):
    return says(name, PurchaseGoods(user_id="anna", goods_id="tea", quantity=1))


def records(name, size, poisoned):
    return [buy(f"{name}-{n}-{POISON if n in poisoned else 'good'}") for n in range(size)]


def outcomes_of(conn, partition):
    """What became of the lane's records, in offset order."""
    rows = conn.execute(
        """SELECT "offset", outcome FROM ledger.outcomes WHERE partition = %(lane)s
           UNION ALL SELECT "offset", 'dead' FROM ledger.dead_letters WHERE partition = %(lane)s
           ORDER BY 1""",
        {"lane": partition},
    )
    return [Outcome(outcome) for _, outcome in rows]


def require_sound(conn, lanes):
    checks = list(verify(conn, deliveries=lanes.deliveries))
    assert [check for check in checks if not check.ok] == []


def apply(made, lanes, batch):
    """Apply it and keep what was delivered, for `verify`."""
    lanes.delivered.setdefault(batch.lane, {}).update({d.offset: d for d in batch.deliveries})
    made.apply(batch, lanes.claims[batch.lane.partition].epoch)


def cases():
    """Every set of positions up to batches of 5; every single position, and all, up to batches of 8."""
    for size in range(1, 9):
        every = range(size)
        sets = chain.from_iterable(combinations(every, n) for n in range(1, size + 1))
        yield from ((size, set(s)) for s in sets if size <= 5 or len(s) in (1, size))


def test_poison_at_every_position_is_parked_and_its_neighbours_are_applied_once(conn, lanes, code):
    """One record that can't be applied costs nobody else anything, wherever it stands and however many."""
    for lane, (size, poisoned) in enumerate(cases()):
        batch = lanes.batch(lane, *records(f"b{lane}", size, poisoned))
        made = Processor(conn, logger())
        apply(made, lanes, batch)
        expected = [DEAD if n in poisoned else APPLIED for n in range(size)]
        assert outcomes_of(conn, lane) == expected, (size, poisoned)
        assert made.counts == Counter(expected)
    assert set(conn.execute("SELECT code FROM ledger.dead_letters").fetchall()) == {(code,)}
    require_sound(conn, lanes)


def test_the_order_of_a_lane_is_kept_around_poison(conn, lanes, code):
    """The left half commits first: versions of a stream rise with the offsets."""
    apply(Processor(conn, logger()), lanes, lanes.batch(0, *records("p", 16, {3, 7, 8, 15})))
    rows = conn.execute(
        """SELECT o."offset" FROM ledger.events e JOIN ledger.outcomes o USING (source, id)
           WHERE o.partition = 0 ORDER BY e.version"""
    ).fetchall()
    assert [offset for (offset,) in rows] == [n for n in range(16) if n not in (3, 7, 8, 15)]


def test_gaps_around_poison_are_recorded_once(conn, lanes, code):
    """A hole beside a record that is parked stays a gap, and the entries tile the offsets."""
    poison, good = buy(f"x-{POISON}"), buy("y")
    items = (Hole(2), poison, Hole(1), good, Hole(3), buy(f"z-{POISON}"), Hole(1))
    apply(Processor(conn, logger()), lanes, lanes.batch(0, *items))
    assert outcomes_of(conn, 0) == [DEAD, APPLIED, DEAD]
    rows = conn.execute("SELECT first_offset, next_offset FROM ledger.gaps ORDER BY 1").fetchall()
    assert rows == [(0, 2), (3, 4), (5, 8), (9, 10)]
    require_sound(conn, lanes)


def test_a_parked_record_is_kept_byte_for_byte_and_its_id_is_free(conn, lanes, monkeypatch):
    """It is never registered: sent again once the fault is mended, it is applied."""
    monkeypatch.setattr(ledger.batch_state, "decide", raises)
    record = buy(f"p-{POISON}")
    apply(Processor(conn, logger()), lanes, lanes.batch(0, record))
    [(key, value, detail)] = conn.execute("SELECT key, value, detail FROM ledger.dead_letters").fetchall()
    assert (key, value) == (record.key, record.value)
    assert "ZeroDivisionError" in detail
    monkeypatch.undo()
    lanes.claim(0)
    apply(Processor(conn, logger()), lanes, lanes.batch(0, record))
    assert sorted(outcomes_of(conn, 0)) == [APPLIED, DEAD]
    require_sound(conn, lanes)


def test_ten_parks_in_a_row_halt(conn, lanes, code):
    """So many at once are a fault of ours: it stops before the topic is turned into dead letters."""
    batch = lanes.batch(0, *records("p", 30, range(30)))
    with pytest.raises(Stop, match=f"{PARKS_IN_A_ROW_MAX} records in a row"):
        apply(Processor(conn, logger()), lanes, batch)
    assert outcomes_of(conn, 0) == [DEAD] * PARKS_IN_A_ROW_MAX


def test_an_applied_command_between_parks_means_go_on(conn, lanes, code):
    """Many poison records among good ones are parked, all of them, over many batches."""
    made = Processor(conn, logger())
    for _ in range(3):
        lanes.claim(0)
        apply(made, lanes, lanes.batch(0, *records(f"p{_}", 16, set(range(16)) - {7, 15})))
    assert Counter(outcomes_of(conn, 0)) == {DEAD: 42, APPLIED: 6}


def test_a_batch_waits_out_whoever_holds_its_goods(conn, lanes, ledger_dsn, monkeypatch):
    """A lock timeout is no lost race: tried again until the other one is done, then applied once."""
    other = connect(ledger_dsn, purpose="test")
    other.execute("BEGIN")
    other.execute("SELECT FROM ledger.stock FOR UPDATE")
    tries = []

    def applies(*arguments):
        tries.append(1)
        if len(tries) > ATTEMPTS_MAX + 2:
            other.execute("ROLLBACK")
        return apply_batch(*arguments)

    monkeypatch.setattr(processor, "apply_batch", applies)
    made = Processor(conn, logger())
    apply(made, lanes, lanes.batch(0, buy("p")))
    assert (len(tries), made.counts) == (ATTEMPTS_MAX + 3, {APPLIED: 1})
    require_sound(conn, lanes)
    other.close()


def test_a_gap_that_cant_be_written_halts(conn, lanes, monkeypatch):
    """There is no record to park: neither an endless search for one nor a bug."""

    def refuses(*_):
        raise Park("value too long", reason="sqlstate_22001")

    monkeypatch.setattr(processor, "apply_batch", refuses)
    with pytest.raises(Stop, match="can't move over a gap: value too long"):
        apply(Processor(conn, logger()), lanes, lanes.batch(0, Hole(3)))


def test_a_race_that_is_lost_for_ever_halts(conn, lanes, monkeypatch):
    """Retries are bounded, and end with what to look for."""
    tries = []

    def loses(*_):
        tries.append(1)
        raise Contended("deadlock detected", sqlstate="40P01")

    monkeypatch.setattr(processor, "apply_batch", loses)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(Stop, match=f"lost {ATTEMPTS_MAX} races"):
        apply(Processor(conn, logger()), lanes, lanes.batch(0, buy("p")))
    assert len(tries) == ATTEMPTS_MAX
    assert outcomes_of(conn, 0) == []


def test_a_batch_that_took_effect_already_is_not_tried_again(conn, lanes):
    """An earlier commit of unknown fate did happen: the lane is to be read anew, nothing is written."""
    batch = lanes.batch(0, buy("p"), buy("q"))
    made = Processor(conn, logger())
    apply(made, lanes, batch)
    with pytest.raises(Unavailable, match="an earlier commit took effect"):
        made.apply(batch, lanes.claims[0].epoch)
    assert outcomes_of(conn, 0) == [APPLIED, APPLIED]


def test_an_older_owner_is_fenced_even_while_it_parks(conn, lanes, code):
    """Once the lane has a newer owner, neither a batch nor a half of it nor a dead letter is written."""
    batch = lanes.batch(0, *records("p", 4, {1}))
    epoch = lanes.claims[0].epoch
    lanes.claim(0)
    with pytest.raises(Fenced):
        Processor(conn, logger()).apply(batch, epoch)
    assert outcomes_of(conn, 0) == []


def test_an_owner_is_fenced_between_the_halves(conn, lanes, code, monkeypatch):
    """A newer owner that comes between two halves goes on where the first one ended: nothing twice."""
    batch: Batch = lanes.batch(0, *records("p", 4, {3}))
    made = Processor(conn, logger())
    done = []

    def then_loses(*args):
        result = apply_batch(*args)
        done.append(result)
        lanes.claim(0)
        return result

    monkeypatch.setattr(processor, "apply_batch", then_loses)
    with pytest.raises(Fenced):
        made.apply(batch, lanes.claims[0].epoch)
    monkeypatch.setattr(processor, "apply_batch", apply_batch)
    assert outcomes_of(conn, 0) == [APPLIED, APPLIED]
    assert lanes.claims[0].next_offset == 2
    rest = batch._replace(first_offset=2, deliveries=batch.deliveries[2:])
    made.apply(rest, lanes.claims[0].epoch)
    assert outcomes_of(conn, 0) == [APPLIED, APPLIED, APPLIED, DEAD]


def test_a_duplicate_of_a_poison_record_meets_what_became_of_its_neighbours(conn, lanes, code):
    """Repeats inside one batch are met however it is cut: the first good one counts, poison never does."""
    batch = lanes.batch(0, buy("p"), buy(f"x-{POISON}"), buy("p"), buy(f"x-{POISON}"), buy("p"))
    apply(Processor(conn, logger()), lanes, batch)
    assert conn.execute("SELECT sum(duplicate), sum(dead) FROM ledger.journal_entries").fetchone() == (2, 2)
    assert len([o for o in outcomes_of(conn, 0) if o == APPLIED]) == 1
    assert MessageKey("shop", "p") == batch.deliveries[0].content.key
