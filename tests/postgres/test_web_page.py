"""The how-to of caches in a web application, its Python run block by block."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ledger.cache.stock_cache import StockCache
from ledger.domain.commands import ListGoods, ReceiveStock
from ledger.domain.token import Token
from ledger.errors import HistoryChanged
from ledger.store.connection import database
from ledger.store.tables import journal
from tests.support.batches import Lanes, says
from tests.support.cli import Cli
from tests.support.pages import typed

PAGE = Path(__file__).parents[2] / "docs/how-to" / "web-application.md"
SHOWN = "/dev/shm/stock"


@pytest.fixture
def blocks(ledger_dsn, monkeypatch):
    """The page's blocks of Python, on a ledger that has what they ask for."""
    monkeypatch.setenv("STOCKLEDGER_DSN", ledger_dsn)
    with database.connect(ledger_dsn, purpose="test") as conn:
        lanes = Lanes(conn)
        for number, goods_id in enumerate(("85123A", "22720")):
            listed = says(f"l{number}", ListGoods(goods_id=goods_id))
            lanes.apply(0, listed, says(f"r{number}", ReceiveStock(goods_id=goods_id, quantity=6)))
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def test_what_the_page_shows_works(blocks, ledger_dsn, monkeypatch, capsys):
    """One process, tokens, gunicorn's hooks, an asyncio application, lists: in the page's order."""
    shop: Any = ModuleType("shop")
    gunicorn: Any = ModuleType("gunicorn.conf")
    one, token, hooks, _, aio, lists = blocks
    for block in (one, token, aio):
        exec(block, shop.__dict__)
    try:
        assert shop.level.on_hand == shop.page["22720"].on_hand == 6
        with database.connect(ledger_dsn, purpose="test") as conn:
            place = str(Token.at(*journal.tip(conn)))
        assert shop.stock_for("85123A", place) == shop.level
        assert shop.stock_for("85123A", f"1-{'0' * 16}") == shop.level
        with pytest.raises(HistoryChanged):
            shop.cache.get("85123A", at_least=f"1-{'0' * 16}")
        assert asyncio.run(shop.stock("85123A", place)) == shop.level
        assert asyncio.run(shop.stock("none")) is None
    finally:
        shop.cache.close()
    shop.cache = StockCache(ledger_dsn)
    monkeypatch.setitem(sys.modules, "shop", shop)
    exec(hooks, gunicorn.__dict__)
    gunicorn.post_fork(None, None)
    assert shop.cache.get("85123A") == shop.level
    gunicorn.worker_exit(None, None)
    exec(lists, shop.__dict__)
    assert capsys.readouterr().out.splitlines()[-1].startswith("2 2 ")


def test_one_copy_for_a_host_works(blocks, ledger_dsn, tmp_path):
    """Its commands as they stand there, and what reads the folder meanwhile."""
    folder, shop = str(tmp_path / "stock"), ModuleType("shop")
    lines = [line for line in typed(PAGE.read_text(encoding="utf-8")) if line.language == "sh"]
    feed, check = (line.text.replace(SHOWN, folder).split()[1:] for line in lines)
    cli = Cli(ledger_dsn, "localhost:1", "none")
    with subprocess.Popen([sys.executable, "-m", "stockledger", *feed], env=cli.environment) as feeder:
        try:
            exec(blocks[3].replace(SHOWN, folder), shop.__dict__)
            assert shop.host.get("85123A").on_hand == 6
            shop.host.close()
            assert cli(*check)["agrees"]
        finally:
            feeder.terminate()
    assert feeder.returncode == 0
