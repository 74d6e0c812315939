"""The age of what a cache serves, by a clock that is moved by hand."""

from typing import Any

import pytest

from ledger.cache.feeder import Feeder
from ledger.cache.sink import ENTRIES_MAX
from ledger.errors import Stale, Unavailable
from tests.support.driven import Driven
from tests.support.shown_ledger import ShownLedger

STRATEGIES = ["notify", "update", "copy"]


@pytest.fixture
def ledger():
    ledger = ShownLedger()
    ledger.commit(tea=3, cup=0)
    return ledger


@pytest.fixture(params=STRATEGIES)
def driven(request, ledger):
    return Driven(ledger, strategy=request.param).loaded()


def test_nothing_older_than_allowed_is_served(driven):
    """Up to the bound the value is served; beyond it, `get` raises and says the age."""
    assert driven.cache.get("tea").on_hand == 3
    driven.clock.pass_s(1.0)
    assert driven.cache.get("tea").on_hand == 3
    driven.clock.pass_s(0.001)
    for read in (lambda: driven.cache.get("tea"), lambda: driven.cache.get_many(["tea", "cup"])):
        with pytest.raises(Stale, match="1 s old, and at most 1 s is allowed") as stale:
            read()
        assert stale.value.age_s == pytest.approx(1.001)


def test_the_age_counts_from_before_the_question(driven, ledger):
    """An answer that took a second is a second old: what was committed meanwhile isn't in it."""
    ledger.before_poll = lambda: driven.clock.pass_s(0.7)
    driven.poll()
    assert driven.cache.status().age_s == pytest.approx(0.7)
    driven.clock.pass_s(0.4)
    with pytest.raises(Stale):
        driven.cache.get("tea")


def test_a_loaded_copy_is_as_old_as_its_last_question(ledger):
    """Loading takes time; the copy's age counts from before the question that reached the head."""
    driven = Driven(ledger, max_staleness_s=10.0)
    ledger.before_page = lambda: driven.clock.pass_s(60)
    ledger.before_poll = lambda: driven.clock.pass_s(2)
    driven.poll()
    assert driven.cache.status().age_s == pytest.approx(2)


def test_an_answer_that_is_short_of_the_head_does_not_make_it_younger(driven, ledger):
    """While it catches up its values are of the past: the age goes on growing until it is there."""
    for _ in range(2 * ENTRIES_MAX):
        ledger.commit(tea=4)
    driven.clock.pass_s(0.6)
    assert driven.cache._feeder.advance(ledger)
    assert driven.cache.status().age_s == pytest.approx(0.6)
    driven.poll()
    assert driven.cache.status().age_s == 0


