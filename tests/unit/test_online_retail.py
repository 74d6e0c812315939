"""The real input: what the shop's data say, and that every line of it becomes a valid command."""

import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import pytest

from ledger.domain.commands import (
    AdjustStock,
    AnyCommand,
    ListGoods,
    PurchaseGoods,
    ReceiveStock,
    RegisterUser,
)
from producer.jsonl import Item, parse
from producer.lines import read_blocks
from stockledger.online_retail import DAY, SOURCE, commands, read_rows

ROOT = Path(__file__).parents[2]
MONTH = ROOT.parent / "shared/data/online_retail_2010-12.csv"
RFC_3986 = re.compile(r"(user|goods|stock)-([A-Za-z0-9._~-]|%[0-9A-F]{2})+")


class Facts(NamedTuple):
    """What is known of a file, counted by other means."""

    lines: int
    goods: int
    users: int
    returns: int
    guests: int


@pytest.fixture(
    params=[(DAY, Facts(3108, 1351, 98, 26, 1140)), (MONTH, Facts(42_481, 2822, 948, 728, 15_631))],
    ids=["day", "month"],
)
def data(request):
    path, facts = request.param
    if not path.exists():
        pytest.skip(f"{path.name} isn't part of the repository")
    return list(read_rows(path)), facts


def lines_of(file, end):
    """The lines that aren't blank among the first `end` bytes."""
    return (line for block in read_blocks(file, end) for line in block.lines())


def test_the_data_are_what_their_description_says(data):
    """Lines, goods, known users, lines of returns and lines without a user."""
    rows, facts = data
    assert facts == Facts(
        lines=len(rows),
        goods=len({row.goods_id for row in rows}),
        users=len({row.user_id for row in rows} - {""}),
        returns=sum(row.invoice.startswith("C") for row in rows),
        guests=sum(not row.user_id for row in rows),
    )


def test_every_line_becomes_one_command_in_file_order(data):
    """A purchase, a receipt for a return, or a correction; nothing is dropped and no id occurs twice."""
    rows, _ = data
    _, purchases = commands(rows)
    assert [key.id for key, _ in purchases] == [f"{row.invoice}-{row.line}" for row in rows]
    assert len({key for key, _ in purchases}) == len(rows)
    for row, (key, command) in zip(rows, purchases, strict=True):
        assert key.source == SOURCE
        if row.quantity > 0:
            buyer = row.user_id or "guest"
            wanted: AnyCommand = PurchaseGoods(user_id=buyer, goods_id=row.goods_id, quantity=row.quantity)
        elif row.invoice.startswith("C"):
            wanted = ReceiveStock(goods_id=row.goods_id, quantity=-row.quantity)
        else:
            wanted = AdjustStock(goods_id=row.goods_id, delta=row.quantity)
        assert command == wanted


def test_the_setup_registers_lists_and_stocks(data):
    """Every known user once, every item once, and then nine tenths of what is bought as stock."""
    rows, facts = data
    setup, _ = commands(rows)
    users = [command.user_id for _, command in setup if isinstance(command, RegisterUser)]
    assert (len(users), set(users)) == (facts.users, {row.user_id for row in rows} - {""})
    goods = [command.goods_id for _, command in setup if isinstance(command, ListGoods)]
    assert (len(goods), set(goods)) == (facts.goods, {row.goods_id for row in rows})
    stocks = {command.goods_id: command.quantity for _, command in setup if isinstance(command, ReceiveStock)}
    bought = dict.fromkeys(goods, 0)
    for row in rows:
        bought[row.goods_id] += max(row.quantity, 0)
    for goods_id, quantity in bought.items():
        assert stocks.get(goods_id, 0) == int(Fraction(9, 10) * quantity)
    assert len(setup) == len(users) + len(goods) + len(stocks)
    places = {key.id: place for place, (key, _) in enumerate(setup)}
    assert len(places) == len(setup)
    assert all(RFC_3986.fullmatch(id) for id in places)
    stocked = [id.removeprefix("stock-") for id in places if id.startswith("stock-")]
    assert all(places[f"goods-{goods_id}"] < places[f"stock-{goods_id}"] for goods_id in stocked)


def test_ids_are_percent_encoded():
    """A goods' id that isn't visible ASCII still makes an id of visible ASCII; unreserved characters stay."""
    [row, *_] = read_rows(DAY)
    setup, _ = commands([row._replace(goods_id="BANK CHARGES/é~a-b_c.d")])
    assert [key.id for key, _ in setup][1:] == [
        "goods-BANK%20CHARGES%2F%C3%A9~a-b_c.d",
        "stock-BANK%20CHARGES%2F%C3%A9~a-b_c.d",
    ]


def test_the_script_writes_files_that_can_be_published(tmp_path):
    """What the script writes is read back, line by line, as the same commands."""
    script = [
        sys.executable,
        ROOT / "examples/online_retail.py",
        ROOT / "stockledger/online_retail_2010-12-01.csv",
        tmp_path / "out",
        "--day",
        "2010-12-01",
    ]
    told = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    assert "setup.jsonl: 2469 commands" in told
    assert "purchases.jsonl: 3108 commands" in told
    for name, keyed in zip(("setup.jsonl", "purchases.jsonl"), commands(read_rows(DAY)), strict=True):
        path = tmp_path / "out" / name
        with path.open("rb") as file:
            items = [parse(name, line, "") for line in lines_of(file, path.stat().st_size)]
        assert items == [Item(key.source, key.id, command) for key, command in keyed]


def test_a_day_is_picked_out():
    """`--day` takes the lines of one day; another day has none in this file."""
    assert len(list(read_rows(DAY, "2010-12-01"))) == 3108
    assert list(read_rows(DAY, "2010-12-02")) == []
