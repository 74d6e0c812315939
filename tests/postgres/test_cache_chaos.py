"""Any story of commits, cuts, stalls, swaps, pruning, restores, forks and kills, on a real Postgres.

After each step: the position never falls within a history, each snapshot is the ledger's own stock as of its
position, and nothing is missing that was committed longer ago than the bound.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ledger.api import Ledger
from ledger.domain.token import Token
from ledger.errors import HistoryChanged, Stale, Unavailable
from ledger.projections.stock import Stock
from ledger.rebuilding.rebuild import rebuild, roll_back
from ledger.store.connection import database
from ledger.store.tables import stock_delta
from tests.conftest import database as new_database
from tests.postgres.test_cache_contract import (
    GOODS,
    HOLDING,
    PATIENCE_S,
    Shop,
    eventually,
    proxied,
    saved,
)
from tests.support.forks import forked
from tests.support.hosted import Hosted

BOUND_S = 0.5
ENDED = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = 'stockledger/cache' AND datname = current_database()
"""
goods = st.sampled_from(GOODS)


class Story(RuleBasedStateMachine):
    """One ledger behind a proxy, one cache. What was committed when is noted as soon as it is known."""

    maker: Callable[..., Any]
    services: Any
    template: str

    @initialize()
    def begin(self) -> None:
        self.stack = ExitStack()
        self.dsn = self.services.postgres.dsn(
            self.stack.enter_context(
                new_database(self.services, f"story_{time.monotonic_ns()}", self.template)
            )
        )
        self.shop = Shop(self.dsn)
        self.committed = [(0.0, 0)]
        self.note(self.shop.lists(*GOODS))
        self.proxy, dsn = self.stack.enter_context(proxied(self.dsn))
        self.cache = self.stack.enter_context(self.maker(dsn, max_staleness_s=BOUND_S))
        self.restores, self.seen = 0, (0, 0)
        self.swapped = False

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            try:
                self.heals()
            finally:
                self.shop.conn.close()
                self.stack.close()

    def note(self, token: str) -> None:
        self.committed.append((time.monotonic(), Token.parse(token).position))
        self.last = token

    @rule(goods_id=goods, delta=st.integers(1, 3))
    def commit(self, goods_id: str, delta: int) -> None:
        self.note(self.shop.adds(goods_id, delta))

    @rule()
    def cut(self) -> None:
        self.proxy.cut()

    @rule()
    def stall(self) -> None:
        self.proxy.stall()

    @rule()
    def resume(self) -> None:
        self.proxy.resume()

    @rule()
    def swap(self) -> None:
        connect = partial(database.connect, self.dsn, purpose="test")
        (roll_back if self.swapped else rebuild)(connect, Stock())
        self.swapped = not self.swapped

    @rule()
    def prune(self) -> None:
        stock_delta.prune(self.shop.conn, timedelta(0))

    @rule(lost=st.lists(goods, min_size=1, max_size=3))
    def restore(self, lost: list[str]) -> None:
        with saved(self.services, self.shop) as restore:
            tokens = [self.shop.adds(goods_id) for goods_id in lost]
            restore()
        self.shop.again()
        self.swapped = False
        self.restores += 1
        self.committed = [(time.monotonic(), 0)]
        self.note(self.shop.adds(GOODS[0]))  # from here on the lost past can be told
        for token in tokens:
            eventually(partial(_refused, self.cache, token))

    @rule()
    def end_sessions(self) -> None:
        self.shop.conn.execute(ENDED)

    @rule()
    def kill(self) -> None:
        if isinstance(self.cache, Hosted):
            self.cache.kill_feeder()
            self.cache.feed()

    @rule()
    def fork(self) -> None:
        assert forked(lambda: str(_refuses(self.cache))) == "True"

    @rule()
    def wait(self) -> None:
        time.sleep(BOUND_S / 2)

    @rule()
    def heals(self) -> None:
        self.proxy.resume()
        truth = _stock(self.dsn, self.last)
        eventually(
            lambda: dict(self.cache.get_many(GOODS, at_least=self.last, timeout_s=PATIENCE_S)) == truth
        )

    @invariant()
    def what_it_says_is_so(self) -> None:
        if not hasattr(self, "cache"):
            return
        asked_at = time.monotonic()
        try:
            snapshot = self.cache.snapshot()
        except Stale:
            return
        resets = self.cache.status().resets
        if resets < self.restores:
            return  # it hasn't heard of the other history; within the bound it may say what was so
        assert (resets, snapshot.position) >= self.seen
        self.seen = resets, snapshot.position
        assert dict(snapshot) == _stock(self.dsn, snapshot.token)
        due = [at for when, at in self.committed if when <= asked_at - BOUND_S]
        assert snapshot.position >= max(due, default=0)


def _refused(cache: Any, token: str) -> bool:
    """Whether a lost token is refused: by the next poll, or beyond the bound."""
    try:
        cache.get("g0", at_least=token, timeout_s=0.01)
    except (HistoryChanged, Stale, TimeoutError, Unavailable):
        return True
    return False


def _refuses(cache: Any) -> bool:
    """In a child: nothing is served until it has a feeder of its own."""
    try:
        cache.get("g0")
    except Stale:
        return True
    return False


def _stock(dsn: str, token: str) -> dict[str, Any]:
    with Ledger(dsn) as book:
        return {level.goods_id: level for level in book.stock_levels(as_of=token)}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", HOLDING)
def test_whatever_happens_each_snapshot_is_of_its_position(name, services, template_database):
    """See above; at the end of each story the link is whole, and the cache has all that was committed."""
    told = type(
        "Told",
        (Story,),
        {"maker": staticmethod(HOLDING[name]), "services": services, "template": template_database},
    )
    run_state_machine_as_test(
        told,
        # what a clock takes part in isn't made smaller: another run differs
        settings=settings(max_examples=4, stateful_step_count=25, phases=[Phase.generate], database=None),
    )
