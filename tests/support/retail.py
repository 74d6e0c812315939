"""The real input for the end-to-end tests, its deliveries, and what must come of them.

`MONTH` is the whole month where it lies beside the repository, else the day that the repository carries.
`judge` holds the ledger against the independent model; it never reads an event.
"""

import json
import random
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psycopg

from ledger.domain.commands import COMMANDS
from producer.publisher import Publisher
from stockledger import online_retail
from tests.support.model import Model

ROOT = Path(__file__).parents[2]
DAY = online_retail.DAY
_MONTH = ROOT.parent / "shared" / "data" / "online_retail_2010-12.csv"
MONTH = _MONTH if _MONTH.exists() else DAY
PATIENCE_S = 120
LOOK_INTERVAL_S = 0.05

Line = dict[str, Any]

DELIVERED = "SELECT coalesce(sum(next_offset - first_offset), 0)::int8 FROM ledger.journal_entries"
COUNTS = """
SELECT sum(applied)::int8, sum(rejected)::int8, sum(duplicate)::int8, sum(conflict)::int8, sum(dead)::int8,
       sum(skipped)::int8
FROM ledger.journal_entries
"""
OUTCOMES = "SELECT source, id, outcome, reason FROM ledger.outcomes"
STOCK = "SELECT goods_id, on_hand, version FROM ledger.stock_levels"
PURCHASES = "SELECT source, id, user_id, goods_id, quantity, cancelled FROM ledger.purchases"


def write_files(csv: Path, folder: Path) -> tuple[Path, Path]:
    """`setup.jsonl` and `purchases.jsonl` of these invoice lines."""
    setup, purchases = online_retail.write_files(online_retail.read_rows(csv), folder)
    return setup, purchases


def read_lines(path: Path) -> list[Line]:
    """The commands of a file, as the model takes them."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def shuffled_deliveries(purchases: list[Line], seed: int, copies_max: int = 3) -> list[Line]:
    """Each line 1 to `copies_max` times in a random order, but an item's first deliveries in the given order.

    So every outcome stays determined: the places are drawn blindly, then an item's places are filled with its
    lines in the order in which new ones turn up.
    """
    choose = random.Random(seed)
    places = [line for line in purchases for _ in range(choose.randint(1, copies_max))]
    choose.shuffle(places)
    waiting: dict[str, list[Line]] = {}
    for line in reversed(purchases):
        waiting.setdefault(line["goods_id"], []).append(line)
    filled: dict[str, Line] = {}
    for place in places:
        if place["id"] not in filled:
            filled[place["id"]] = waiting[place["goods_id"]].pop()
    return [filled[place["id"]] for place in places]


def send(publisher: Publisher, lines: Iterable[Line]) -> None:
    """Send the lines in order; all are acknowledged when this returns."""
    for line in lines:
        fields = {name: value for name, value in line.items() if name not in ("type", "source", "id")}
        publisher.send(COMMANDS[line["type"]](**fields), id=line["id"], source=line["source"])
    publisher.flush()
    publisher.check()


def delivered(conn: psycopg.Connection) -> int:
    """How many offsets the journal accounts for."""
    [(offsets,)] = conn.execute(DELIVERED).fetchall()
    return int(offsets)


def wait_for_deliveries(conn: psycopg.Connection, count: int) -> None:
    """Return once the journal accounts for so many offsets, all of a new ledger's topic."""
    deadline = time.monotonic() + PATIENCE_S
    while (done := delivered(conn)) < count:
        assert time.monotonic() < deadline, f"{done} of {count} deliveries after {PATIENCE_S} s"
        time.sleep(LOOK_INTERVAL_S)


def model_of(lines: Iterable[Line]) -> Model:
    """The model after these lines, one after the other."""
    model = Model()
    for line in lines:
        model.feed(line)
    return model


def judge(conn: psycopg.Connection, model: Model, deliveries: int) -> None:
    """Outcome and reason of every id, stock, purchases and the counts of deliveries are the model's."""
    outcomes = {(source, id): (word, reason) for source, id, word, reason in conn.execute(OUTCOMES)}
    require_same("outcome", outcomes, model.outcomes)
    stock = {goods: (on_hand, version) for goods, on_hand, version in conn.execute(STOCK)}
    expected = {goods: (pieces, model.versions[f"goods-{goods}"]) for goods, pieces in model.stock.items()}
    require_same("stock and version", stock, expected)
    bought = {(source, id): fields for source, id, *fields in conn.execute(PURCHASES)}
    require_same("purchase", bought, {key: [*fields.values()] for key, fields in model.purchases.items()})
    counts = conn.execute(COUNTS).fetchone()
    told = (model.tally["applied"], model.tally["rejected"], deliveries - len(model.outcomes), 0, 0, 0)
    assert counts == told, f"deliveries by outcome: {counts}, expected {told}"


def require_same(what: str, found: Mapping[Any, object], expected: Mapping[Any, object]) -> None:
    """Fail with the first few keys at which the two differ."""
    keys = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
    words = [f"{key}: {found.get(key)}, expected {expected.get(key)}" for key in keys[:5]]
    assert not keys, f"{len(keys)} times another {what}: {'; '.join(words)}"
