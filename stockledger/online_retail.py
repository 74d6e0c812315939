"""A real shop's invoice lines as commands: the input of the demo and of examples/online_retail.py.

Users and goods live on different lanes: let the set-up be applied before the purchases are published. Then
every outcome and every stock level is determined.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from ledger.domain.commands import (
    AdjustStock,
    AnyCommand,
    ListGoods,
    MessageKey,
    PurchaseGoods,
    ReceiveStock,
    RegisterUser,
)
from producer.jsonl import to_line

DAY = Path(__file__).with_name("online_retail_2010-12-01.csv")
"""One day of the shop, shipped with the program; examples/README.md says where it is from."""
SOURCE = "online-retail"
GUEST = "guest"
"""Who buys where the data names nobody. Never registered, so these purchases are rejected."""

Keyed = tuple[MessageKey, AnyCommand]


class InvoiceLine(NamedTuple):
    """An invoice line; `line` counts from 1 within the invoice, `user_id` may be empty."""

    invoice: str
    line: str
    goods_id: str
    quantity: int
    user_id: str


def read_rows(path: Path, day: str = "") -> Iterator[InvoiceLine]:
    """The rows of the CSV in file order, all of them or those of one day (`2010-12-01`)."""
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["invoiced_at"].startswith(day):
                yield InvoiceLine(
                    row["invoice"], row["line"], row["goods_id"], int(row["quantity"]), row["user_id"]
                )


def commands(rows: Iterable[InvoiceLine]) -> tuple[list[Keyed], list[Keyed]]:
    """The set-up and the purchases: every row becomes one command, none is dropped."""
    rows = list(rows)
    users = dict.fromkeys(row.user_id for row in rows if row.user_id)
    bought = Counter({row.goods_id: 0 for row in rows})
    for row in rows:
        bought[row.goods_id] += max(row.quantity, 0)
    setup = [_keyed(f"user-{_encoded(user_id)}", RegisterUser(user_id=user_id)) for user_id in users]
    for goods_id, quantity in bought.items():
        setup.append(_keyed(f"goods-{_encoded(goods_id)}", ListGoods(goods_id=goods_id)))
        if stock := quantity * 9 // 10:  # a tenth too little, so that goods sell out
            received = ReceiveStock(goods_id=goods_id, quantity=stock)
            setup.append(_keyed(f"stock-{_encoded(goods_id)}", received))
    return setup, [_keyed(f"{row.invoice}-{row.line}", _command(row)) for row in rows]


def _command(row: InvoiceLine) -> AnyCommand:
    if row.quantity > 0:
        return PurchaseGoods(user_id=row.user_id or GUEST, goods_id=row.goods_id, quantity=row.quantity)
    if row.quantity < 0 and row.invoice.startswith("C"):  # a return
        return ReceiveStock(goods_id=row.goods_id, quantity=-row.quantity)
    return AdjustStock(goods_id=row.goods_id, delta=row.quantity)


def _keyed(id: str, command: AnyCommand) -> Keyed:
    return MessageKey(SOURCE, id), command


def _encoded(text: str) -> str:
    """Percent-encoded by RFC 3986: an id holds visible ASCII only."""
    return quote(text, safe="")


def write_files(rows: Iterable[InvoiceLine], folder: Path) -> dict[Path, int]:
    """Make `setup.jsonl` and `purchases.jsonl` in the folder; returns how many commands each holds."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for name, keyed in zip(("setup.jsonl", "purchases.jsonl"), commands(rows), strict=True):
        with (folder / name).open("wb") as out:
            out.writelines(to_line(key, command) for key, command in keyed)
        written[folder / name] = len(keyed)
    return written
