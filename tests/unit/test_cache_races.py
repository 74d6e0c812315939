"""What can overtake what: loads and changes, pages and batches, histories and answers."""

import threading

import pytest

from ledger.cache.notify import LOADS_MAX
from ledger.cache.turns import Turns
from ledger.errors import Contradiction, HistoryChanged, Stale, Unavailable
from ledger.store.tables.stock import StockLevel
from tests.support.driven import Driven
from tests.support.shown_ledger import ShownLedger

HOLDING = ["update", "copy"]
STRATEGIES = ["notify", *HOLDING]


@pytest.fixture
def ledger():
    ledger = ShownLedger()
    ledger.commit(tea=3, cup=0)
    return ledger


@pytest.fixture(params=STRATEGIES)
def driven(request, ledger):
    return Driven(ledger, strategy=request.param).loaded()


# Loads of notify


def test_a_load_that_a_change_overtook_is_not_stored(ledger):
    """It was read before the change and comes back after the change was dropped here: it is loaded again."""
    driven = Driven(ledger, strategy="notify").loaded()

    def overtaken() -> None:
        ledger.after_read = lambda: None
        ledger.commit(tea=2)
        driven.poll()

    ledger.after_read = overtaken
    assert driven.cache.get("tea") == StockLevel("tea", 2, 2)
    assert driven.cache.get("tea") == StockLevel("tea", 2, 2)
    assert ledger.reads == 2


def test_an_answer_for_unknown_goods_can_be_overtaken_too(ledger):
    """The goods were listed while the load was under way: None isn't kept."""
    driven = Driven(ledger, strategy="notify").loaded()

    def overtaken() -> None:
        ledger.after_read = lambda: None
        ledger.commit(pot=1)
        driven.poll()

    ledger.after_read = overtaken
    assert driven.cache.get("pot") == StockLevel("pot", 1, 1)


def test_a_lagging_server_never_takes_a_version_back(ledger):
    """A load from a server that lags is older than what was dropped: it is refused, and named in the end."""
    driven = Driven(ledger, strategy="notify").loaded()
    ledger.commit(tea=2)
    driven.poll()
    ledger.lag = 1
    with pytest.raises(Unavailable, match="an older stock of tea than was read here before"):
        driven.cache.get("tea")
    assert ledger.reads == LOADS_MAX
    ledger.lag = 0
    assert driven.cache.get("tea").version == 2


@pytest.mark.parametrize("evicted", ["kept", "refused"])
def test_what_was_forgotten_for_room_is_not_gone_back_to(evicted, ledger):
    """Memory is bounded on both sides, and a version that fell out of it is still not gone back to."""
    driven = Driven(ledger, strategy="notify", max_items=2).loaded()
    ledger.commit(tea=2)
    if evicted == "kept":
        assert driven.cache.get("tea").version == 2
        for goods_id in ("cup", "x", "y", "z"):
            driven.cache.get(goods_id)
    driven.poll()
    ledger.commit(a=1, b=1, c=1)
    driven.poll()
    assert "tea" not in driven.cache._held.refused_below
    ledger.lag = 2
    with pytest.raises(Unavailable):
        driven.cache.get("tea")


@pytest.mark.parametrize("new_entries", [0, 1, 2])
def test_a_load_that_was_ahead_of_a_restore_is_dropped(new_entries, ledger):
    """The feeder had not passed its position, and the ledger went back to where the feeder was."""
    driven = Driven(ledger, strategy="notify").loaded()
    ledger.commit(tea=2)
    assert driven.cache.get("tea").on_hand == 2
    ledger.restore(1)
    for number in range(new_entries):
        ledger.commit(cup=number)
    driven.clock.pass_s(0.001)
    driven.poll()
    assert driven.cache.get("tea") == StockLevel("tea", 3, 1)


def test_what_fell_out_before_the_feeder_heard_of_it_is_not_gone_back_to(ledger):
    """A load was ahead of the feeder, and was dropped for room: a server that lags can't take it back."""
    driven = Driven(ledger, strategy="notify", max_items=2).loaded()
    ledger.commit(tea=2)
    for goods_id in ("tea", "cup", "x"):
        driven.cache.get(goods_id)
    ledger.lag = 1
    with pytest.raises(Unavailable):
        driven.cache.get("tea")


