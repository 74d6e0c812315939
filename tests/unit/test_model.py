"""The judge is judged: the model of the end-to-end tests and the ledger's core agree, and both by hand."""

import json
from collections import Counter
from typing import Any

from hypothesis import given, settings

from ledger.domain.commands import MessageKey
from ledger.domain.decider import State, decide, evolve, fold
from ledger.domain.delivery import Request
from ledger.domain.events import GoodsListed, StockReceived
from ledger.domain.outcome import Rejection
from tests.support.codecs import decode
from tests.support.model import Model
from tests.unit.strategies import Line, opening_stocks, quick, stories

QUICK = quick(100)


def request(line: Line) -> Request:
    """The line's command as a consumer gets it: through a record and the decoder."""
    headers = {
        "ce_specversion": "1.0",
        "ce_id": line["id"],
        "ce_source": line["source"],
        "ce_type": f"stockledger.{line['type']}.v1",
    }
    fields = {name: value for name, value in line.items() if name not in ("type", "id", "source")}
    found = decode([(name, text.encode()) for name, text in headers.items()], json.dumps(fields).encode())
    assert isinstance(found, Request), found
    return found


REASONS = {
    "RegisterUser": ["user_already_exists"],
    "CloseUser": ["user_not_found", "user_closed"],
    "ListGoods": ["goods_already_exist"],
    "ReceiveStock": ["goods_not_found", "stock_limit"],
    "AdjustStock": ["goods_not_found", "insufficient_stock", "stock_limit"],
    "PurchaseGoods": ["user_not_found", "user_closed", "goods_not_found", "insufficient_stock"],
    "CancelPurchase": ["goods_not_found", "purchase_not_found", "already_cancelled", "stock_limit"],
}
"""The design's table: why a command may be rejected."""


class Core:
    """The ledger without a database: the register, `decide` and `evolve`."""

    def __init__(self) -> None:
        self.state = State()
        self.outcomes: dict[MessageKey, tuple[str, str | None]] = {}
        self.versions: Counter[str] = Counter()
        self._fingerprints: dict[MessageKey, bytes] = {}

    def feed(self, line: Line) -> str:
        asked = request(line)
        key, fingerprint = asked.key, asked.fingerprint
        if key in self._fingerprints:
            return "duplicate" if fingerprint == self._fingerprints[key] else "conflict"
        self._fingerprints[key] = fingerprint
        answer = decide(self.state, asked)
        if isinstance(answer, Rejection):
            self.outcomes[key] = "rejected", str(answer.reason)
        else:
            self.outcomes[key] = "applied", None
            place = evolve(self.state, key, answer)
            self.versions[place.stream] = place.version
        return self.outcomes[key][0]


def opened(stock: int | None) -> tuple[Model, Core]:
    """Both, with the same tea in stock."""
    model, core = Model(), Core()
    if stock is not None:
        model.stock["tea"] = stock
        model.versions["goods-tea"] = core.versions["goods-tea"] = 2
        own = MessageKey("opening", "")
        received = StockReceived(goods_id="tea", quantity=stock)
        core.state = fold([(own, GoodsListed(goods_id="tea")), (own, received)])
    return model, core


@QUICK
@given(stories, opening_stocks)
def test_model_and_core_agree(lines, stock):
    """On any history both give every delivery the same outcome and end with the same stock and purchases."""
    model, core = opened(stock)
    words = [(model.feed(line), core.feed(line)) for line in lines]
    assert [word for word, _ in words] == [word for _, word in words]
    assert model.outcomes == core.outcomes
    assert model.stock == {goods_id: goods.on_hand for goods_id, goods in core.state.goods.items()}
    assert model.versions == core.versions
    assert {key: tuple(bought.values()) for key, bought in model.purchases.items()} == {
        key: (bought.user_id, bought.goods_id, bought.quantity, bought.cancelled)
        for key, bought in core.state.purchases.items()
    }


