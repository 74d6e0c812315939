"""Many wait, one asks: how often, for whom, until when, and what a fault does to those who wait."""

import asyncio
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from ledger.api import Ledger
from ledger.domain.commands import (
    AdjustStock,
    AnyCommand,
    CancelPurchase,
    CloseUser,
    ListGoods,
    MessageKey,
    PurchaseGoods,
    ReceiveStock,
    RegisterUser,
)
from ledger.domain.envelope import request
from ledger.domain.outcome import Outcome
from ledger.errors import HistoryChanged, ProjectionUnknown, Unavailable
from ledger.store.connection import database
from ledger.store.connection.lending import Lender
from ledger.store.reads import coverage
from ledger.store.tables import conflict, event, processed_message
from ledger.waiting import OutcomeWatcher
from tests.support.history import AWKWARD, buys, history
from tests.support.workers import wait_for

MANY = 64
PATIENCE_S = 60
NAMES = {
    processed_message.WAITED_FOR: "outcomes",
    event.PLACES: "places",
    conflict.OF_KEYS: "conflicts",
    coverage.COVERAGE: "coverage",
}


@pytest.fixture
def lanes(ledger_dsn):
    with database.connect(ledger_dsn, purpose="test") as conn:
        yield history(conn)


@pytest.fixture
def watcher(ledger_dsn, lanes):
    lender = Lender(ledger_dsn, "api")
    yield OutcomeWatcher(lender)
    lender.close()


@pytest.fixture
def asked(monkeypatch):
    """The statements of all connections from here on: name, and how many things it asks for."""
    found = []
    execute = database.Connection.execute

    def counting(self, query, params=None, **options):
        if query in NAMES:
            first = params[-1]
            found.append((NAMES[query], len(first.split("\n") if isinstance(first, str) else first)))
        elif self.info.parameter_status("application_name") == "stockledger/api":
            found.append((query, 0))
        return execute(self, query, params, **options)

    monkeypatch.setattr(database.Connection, "execute", counting)
    return found


def key(number):
    return MessageKey("shop", f"w{number}")


def purchases(number):
    return [buys(key(n).id, "anna", 1) for n in range(number)]


def watching():
    return [thread for thread in threading.enumerate() if thread.name == "stockledger-wait"]


def test_many_who_wait_are_one_query_a_poll(ledger_dsn, lanes, asked):
    """64 threads wait for 64 commands: each poll is one statement for all of them, and what belongs to the
    outcomes takes two more, once."""
    with Ledger(ledger_dsn) as ledger, ThreadPoolExecutor(MANY) as threads:
        del asked[:]
        waits = [threads.submit(ledger.wait, key(n), PATIENCE_S) for n in range(MANY)]
        all_ask = wait_for(
            "a poll for all", lambda: next((n for n, a in enumerate(asked) if a[1] == MANY), None)
        )
        lanes.apply(1, *purchases(MANY))
        assert {each.result().id for each in waits} == {key(n).id for n in range(MANY)}
        assert all(each.result().outcome is Outcome.APPLIED for each in waits)
        *polls, places, conflicts = asked[all_ask:]
        assert set(polls) == {("outcomes", MANY)}
        assert (places, conflicts) == (("places", MANY), ("conflicts", MANY))
        assert {name for name, _ in asked} == {"outcomes", "places", "conflicts"}
    wait_for("its end", lambda: not watching())


SENT: dict[str, AnyCommand] = {
    "u1": RegisterUser(user_id="anna", name=AWKWARD),
    "x1": CloseUser(user_id="ben"),
    "g1": ListGoods(goods_id="tea"),
    "r1": ReceiveStock(goods_id="tea", quantity=100),
    "a1": AdjustStock(goods_id="tea", delta=-7, note=AWKWARD),
    "p4": PurchaseGoods(user_id="anna", goods_id="tea", quantity=5),
    "c1": CancelPurchase(goods_id="tea", purchase_id="p1"),
    "p2": PurchaseGoods(user_id="ben", goods_id="tea", quantity=1),  # rejected
}


def test_no_event_is_looked_for_whose_command_is_known(watcher, asked):
    """Who sent the payload that was decided has the same answer as who asks by the key alone; but it takes no
    look at events, however many there are. Who sent another payload is believed nothing."""
    by_key = {id: watcher.outcome(MessageKey("shop", id), 0).result(PATIENCE_S) for id in SENT}
    del asked[:]
    told = {
        id: watcher.outcome(request(MessageKey("shop", id), command), 0).result(PATIENCE_S)
        for id, command in SENT.items()
    }
    assert told == by_key
    assert {name for name, _ in asked} == {"outcomes", "conflicts"}
    other = request(MessageKey("shop", "p4"), PurchaseGoods(user_id="anna", goods_id="coffee", quantity=5))
    assert watcher.outcome(other, 0).result(PATIENCE_S) == by_key["p4"]
    assert ("places", 1) in asked