def test_the_memory_of_notify_is_bounded(ledger):
    """Items that were used longest ago go first; versions to refuse are bounded, too."""
    driven = Driven(ledger, strategy="notify", max_items=3).loaded()
    for goods_id in ("tea", "cup", "a", "tea", "b"):
        driven.cache.get(goods_id)
    reads = ledger.reads
    driven.cache.get("tea")
    assert ledger.reads == reads
    driven.cache.get("cup")
    assert ledger.reads == reads + 1
    ledger.commit(**{f"g{number}": 1 for number in range(50)})
    driven.poll()
    assert driven.cache.status().items == 3
    assert len(driven.cache._held.refused_below) == 3


def test_unknown_goods_are_remembered_and_dropped_by_their_listing(ledger):
    """None is an answer like another: asked for once, and right again after the goods are listed."""
    driven = Driven(ledger, strategy="notify").loaded()
    assert [driven.cache.get("pot") for _ in range(3)] == [None] * 3
    assert ledger.reads == 1
    ledger.commit(pot=0)
    driven.poll()
    assert driven.cache.get("pot") == StockLevel("pot", 0, 1)


def test_changes_that_were_pruned_drop_all_that_notify_keeps(ledger):
    """Nobody said what changed: nothing of it holds, nor does a load that is older."""
    driven = Driven(ledger, strategy="notify").loaded()
    driven.cache.get("tea")
    ledger.commit(tea=2)
    ledger.commit()
    ledger.prune(2)
    driven.poll()
    ledger.lag = 2
    with pytest.raises(Unavailable):
        driven.cache.get("tea")
    ledger.lag = 0
    assert driven.cache.get("tea").on_hand == 2


def test_many_threads_at_one_missing_item_are_one_question(ledger):
    """64 threads miss the same item: one loads it, the others have what it brought."""
    driven = Driven(ledger, strategy="notify").loaded()
    waiting, answers = threading.Event(), []
    ledger.after_read = lambda: waiting.wait(60)

    def read() -> None:
        answers.append(driven.cache.get("tea"))

    threads = [threading.Thread(target=read) for _ in range(64)]
    for thread in threads:
        thread.start()
    waiting.set()
    for thread in threads:
        thread.join()
    assert answers == [StockLevel("tea", 3, 1)] * 64
    assert ledger.reads == 1


def test_who_asks_meanwhile_is_answered_by_the_next_question():
    """Questions that wait are put together into one, which begins after all of them."""
    asked, first, go_on = [], threading.Event(), threading.Event()

    def question(goods_ids):
        asked.append(set(goods_ids))
        first.set()
        go_on.wait(60)
        return len(asked)

    turns = Turns(question)
    answers = []
    threads = [
        threading.Thread(target=lambda each=each: answers.append(turns.ask([each]))) for each in "abcd"
    ]
    threads[0].start()
    first.wait(60)
    for thread in threads[1:]:
        thread.start()
    while turns._next.goods_ids != set("bcd"):
        pass
    go_on.set()
    for thread in threads:
        thread.join()
    assert (asked, sorted(answers)) == ([{"a"}, set("bcd")], [1, 2, 2, 2])


def test_a_question_that_failed_fails_for_all_who_wait(ledger):
    """Nobody waits for ever for an answer that didn't come, and the next one is asked anew."""
    driven = Driven(ledger, strategy="notify").loaded()
    ledger.is_cut = True
    with pytest.raises(Unavailable):
        driven.cache.get("tea")
    ledger.is_cut = False
    assert driven.cache.get("tea").on_hand == 3


# Whole copies


@pytest.mark.parametrize("strategy", HOLDING)
def test_a_copy_is_of_one_position_whatever_is_committed_while_it_is_read(strategy, ledger, monkeypatch):
    """Each page shows another moment; the copy is the stock as of where it says that it is."""
    monkeypatch.setattr("ledger.cache.loading.PAGE_ROWS", 1)
    numbers = iter(range(10, 14))

    def commit() -> None:
        if number := next(numbers, None):
            ledger.commit(cup=number, tea=number)

    ledger.before_page = commit
    driven = Driven(ledger, strategy=strategy).loaded()
    snapshot = driven.cache.snapshot()
    assert dict(snapshot) == ledger.stock(snapshot.position)
    assert snapshot.position >= 4


