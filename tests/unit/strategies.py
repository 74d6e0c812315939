"""Generators for Hypothesis: every valid command, and stories in which few users fight over few goods."""

import unicodedata
from typing import Any, NamedTuple

from hypothesis import Phase, settings
from hypothesis import strategies as st

from ledger.domain.commands import (
    KEY_PART_MAX,
    PRICE_MINOR_MAX,
    QUANTITY_MAX,
    AdjustStock,
    AnyCommand,
    CancelPurchase,
    CloseUser,
    ListGoods,
    MessageKey,
    PurchaseGoods,
    ReceiveStock,
    RegisterUser,
)


def quick(examples: int) -> settings:
    """No explanation of a failure: for a story of 40 commands it took minutes."""
    phases = [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]
    return settings(max_examples=examples, phases=phases, report_multiple_bugs=False)


# Every valid command, over the whole range of each field.

key_parts = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=KEY_PART_MAX)
keys = st.builds(MessageKey, key_parts, key_parts)
business_ids = (
    st.text(
        st.just(" ") | st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=64
    )
    .map(lambda text: unicodedata.normalize("NFC", text).strip(" "))
    .filter(lambda text: 1 <= len(text) <= 64 and text.isprintable())
)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=200)
quantities = st.integers(1, QUANTITY_MAX)
deltas = quantities | quantities.map(lambda quantity: -quantity)
prices = st.integers(0, PRICE_MINOR_MAX)

commands: st.SearchStrategy[AnyCommand] = st.one_of(
    st.builds(RegisterUser, name=st.none() | texts, user_id=business_ids),
    st.builds(CloseUser, user_id=business_ids),
    st.builds(ListGoods, goods_id=business_ids, name=st.none() | texts),
    st.builds(ReceiveStock, goods_id=business_ids, quantity=quantities),
    st.builds(AdjustStock, delta=deltas, goods_id=business_ids, note=st.none() | texts),
    st.builds(
        PurchaseGoods,
        goods_id=business_ids,
        quantity=quantities,
        unit_price_minor=st.none() | prices,
        user_id=business_ids,
    ),
    st.builds(
        CancelPurchase, goods_id=business_ids, purchase_id=key_parts, purchase_source=st.none() | key_parts
    ),
)


# Stories: commands that meet each other. As JSON lines, because that is what the model reads.

Line = dict[str, Any]

_users = st.sampled_from(["anna", "bob", "carol"])
_goods = st.sampled_from(["tea", "tea", "milk"])
_few = st.integers(1, 4)
_quantities = st.sampled_from([1, 1, 2, 2, 3, 3, 4, 4, 5, 8, 9, QUANTITY_MAX])
_sources = st.sampled_from(["shop", "shop", "shop", "crm"])
_fields: dict[str, st.SearchStrategy[Line]] = {
    "RegisterUser": st.fixed_dictionaries(
        {"user_id": _users}, optional={"name": st.sampled_from(["A", None])}
    ),
    "CloseUser": st.fixed_dictionaries({"user_id": _users}),
    "ListGoods": st.fixed_dictionaries({"goods_id": _goods}, optional={"name": st.sampled_from(["T", None])}),
    "ReceiveStock": st.fixed_dictionaries({"goods_id": _goods, "quantity": _quantities}),
    "AdjustStock": st.fixed_dictionaries(
        {"goods_id": _goods, "delta": _quantities | _quantities.map(lambda quantity: -quantity)},
        optional={"note": st.sampled_from(["counted", None])},
    ),
    "PurchaseGoods": st.fixed_dictionaries(
        {"user_id": _users, "goods_id": _goods, "quantity": _few},
        optional={"unit_price_minor": st.sampled_from([0, 250, None])},
    ),
    "CancelPurchase": st.fixed_dictionaries(
        {"goods_id": _goods, "purchase_id": st.just("unknown")},
        optional={"purchase_source": st.sampled_from(["shop", "crm", None])},
    ),
}
_weights = {"RegisterUser": 2, "CloseUser": 1, "ListGoods": 1, "ReceiveStock": 4, "AdjustStock": 2}
_bodies = st.one_of(
    [
        st.builds(lambda name, drawn: {"type": name, **drawn}, st.just(name), fields)
        for name, fields in _fields.items()
        for _ in range(_weights.get(name, 5))
    ]
)


class _Step(NamedTuple):
    """One delivery to come: a new command, or another delivery of an earlier one, changed or not."""

    body: Line
    source: str
    kind: str
    back: int  # which of the earlier ones it refers to


def _steps(kinds: list[str]) -> st.SearchStrategy[_Step]:
    return st.builds(_Step, _bodies, _sources, st.sampled_from(kinds), st.integers(0, 50))


def _told(steps: list[_Step]) -> list[Line]:
    """The lines of the steps: ids counted up, references to earlier lines resolved."""
    lines: list[Line] = []
    purchases: list[Line] = []
    for number, step in enumerate(steps):
        line = {**step.body, "source": step.source, "id": str(number)}
        earlier = lines[step.back % len(lines)] if lines else line
        bought = purchases[step.back % len(purchases)] if purchases else None
        if step.kind == "again":
            line = dict(reversed(earlier.items()))
        elif step.kind == "changed":
            line = line | {"source": earlier["source"], "id": earlier["id"]}
        elif line["type"] == "CancelPurchase" and bought:
            line["purchase_id"] = bought["id"]
            if step.kind == "fitting":
                line |= {"goods_id": bought["goods_id"], "purchase_source": bought["source"]}
        elif line["type"] == "ReceiveStock" and bought and step.kind == "fitting":
            line |= {
                "goods_id": bought["goods_id"],
                "quantity": bought["quantity"],
            }  # the shelf is full again
        elif line["type"] == "PurchaseGoods":
            purchases.append(line)
        lines.append(line)
    return lines


_opening: list[Line] = [
    {"type": "RegisterUser", "user_id": "anna", "source": "shop", "id": "u1"},
    {"type": "RegisterUser", "user_id": "bob", "source": "shop", "id": "u2"},
    {"type": "RegisterUser", "user_id": "carol", "source": "shop", "id": "u3"},
    {"type": "ListGoods", "goods_id": "tea", "source": "shop", "id": "g1"},
    {"type": "ListGoods", "goods_id": "milk", "source": "shop", "id": "g2"},
    {"type": "ReceiveStock", "goods_id": "milk", "quantity": 5, "source": "shop", "id": "r1"},
]


def _lists(steps: st.SearchStrategy[_Step]) -> st.SearchStrategy[list[Line]]:
    # Left alone, Hypothesis makes lists of five: too short for the goods to sell out.
    told = (st.lists(steps, max_size=8) | st.lists(steps, min_size=15, max_size=40)).map(_told)
    openings = st.sampled_from([_opening, _opening, _opening[:3], []])  # all, users alone, nothing
    return st.builds(lambda opening, lines: opening + lines, openings, told)


stories = _lists(_steps(["new", "new", "fitting", "fitting", "fitting", "again", "changed"]))
"""Deliveries in order, with repeats and with known ids that carry another payload."""

unrepeated_stories = _lists(_steps(["new", "fitting", "fitting"]))
"""Deliveries in order, each with an id of its own."""

opening_stocks = st.sampled_from([None, 3, 2**53 - 2, 2**53 - 1, 2**53, 2**53])
"""What "tea" begins with: not even listed, or that many pieces (receipts alone can't reach the limit)."""