def test_a_lost_link_ages_what_is_held_and_flushes_nothing(driven, ledger):
    """After the link is back it goes on from where it was: nothing is loaded again."""
    driven.cache.get("tea")
    ledger.is_cut, loads = True, (driven.cache.status().loads, ledger.reads, ledger.pages)
    driven.clock.pass_s(0.9)
    with pytest.raises(Unavailable):
        driven.poll()
    assert driven.cache.get("tea").on_hand == 3
    driven.clock.pass_s(0.2)
    with pytest.raises(Stale):
        driven.cache.get("tea")
    ledger.is_cut = False
    driven.poll()
    assert driven.cache.get("tea").on_hand == 3
    assert (driven.cache.status().loads, ledger.reads, ledger.pages) == loads


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ask_reads_the_database_in_place_of_what_is_stale(strategy, ledger):
    """`on_stale="ask"`: the caller gets what is committed now, for unknown goods None."""
    driven = Driven(ledger, strategy=strategy, on_stale="ask").loaded()
    driven.clock.pass_s(5)
    ledger.commit(tea=9)
    assert driven.cache.get("tea").on_hand == 9
    assert driven.cache.get("none") is None
    many = driven.cache.get_many(["tea", "none"])
    assert (many["tea"].on_hand, many["none"], many.position) == (9, None, 2)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ask_is_not_answered_with_less_than_was_told(strategy, ledger):
    """The next question meets a server that lags: reads say so, and go on when it has caught up."""
    driven = Driven(ledger, strategy=strategy, on_stale="ask").loaded()
    driven.clock.pass_s(5)
    ledger.commit(tea=9)
    assert driven.cache.get("tea").on_hand == 9
    ledger.lag = 1
    with pytest.raises(Stale):
        driven.cache.get("tea")
    ledger.lag = 0
    assert driven.cache.get("tea").on_hand == 9


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("loads_first", [True, False])
def test_what_was_told_of_a_lost_past_holds_nobody_up(strategy, loads_first, ledger):
    """The ledger went back to where the cache had been: the head of a primary, asked for later, says so."""
    driven = Driven(ledger, strategy=strategy, on_stale="ask")
    if loads_first:
        driven.poll()
    driven.clock.pass_s(5)
    ledger.commit(tea=9)
    assert driven.cache.get("tea").on_hand == 9
    ledger.restore(1)
    for _ in range(2):
        driven.clock.pass_s(0.001)
        driven.poll()
    assert driven.cache.get("tea").on_hand == 3
    assert driven.cache.status().fresh


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_serve_gives_what_there_is_but_nothing_of_a_lost_past(strategy, ledger):
    """`on_stale="serve"`: however old; once the history turned out to be lost, not even that."""
    driven = Driven(ledger, strategy=strategy, on_stale="serve").loaded()
    driven.cache.get("tea")
    driven.clock.pass_s(1e6)
    assert driven.cache.get("tea").on_hand == 3
    assert driven.cache.status().fresh is False
    ledger.restore(0)
    driven.cache._feeder.advance(ledger)
    with pytest.raises(Stale, match="restored to an older state"):
        driven.cache.get("tea")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_was_told_is_not_taken_back_by_an_older_view(strategy, ledger):
    """The feeder asked before a reader was told of a later position, and its answer comes after that."""
    driven = Driven(ledger, strategy=strategy, on_stale="ask").loaded()
    driven.clock.pass_s(5)
    told = []

    def meanwhile() -> None:
        ledger.before_poll = lambda: None
        seen, ledger.lag = ledger.lag, 0
        ledger.commit(tea=9)
        told.append(driven.cache.get("tea"))
        ledger.lag = seen + 1  # the poll's own snapshot is from before

    ledger.before_poll = meanwhile
    driven.cache._feeder.advance(ledger)
    ledger.lag = 0
    assert driven.cache.get("tea").version >= told[0].version


def test_a_cache_that_never_loaded_says_so(ledger):
    """Nothing, instead of a wrong None: `Stale` with the cause."""
    driven = Driven(ledger)
    with pytest.raises(Stale, match="the cache has nothing") as stale:
        driven.cache.get("tea")
    assert stale.value.age_s is None


def test_an_ended_feeder_serves_nothing(ledger):
    """A bug in the feeder ends it: at once reads say so, whatever they were to do with what is stale."""
    for on_stale in ("raise", "serve"):
        driven = Driven(ledger, on_stale=on_stale).loaded()

        def broken() -> None:
            raise ZeroDivisionError("a bug")

        ledger.before_poll = broken
        driven.cache._feeder._run()
        ledger.before_poll = lambda: None
        with pytest.raises(Stale, match=r"ended by a bug: ZeroDivisionError\('a bug'\)"):
            driven.cache.get("tea")
        assert "a bug" in driven.cache.status().trouble


def test_faults_are_tried_again_with_growing_pauses(ledger):
    """A database that is away isn't asked in a loop, and the pause is short again after it was reached."""
    pauses = []

    driven = Driven(ledger)
    feeder: Any = Feeder(lambda stopping: ledger, driven.cache._held, clock=driven.clock)
    ledger.is_cut = True

    def wait(pause_s: float) -> bool:
        pauses.append(pause_s)
        return False

    feeder._stopping.wait = wait
    for _ in range(8):
        feeder._connected()
    assert pauses[0] <= 0.05
    assert 0.5 <= pauses[-1] <= 1.0
    assert feeder.trouble == "the connection was cut"