@pytest.mark.parametrize("strategy", HOLDING)
@pytest.mark.parametrize("late_page", [1, 2, 3])
def test_a_page_of_an_older_server_leaves_nothing_out(strategy, late_page, ledger, monkeypatch):
    """A pooler gives a page, or the empty last one, another server: what it lacks is in the log."""
    monkeypatch.setattr("ledger.cache.loading.PAGE_ROWS", 2)
    ledger.commit(tea=4)
    ledger.commit(zoo=1, pan=2)

    def before() -> None:
        ledger.lag = 2 if ledger.pages == late_page else 0

    ledger.before_page = before
    ledger.before_poll = lambda: setattr(ledger, "lag", 0)
    driven = Driven(ledger, strategy=strategy).loaded()
    snapshot = driven.cache.snapshot()
    assert dict(snapshot) == ledger.stock(snapshot.position)
    assert snapshot.position == 3


@pytest.mark.parametrize("strategy", HOLDING)
def test_a_log_of_an_older_server_ends_no_copy(strategy, ledger):
    """Pages came from the primary, the log from a standby that lags: it is waited for."""
    ledger.commit(tea=5)
    ledger.lag = 1
    ledger.before_page = lambda: setattr(ledger, "lag", 0)
    polls = iter([1, 1, 1])
    ledger.before_poll = lambda: setattr(ledger, "lag", next(polls, 0))
    driven = Driven(ledger, strategy=strategy).loaded()
    snapshot = driven.cache.snapshot()
    assert (snapshot.position, dict(snapshot)) == (2, ledger.stock())


@pytest.mark.parametrize("strategy", HOLDING)
@pytest.mark.parametrize("page", [1, 2, 3])
@pytest.mark.parametrize("back_to", [0, 1, 2])
def test_a_restore_between_two_pages_mixes_no_histories(strategy, page, back_to, ledger, monkeypatch):
    """Pages of a lost past are recognised by the hash of their head; the copy is begun again."""
    monkeypatch.setattr("ledger.cache.loading.PAGE_ROWS", 1)
    ledger.commit(tea=7)

    def before() -> None:
        if ledger.pages == 1:
            ledger.commit(cup=70, tea=70)
        if ledger.pages == page:
            ledger.restore(back_to)
            for number in (5, 6, 8):
                ledger.commit(tea=number)

    ledger.before_page = before
    driven = Driven(ledger, strategy=strategy).loaded()
    driven.poll()
    snapshot = driven.cache.snapshot()
    assert dict(snapshot) == ledger.stock(snapshot.position)
    assert snapshot.token == ledger.token(snapshot.position)


@pytest.mark.parametrize("strategy", HOLDING)
def test_pruning_past_a_slow_feeder_loads_anew_beside_what_is_served(strategy, ledger):
    """Until the new copy is there the old one is served, and grows old; then nothing is missing."""
    driven = Driven(ledger, strategy=strategy).loaded()
    ledger.commit(tea=2)
    ledger.commit(cup=5)
    ledger.prune(2)
    served = []
    ledger.before_page = lambda: served.append(driven.cache.get("tea").on_hand)
    driven.poll()
    assert served == [3, 3]
    assert dict(driven.cache.snapshot()) == ledger.stock()
    assert driven.cache.status().loads == 2


def test_pruning_while_it_loads_begins_again(ledger):
    """What was pruned between a page and the catching up isn't missed."""
    pruned = iter([True])

    def before() -> None:
        ledger.commit(tea=len(ledger.entries))
        if next(pruned, False):
            ledger.prune(len(ledger.entries))

    ledger.before_page = before
    driven = Driven(ledger).loaded()
    driven.poll()
    assert dict(driven.cache.snapshot()) == ledger.stock()


def test_a_hole_in_the_journal_is_no_news(ledger):
    """Positions are dense; where one is missing its changes would be, so nothing is taken."""
    driven = Driven(ledger).loaded()
    ledger.commit(tea=2)
    ledger.commit(tea=1)
    del ledger.entries[1]
    ledger.entries.append(ledger.entries[-1])
    with pytest.raises(Contradiction, match="no dense positions from 1 to 3"):
        driven.poll()
    assert driven.cache.get("tea").on_hand == 3


