"""Any story of commits, lost links, restores and pruning, against what is true at each moment."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ledger.errors import HistoryChanged, Stale, Unavailable
from ledger.store.tables.stock import StockLevel
from tests.support.driven import Driven
from tests.support.shown_ledger import ShownLedger
from tests.unit.strategies import quick

GOODS = ["tea", "cup", "pot", "pan"]
BOUND_S = 1.0
goods = st.sampled_from(GOODS)


class Story(RuleBasedStateMachine):
    """One ledger, one cache. `truths` says what was so when; a read must be one of those within the bound."""

    strategy = "update"
    on_stale = "raise"

    @initialize(first=st.dictionaries(goods, st.integers(0, 20), min_size=1))
    def begin(self, first):
        self.ledger = ShownLedger()
        self.driven = Driven(self.ledger, strategy=self.strategy, on_stale=self.on_stale, max_items=2)
        self.truths: list[tuple[float, dict[str, StockLevel], int]] = [(0.0, {}, 0)]
        self.seen = {}  # of (history as the cache knows it, goods): the greatest version that was read
        self.position = (0, 0)
        self.commit(first)

    @property
    def now(self):
        return self.driven.clock.now

    def note(self):
        self.truths.append((self.now, self.ledger.stock(), self.ledger.histories))

    @rule(on_hand=st.dictionaries(goods, st.integers(0, 20)))
    def commit(self, on_hand):
        self.ledger.commit(**on_hand)
        self.note()

    @rule(seconds=st.sampled_from([0.01, 0.3, 0.6, 1.5]))
    def wait(self, seconds):
        self.driven.clock.pass_s(seconds)

    @rule()
    def poll(self):
        try:
            self.driven.poll()
        except Unavailable:
            assert self.ledger.is_cut

    @rule(on_hand=st.dictionaries(goods, st.integers(0, 20), min_size=1), seconds=st.sampled_from([0, 0.5]))
    def commit_while_the_answer_travels(self, on_hand, seconds):
        def before():
            self.ledger.before_poll = lambda: None
            self.driven.clock.pass_s(seconds)

        self.ledger.before_poll = before
        self.poll()
        self.commit(on_hand)

    @rule(cut=st.booleans())
    def link(self, cut):
        self.ledger.is_cut = cut

    @rule(behind=st.integers(0, 5))
    def restore(self, behind):
        self.ledger.restore(max(len(self.ledger.entries) - behind, 0))
        self.note()

    @rule(behind=st.integers(0, 3))
    def prune(self, behind):
        self.ledger.prune(max(len(self.ledger.entries) - behind, 0))

    @rule(goods_id=goods)
    def get(self, goods_id):
        asks = self.on_stale == "ask"
        try:
            level = self.driven.cache.get(goods_id)
        except Stale:
            return
        except Unavailable:
            # or a restore that the feeder hasn't heard of yet, so that the database seems to lag
            assert self.ledger.is_cut or self.ledger.histories
            assert asks or self.strategy == "notify"
            return
        allowed = [
            stock.get(goods_id) for (_, stock, _), until in self.until() if until >= self.now - BOUND_S - 1e-9
        ]
        assert level in allowed
        self.never_backwards(goods_id, level)

    def until(self):
        """Each truth, and when it ceased to be so."""
        ends = [when for when, _, _ in self.truths[1:]]
        return zip(self.truths, [*ends, float("inf")], strict=True)

    def never_backwards(self, goods_id, level):
        version = level.version if level else 0
        key = (self.driven.cache.status().resets, goods_id)
        assert version >= self.seen.get(key, 0) or self.ledger.histories
        if not self.ledger.histories:
            self.seen[key] = version

    @rule(position=st.integers(0, 12))
    def get_with_a_token(self, position):
        if position > len(self.ledger.entries):
            return
        token = self.ledger.token(position)
        try:
            self.driven.cache.get("tea", at_least=token, timeout_s=0)
        except (TimeoutError, Stale, Unavailable):
            return
        except HistoryChanged:
            assert self.ledger.histories  # a token of the new past, before the cache has noticed
            return
        assert token == self.ledger.token(position)

    @invariant()
    def a_snapshot_is_of_its_position(self):
        if self.strategy == "notify":
            return
        try:
            snapshot = self.driven.cache.snapshot()
        except Stale:
            return
        history, position = self.driven.cache.status().resets, snapshot.position
        assert (history, position) >= self.position
        self.position = history, position
        if position <= len(self.ledger.entries) and snapshot.token == self.ledger.token(position):
            assert dict(snapshot) == self.ledger.stock(position)

    @rule()
    def heal(self):
        """Whatever happened: after the link is back, two polls later all is as it is."""
        self.ledger.is_cut = False
        self.driven.clock.pass_s(0.001)
        self.poll()
        self.poll()
        for goods_id in GOODS:
            assert self.driven.cache.get(goods_id) == self.ledger.stock().get(goods_id)


@pytest.mark.parametrize("strategy", ["notify", "update", "copy"])
@pytest.mark.parametrize("on_stale", ["raise", "ask"])
def test_whatever_happens_the_cache_keeps_its_promises(strategy, on_stale):
    """Nothing older than allowed, nothing backwards, one position a snapshot; healed in two polls."""
    told = type("Told", (Story,), {"strategy": strategy, "on_stale": on_stale})
    run_state_machine_as_test(told, settings=quick(15))