def test_the_stories_reach_every_outcome():
    """The generator is audited: what it never makes would never be judged."""
    seen: Counter[str] = Counter()

    @settings(max_examples=200, derandomize=True, database=None)
    @given(stories, opening_stocks)
    def watch(lines, stock):
        model, _ = opened(stock)
        for line in lines:
            word = model.feed(line)
            seen[word] += 1
            seen[f"{line['type']} {word} {model.outcomes[line['source'], line['id']][1]}"] += 1

    watch()
    wanted = ["duplicate", "conflict"]
    for name, reasons in REASONS.items():
        wanted += [f"{name} applied None", *(f"{name} rejected {reason}" for reason in reasons)]
    assert [what for what in wanted if not seen[what]] == []


def test_the_model_by_hand():
    """A story whose outcomes were worked out on paper: the model isn't only as wrong as the core."""
    tea = {"source": "shop", "goods_id": "tea"}
    anna = {"source": "shop", "user_id": "anna"}
    story: list[tuple[dict[str, Any], str, str | None]] = [
        ({**anna, "id": "u", "type": "RegisterUser"}, "applied", None),
        ({**anna, "id": "u", "type": "RegisterUser", "name": None}, "duplicate", None),
        ({**anna, "id": "u", "type": "RegisterUser", "name": "Anna"}, "conflict", None),
        ({**anna, "id": "u2", "type": "RegisterUser"}, "rejected", "user_already_exists"),
        ({**tea, "id": "r0", "type": "ReceiveStock", "quantity": 5}, "rejected", "goods_not_found"),
        ({**tea, "id": "g", "type": "ListGoods"}, "applied", None),
        ({**tea, "id": "g2", "type": "ListGoods"}, "rejected", "goods_already_exist"),
        ({**tea, "id": "r", "type": "ReceiveStock", "quantity": 5}, "applied", None),
        ({**tea, "id": "r0", "type": "ReceiveStock", "quantity": 5}, "duplicate", "goods_not_found"),
        ({**tea, **anna, "id": "p", "type": "PurchaseGoods", "quantity": 5}, "applied", None),
        (
            {**tea, **anna, "id": "q", "type": "PurchaseGoods", "quantity": 1},
            "rejected",
            "insufficient_stock",
        ),
        ({**tea, "id": "c0", "type": "CancelPurchase", "purchase_id": "q"}, "rejected", "purchase_not_found"),
        ({**tea, "id": "c", "type": "CancelPurchase", "purchase_id": "p"}, "applied", None),
        (
            {**tea, "id": "c", "type": "CancelPurchase", "purchase_id": "p", "purchase_source": "shop"},
            "duplicate",
            None,
        ),
        ({**tea, "id": "c2", "type": "CancelPurchase", "purchase_id": "p"}, "rejected", "already_cancelled"),
        ({**tea, "id": "a", "type": "AdjustStock", "delta": -6}, "rejected", "insufficient_stock"),
        ({**tea, "id": "a2", "type": "AdjustStock", "delta": -2}, "applied", None),
        ({**anna, "id": "x", "type": "CloseUser"}, "applied", None),
        ({**tea, **anna, "id": "p2", "type": "PurchaseGoods", "quantity": 1}, "rejected", "user_closed"),
        ({**tea, **anna, "id": "p2", "type": "PurchaseGoods", "quantity": 2}, "conflict", "user_closed"),
    ]
    model = Model()
    for line, word, reason in story:
        assert model.feed(line) == word, line
        assert model.outcomes[line["source"], line["id"]][1] == reason, line
    assert model.stock == {"tea": 3}
    assert model.versions == {"user-anna": 2, "goods-tea": 5}
    assert model.tally == {"applied": 7, "rejected": 8, "duplicate": 3, "conflict": 2}
    assert model.purchases["shop", "p"] == {
        "user_id": "anna",
        "goods_id": "tea",
        "quantity": 5,
        "cancelled": True,
    }