def test_an_older_version_is_never_put_over_a_newer_one(driven, ledger):
    """What comes again, in whatever order, changes nothing."""
    from ledger.cache.sink import News

    ledger.commit(tea=2)
    driven.poll()
    before = driven.cache.get("tea")
    view = driven.cache._held.view
    again = [StockLevel("tea", 99, 1)]
    driven.cache._held.take(News(again, [], view.point, driven.clock()))
    assert driven.cache.get("tea") == before


# Histories and tokens


def test_another_history_is_served_at_the_next_poll_and_the_lost_one_never(driven, ledger):
    """The next poll resets: until it has loaded, `get` says so; then the new past is served."""
    ledger.commit(tea=1)
    driven.poll()
    driven.cache.get("tea")
    ledger.restore(1)
    ledger.commit(tea=8)
    driven.cache._feeder.advance(ledger)
    with pytest.raises(Stale, match="restored to an older state, or is another ledger"):
        driven.cache.get("tea")
    driven.poll()
    assert driven.cache.get("tea") == StockLevel("tea", 8, 2)
    assert driven.cache.status().resets == 1


def test_a_restore_to_before_is_noticed_without_a_new_entry(driven, ledger):
    """The cache's position isn't there any more: that alone is another history."""
    ledger.commit(tea=1)
    driven.poll()
    ledger.restore(1)
    driven.poll()
    assert driven.cache.get("tea").on_hand == 3


def test_a_standby_that_lags_is_waited_for(driven, ledger):
    """It can't prove the position yet: what is held stays, and grows old; nothing goes backwards."""
    ledger.commit(tea=1)
    driven.poll()
    version = driven.cache.get("tea").version
    ledger.standby, ledger.lag = True, 1
    driven.clock.pass_s(0.5)
    driven.poll()
    assert driven.cache.get("tea").version == version
    driven.clock.pass_s(0.6)
    with pytest.raises(Stale, match="the standby is at position 1, and 2 was read before"):
        driven.cache.get("tea")
    ledger.lag = 0
    driven.poll()
    assert driven.cache.get("tea").version == version
    assert driven.cache.status().resets == 0


def test_a_standby_that_was_promoted_behind_is_another_history(driven, ledger):
    """It never had the last entries: the cache resets, and exactly the lost tokens are refused."""
    ledger.commit(tea=1)
    ledger.commit(tea=0)
    driven.poll()
    tokens = [ledger.token(position) for position in (1, 2, 3)]
    ledger.standby, ledger.lag = True, 2
    driven.poll()
    ledger.restore(1)
    ledger.standby, ledger.lag = False, 0
    driven.poll()
    assert driven.cache.get("tea", at_least=tokens[0]).on_hand == 3
    for lost in tokens[1:]:
        with pytest.raises(HistoryChanged):
            reached(driven, lost)


def reached(driven, place):
    """Wait for the place while another thread polls, each poll a millisecond after the last."""
    stop = threading.Event()

    def follow() -> None:
        while not stop.wait(0.001):
            driven.clock.pass_s(0.001)
            driven.poll()

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        return driven.cache.get("tea", at_least=place, timeout_s=60)
    finally:
        stop.set()
        thread.join()


def test_a_token_is_waited_for(driven, ledger):
    """Whoever has the token of his own write reads at least that write."""
    ledger.lag = 1
    ledger.commit(tea=2)
    token = ledger.token(2)
    ledger.standby = True
    threading.Timer(0.02, lambda: setattr(ledger, "lag", 0)).start()
    assert reached(driven, token).on_hand == 2
    with pytest.raises(TimeoutError, match="not yet at 3"):
        driven.cache.get("tea", at_least=3, timeout_s=0.01)


def test_a_token_of_another_history_is_refused(driven, ledger):
    """Also one that lies beyond the head of a primary: nothing will ever be there of that past."""
    ledger.commit(tea=2)
    lost = [ledger.token(2)]
    ledger.restore(1)
    with pytest.raises(HistoryChanged) as refused:
        reached(driven, lost[0])
    assert refused.value.actual is None
    ledger.commit(tea=5)
    driven.poll()
    with pytest.raises(HistoryChanged) as refused:
        driven.cache.get("tea", at_least=lost[0])
    assert refused.value.actual == ledger.token(2).partition("-")[2]