def test_positions_are_one_query_a_poll(watcher, lanes, asked):
    """Whoever waits for positions of whatever projections is asked for together, and told for himself."""
    waits = [watcher.position(8, PATIENCE_S, "stock") for _ in range(MANY)]
    unknown = watcher.position(1, PATIENCE_S, "nothing")
    lost = watcher.position(f"3-{'0' * 16}", PATIENCE_S, "stock")
    behind = watcher.position(1, 0.02, "user_events")
    with pytest.raises(ProjectionUnknown):
        unknown.result(PATIENCE_S)
    with pytest.raises(HistoryChanged):
        lost.result(PATIENCE_S)
    with pytest.raises(TimeoutError, match=r"user_events is at position 0, not yet at 1, after 0\.02 s"):
        behind.result(PATIENCE_S)
    lanes.apply(1, buys("w0", "anna", 1))
    assert {each.result(PATIENCE_S) for each in waits} == {8}
    assert {name for name, number in asked if number} == {"coverage"}
    assert watcher.position(10**30, 0, "stock").exception(PATIENCE_S).args[0].endswith(f"{10**30}, after 0 s")


def test_the_thread_is_there_as_long_as_somebody_waits(watcher, lanes):
    """It starts with the first waiter and ends with the last, whether that was answered, late or gave up."""
    assert not watching()
    answered, given_up = watcher.outcome(key(0), PATIENCE_S), watcher.outcome(key(1), PATIENCE_S)
    late = watcher.outcome(key(2), 0.02)
    assert len(watching()) == 1
    assert isinstance(late.exception(PATIENCE_S), TimeoutError)
    lanes.apply(1, *purchases(1))
    assert answered.result(PATIENCE_S).id == "w0"
    assert len(watching()) == 1
    assert given_up.cancel()
    wait_for("its end", lambda: not watching())
    assert watcher.outcome(MessageKey("shop", "p4"), 0).result(PATIENCE_S).position == 3
    wait_for("its end", lambda: not watching())


def test_who_has_no_time_is_asked_for_once(watcher):
    """With a timeout of 0 what is there is told, what isn't is a TimeoutError; so is what can't be a key,
    and that harms nobody else."""
    for wrong in (key(0), MessageKey("shop", "\0"), MessageKey("shop", "\udc00"), MessageKey("", "w\nw")):
        there = watcher.outcome(MessageKey("shop", "p4"), 0)
        absent = watcher.outcome(wrong, 0)
        assert there.result(PATIENCE_S).version == 6
        with pytest.raises(TimeoutError, match="after 0 s"):
            absent.result(PATIENCE_S)


def test_a_lost_connection_is_made_again_for_all(ledger_dsn, watcher, lanes):
    """The server ends the session while many wait: they notice nothing."""
    waits = [watcher.outcome(key(n), PATIENCE_S) for n in range(MANY)]
    assert end_sessions(ledger_dsn, "stockledger/api") == 1
    lanes.apply(1, *purchases(MANY))
    assert len({each.result(PATIENCE_S).id for each in waits}) == MANY


def test_a_database_that_is_away_ends_every_wait(services, ledger_dsn, watcher, lanes):
    """All of them get Unavailable, each one of his own; who asks once it is back is answered."""
    waits: list[Future[Any]] = [watcher.outcome(key(n), PATIENCE_S) for n in range(MANY)]
    waits += [watcher.position(99, PATIENCE_S, "stock") for _ in range(MANY)]
    name = sql.Identifier(str(conninfo_to_dict(ledger_dsn)["dbname"]))
    with psycopg.connect(services.postgres.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        try:
            end_sessions(services.postgres.dsn(), "", conninfo_to_dict(ledger_dsn)["dbname"])
            errors = [each.exception(PATIENCE_S) for each in waits]
        finally:
            admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
    assert all(isinstance(error, Unavailable) for error in errors)
    assert len({id(error) for error in errors}) == 2 * MANY
    assert watcher.outcome(MessageKey("shop", "p4"), 5).result(PATIENCE_S).position == 3


def end_sessions(dsn, purpose, database_name=None):
    """End those sessions of the database that begin so; how many there were."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        found = admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = coalesce(%s,"
            " current_database()) AND starts_with(application_name, %s) AND pid <> pg_backend_pid()",
            (database_name, purpose),
        )
        return len(found.fetchall())


def test_who_closes_the_ledger_ends_the_waits(watcher):
    """Nobody waits for a ledger that was closed."""
    waits = watcher.outcome(key(0), PATIENCE_S)
    watcher._lender.close()
    with pytest.raises(Unavailable, match="closed"):
        waits.result(PATIENCE_S)


def test_an_asyncio_program_waits_without_threads(watcher, lanes):
    """Each waiter is a Future that an event loop can wait for, and cancel."""

    async def program():
        waits = [asyncio.wrap_future(watcher.outcome(key(n), PATIENCE_S)) for n in range(MANY)]
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(waits[0]), 0.02)
        assert waits[1].cancel()
        await asyncio.to_thread(lanes.apply, 1, *purchases(MANY))
        return [found.id for found in await asyncio.gather(waits[0], *waits[2:])]

    assert asyncio.run(program()) == [key(n).id for n in range(MANY) if n != 1]
    wait_for("its end", lambda: not watching())


def test_polls_are_no_closer_than_before(watcher, asked):
    """However many join, there are 5 ms between two polls; and up to 100 ms where nobody does."""
    began = time.monotonic()
    waits = [watcher.outcome(key(number), 0.2) for number in range(2_000)]
    errors = {type(each.exception(PATIENCE_S)) for each in waits}
    took = time.monotonic() - began
    assert errors == {TimeoutError}
    assert len([name for name, _ in asked if name == "outcomes"]) <= took / 0.005 + 2
