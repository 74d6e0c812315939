"""The caches' tests catch the faults that caches have: each is put into the code, and a test must fail."""

import inspect
import textwrap
from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

import pytest

from tests.support.driven import Driven
from tests.support.shown_ledger import ShownLedger
from tests.unit import test_cache_ages as ages
from tests.unit import test_cache_races as races
from tests.unit import test_host_sink as host


class Mutant(NamedTuple):
    """In this function, this is replaced by that; and the test that finds it."""

    place: str
    right: str
    wrong: str
    caught: Callable[..., None]


MUTANTS = {
    "a fill without its version": Mutant(
        "ledger.cache.holding:newer",
        "level.version > before.version if before else holds(goods_id)",
        "holds(goods_id)",
        lambda ledger, _: races.test_an_older_version_is_never_put_over_a_newer_one(loaded(ledger), ledger),
    ),
    "a load that was overtaken is stored": Mutant(
        "ledger.cache.notify:Notify._store",
        "version < floor.version if floor else read.moment.position < self._forgotten_at",
        "False",
        lambda ledger, _: races.test_a_load_that_a_change_overtook_is_not_stored(ledger),
    ),
    "no load after a prune": Mutant(
        "ledger.cache.feeder:Feeder.advance",
        "poll.horizon > point.position",
        "False",
        lambda ledger, _: races.test_pruning_past_a_slow_feeder_loads_anew_beside_what_is_served(
            "update", ledger
        ),
    ),
    "the age from the answer": Mutant(
        "ledger.cache.feeder:Feeder.advance",
        "None if left else asked_at",
        "None if left else self._clock()",
        lambda ledger, _: ages.test_the_age_counts_from_before_the_question(loaded(ledger), ledger),
    ),
    "an answer short of the head makes it younger": Mutant(
        "ledger.cache.feeder:Feeder.advance",
        "None if left else asked_at",
        "asked_at",
        lambda ledger, _: ages.test_an_answer_that_is_short_of_the_head_does_not_make_it_younger(
            loaded(ledger), ledger
        ),
    ),
    "the hash isn't compared": Mutant(
        "ledger.cache.feeder:goes_on",
        "poll.proof == point.hash",
        "poll.proof is not None",
        lambda ledger, _: races.test_another_history_is_served_at_the_next_poll_and_the_lost_one_never(
            loaded(ledger), ledger
        ),
    ),
    "the heads of the pages aren't compared": Mutant(
        "ledger.cache.loading:_catch_up",
        "not all(map(tips.agrees, passed))",
        "False",
        lambda ledger, patch: races.test_a_restore_between_two_pages_mixes_no_histories(
            "update", 2, 2, ledger, patch
        ),
    ),
    "what was told is taken back": Mutant(
        "ledger.cache.strategy:Strategy.tell",
        "position < told",
        "False",
        lambda ledger, _: ages.test_ask_is_not_answered_with_less_than_was_told("update", ledger),
    ),
    "the position in a second transaction": Mutant(
        "ledger.cache.host_sink:HostSink.take",
        "self._apply(txn, head.slot, news.levels)",
        "self._apply(txn, head.slot, news.levels)\n    with self._writing() as (txn, head):",
        lambda _, patch: host.test_a_reader_never_sees_half_of_an_entry(patch.folder),
    ),
}


def loaded(ledger: ShownLedger) -> Driven:
    return Driven(ledger, strategy="update").loaded()


@pytest.fixture
def ledger():
    ledger = ShownLedger()
    ledger.commit(tea=3, cup=0)
    return ledger


@pytest.mark.parametrize("name", MUTANTS)
def test_each_fault_is_caught(name, ledger, monkeypatch, tmp_path):
    """The test passes as the code is, and fails with the fault in it."""
    mutant = MUTANTS[name]
    monkeypatch.folder = tmp_path / "right"
    mutant.caught(ledger, monkeypatch)
    put(mutant, monkeypatch)
    again = ShownLedger()
    again.commit(tea=3, cup=0)
    monkeypatch.folder = tmp_path / "wrong"
    with pytest.raises((Exception, pytest.fail.Exception)):
        mutant.caught(again, monkeypatch)


def put(mutant: Mutant, patch: pytest.MonkeyPatch) -> None:
    """Put the fault in place of what is right."""
    module_name, _, path = mutant.place.partition(":")
    holder: object = import_module(module_name)
    *within, name = path.split(".")
    for each in within:
        holder = getattr(holder, each)
    function = getattr(holder, name)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(mutant.right) == 1, f"{mutant.place} has no {mutant.right} any more"
    scope: dict[str, object] = {}
    exec(source.replace(mutant.right, mutant.wrong), function.__globals__, scope)
    patch.setattr(holder, name, scope[name])
