"""What a cache can be made to be: shares, bands, bounds; what doesn't fit together is refused."""

import pytest

from ledger.cache.bands import BANDS, band_of
from ledger.cache.stock_cache import StockCache
from ledger.domain.shares import share_of
from ledger.errors import BadSettings
from ledger.store.tables.stock import StockLevel
from tests.support.driven import Driven
from tests.support.shown_ledger import ShownLedger

GOODS = [f"g{number}" for number in range(40)]
HOLDING = ["update", "copy"]


@pytest.fixture
def ledger():
    ledger = ShownLedger()
    ledger.commit(**{goods_id: number for number, goods_id in enumerate(GOODS)})
    return ledger


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "writeback"},
        {"on_stale": "wait"},
        {"partition": "goods"},
        {"partition": "key"},
        {"partition": "key", "share": (4, 4)},
        {"partition": "mixed", "share": (-1, 4)},
        {"partition": "value", "share": (0, 4)},
        {"share": (0, 4)},
        {"strategy": "notify", "partition": "value"},
        {"strategy": "notify", "partition": "key", "share": (0, 4)},
        {"max_staleness_s": 0},
        {"max_staleness_s": float("nan")},
        {"poll_s": -1},
        {"max_items": 0},
        {"low_below": 0},
    ],
)
def test_what_does_not_fit_together_is_refused(options):
    """Before anything connects, with a remedy."""
    with pytest.raises(BadSettings) as refused:
        StockCache("", **options)
    assert refused.value.remedy


def test_without_the_extra_copy_says_what_to_install(monkeypatch):
    """The one dependency of `copy` is in the extra `cache`."""
    monkeypatch.setattr("ledger.cache.copy.Map", None)
    with pytest.raises(BadSettings) as refused:
        StockCache("", strategy="copy")
    assert refused.value.remedy == "pip install 'stockledger[cache]'"


def test_without_the_global_lock_update_refuses(monkeypatch):
    """Its reads rely on it; `copy` doesn't."""
    monkeypatch.setattr("sys._is_gil_enabled", lambda: False, raising=False)
    with pytest.raises(BadSettings, match="global lock"):
        StockCache("", strategy="update")
    StockCache("", strategy="copy")


@pytest.mark.parametrize("strategy", HOLDING)
@pytest.mark.parametrize("partition", ["key", "mixed"])
def test_shares_tile_the_goods(strategy, partition, ledger):
    """Each cache holds the goods of its share, loaded or changed; together they hold all, once."""
    caches = [
        Driven(ledger, strategy=strategy, partition=partition, share=(number, 3)).loaded()
        for number in range(3)
    ]
    ledger.commit(g0=7, new=1)
    held: dict[str, StockLevel] = {}
    for number, driven in enumerate(caches):
        driven.poll()
        snapshot = driven.cache.snapshot()
        assert all(share_of(goods_id, 3) == number for goods_id in snapshot)
        assert not held.keys() & snapshot.keys()
        held |= snapshot
    assert held == ledger.stock()


def test_goods_of_another_share_are_no_unknown_goods(ledger):
    """None would say that they were never listed; it is an error of the caller's."""
    driven = Driven(ledger, partition="key", share=(0, 2)).loaded()
    ours, theirs = (next(each for each in GOODS if share_of(each, 2) == number) for number in (0, 1))
    assert driven.cache.get(ours) is not None
    for goods_ids in ([theirs], [ours, theirs]):
        with pytest.raises(ValueError, match=f"{theirs} is of share 1, and this cache holds 0"):
            driven.cache.get_many(goods_ids)
    with pytest.raises(ValueError):
        driven.cache.get(theirs)


@pytest.mark.parametrize("strategy", HOLDING)
@pytest.mark.parametrize("partition", ["value", "mixed"])
def test_goods_stand_in_the_band_of_their_stock(strategy, partition, ledger):
    """After each change each item is in one band, the one of its stock."""
    share = (1, 2) if partition == "mixed" else None
    driven = Driven(ledger, strategy=strategy, partition=partition, share=share, low_below=5).loaded()
    for on_hand in (0, 4, 5, 0, 9, 1):
        ledger.commit(**dict.fromkeys(GOODS[:20], on_hand))
        driven.poll()
        truth = driven.cache.snapshot()
        bands = {band: dict(driven.cache.in_band(band)) for band in BANDS}
        for goods_id, level in truth.items():
            assert [band for band in BANDS if goods_id in bands[band]] == [band_of(level.on_hand, 5)]
        assert {goods_id: level for band in bands.values() for goods_id, level in band.items()} == dict(truth)


def test_bands_are_kept_only_where_they_were_asked_for(ledger):
    """Else it would be a scan in disguise."""
    driven = Driven(ledger).loaded()
    with pytest.raises(BadSettings) as refused:
        driven.cache.in_band("low")
    assert "partition='value'" in refused.value.remedy
    with pytest.raises(ValueError, match="no band few"):
        driven.cache.in_band("few")


def test_notify_has_no_snapshot(ledger):
    """It holds only what was asked for: what it could give would be of no position."""
    driven = Driven(ledger, strategy="notify").loaded()
    for read in (driven.cache.snapshot, lambda: driven.cache.in_band("low")):
        with pytest.raises(BadSettings):
            read()


def test_a_snapshot_stays_as_it_was(ledger):
    """What was handed out isn't changed by what comes after it."""
    for strategy in HOLDING:
        driven = Driven(ledger, strategy=strategy, partition="value").loaded()
        snapshot, band = driven.cache.snapshot(), driven.cache.in_band("ample")
        before = dict(snapshot), dict(band), snapshot.token
        ledger.commit(g30=0)
        driven.poll()
        assert (dict(snapshot), dict(band), snapshot.token) == before
        assert "as of" in repr(snapshot)