def test_an_old_token_is_proved_by_the_database_once(ledger, monkeypatch):
    """Hashes of late are remembered; an older one is asked for, and then remembered as well."""
    monkeypatch.setattr("ledger.cache.known.KNOWN_MAX", 3)
    for number in range(10):
        ledger.commit(tea=number)
    driven = Driven(ledger).loaded()
    for _ in range(3):
        ledger.commit()
    driven.poll()
    asked = []
    require = driven.cache._database.require_reached

    def counted(at):
        asked.append(at)
        require(at)

    driven.cache._database.require_reached = counted
    old = ledger.token(4)
    for _ in range(3):
        driven.cache.get("tea", at_least=old)
        driven.cache.get("tea", at_least=ledger.token(14))
    assert asked == [old]
    with pytest.raises(HistoryChanged):
        driven.cache.get("tea", at_least="5-" + "0" * 16)


def test_a_token_is_not_refused_by_a_standby_that_has_just_been_loaded_from(ledger):
    """A fresh copy says nothing of what may still come: only a poll knows that a primary answered."""
    ledger.commit(tea=2)
    token = ledger.token(2)
    ledger.standby, ledger.lag = True, 1
    driven = Driven(ledger)
    answers = []

    def read():
        try:
            answers.append(driven.cache.get("tea", at_least=token, timeout_s=60))
        except HistoryChanged as refused:
            answers.append(refused)

    thread = threading.Thread(target=read)
    thread.start()
    ledger.before_page = lambda: driven.clock.pass_s(0.001)
    driven.poll()
    thread.join(0.05)
    ledger.lag = 0
    driven.poll()
    thread.join()
    assert answers == [StockLevel("tea", 2, 2)]


def test_a_view_that_moves_while_a_token_is_waited_for_refuses_nothing(ledger):
    """A host's folder moves on between two looks at it: what is judged is the view that was looked at."""
    driven = Driven(ledger, strategy="update").loaded()
    held, before = driven.cache._held, driven.cache._held.view
    ledger.commit(tea=2)
    driven.clock.pass_s(0.001)
    token = ledger.token(2)
    driven.poll()
    driven.clock.now -= 0.0005  # the question was sent after the caller had its token
    driven.cache._held = Moving(held, before)
    assert driven.cache.get("tea", at_least=token).on_hand == 2


class Moving:
    """It shows the view before at the second look, and the newest one from then on."""

    def __init__(self, held, before):
        self._held, self._views = held, [before, before]

    def __getattr__(self, name):
        return getattr(self._held, name)

    @property
    def view(self):
        """See above."""
        return self._views.pop() if self._views else self._held.view


def test_a_text_that_is_no_token_is_no_place(driven):
    """A typo is an error of the caller's, and no reason to wait."""
    with pytest.raises(ValueError, match="is no token"):
        driven.cache.get("tea", at_least="5")


# Readers and the writer


def test_several_items_are_read_while_the_writer_is_kept_out(ledger):
    """`update` changes its one dict in place: between two items of one answer nothing may come."""
    driven = Driven(ledger, strategy="update", partition="value").loaded()
    reads = [lambda: driven.cache.get_many(["tea", "cup"]), driven.cache.snapshot]
    reads.append(lambda: driven.cache.in_band("low"))
    threads = [threading.Thread(target=read) for read in reads]
    with driven.cache._held.moved:  # as the writer does
        for thread in threads:
            thread.start()
            thread.join(0.02)
        assert all(thread.is_alive() for thread in threads)
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("strategy", HOLDING)
def test_a_reader_never_sees_half_of_an_entry(strategy, ledger):
    """Ten threads read while entries move pieces from one to the other: the sum is always the same."""
    goods = [f"g{number}" for number in range(20)]
    ledger.commit(**dict.fromkeys(goods, 10))
    driven = Driven(ledger, strategy=strategy, partition="value").loaded()
    stop, wrong = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            sums = [
                sum(level.on_hand for level in driven.cache.get_many(goods).values()),
                sum(level.on_hand for each, level in driven.cache.snapshot().items() if each in goods),
            ]
            if sums != [200, 200]:
                wrong.append(sums)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(300):
        one, other = goods[number % 20], goods[(number * 7 + 3) % 20]
        stock = ledger.stock()
        if one != other and stock[one].on_hand:
            ledger.commit(**{one: stock[one].on_hand - 1, other: stock[other].on_hand + 1})
        driven.poll()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
