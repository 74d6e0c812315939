"""A host's folder without a ledger: what a reader sees while it is written."""

import os
import time
from functools import partial

from ledger.cache.files import About, Files
from ledger.cache.host_sink import HostSink
from ledger.cache.host_view import HostView
from ledger.cache.sink import News, Point
from ledger.cache.strategy import Terms
from ledger.store.tables.stock import StockLevel
from tests.support.forks import child

ENTRIES = 2_000
PAIR = ["cup", "tea"]


def test_a_reader_never_sees_half_of_an_entry(tmp_path):
    """Another process writes two items and the position, again and again: they are always of one entry."""
    folder = tmp_path / "stock"
    pid = child(partial(write, folder))
    try:
        view = opened(folder)
        seen = 0
        while seen < ENTRIES:
            at, levels = view.many(PAIR)
            assert at.point is not None
            assert [level and level.version for level in levels.values()] == [at.point.position] * 2
            assert at.point.position >= seen
            seen = at.point.position
        view.files.close()
    finally:
        os.waitpid(pid, 0)


def write(folder):
    sink = HostSink(folder, About())
    loading = sink.load()
    loading.put([StockLevel(goods_id, 1, 1) for goods_id in PAIR])
    loading.done(Point(1, bytes(32)), time.monotonic())
    for number in range(2, ENTRIES + 1):
        at = Point(number, bytes(32))
        sink.take(
            News([StockLevel(goods_id, number, number) for goods_id in PAIR], [at], at, time.monotonic())
        )
    sink.close()


def opened(folder):
    """Once it has been filled."""
    while True:
        try:
            view = HostView(Files(folder, writes=False), Terms(60))
        except Exception:  # noqa: BLE001 (not there yet)
            time.sleep(0.01)
            continue
        if view.view.point:
            return view
        view.files.close()
