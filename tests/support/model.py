"""An independent model of the ledger, one command after the other: the judge of the end-to-end tests.

It shares no code with the ledger on purpose. A line is a valid command as `publish` takes it, with its
`source` and `id`: `{"type": "ReceiveStock", "id": "1", "source": "shop", "goods_id": "tea", "quantity": 5}`.
"""

from collections import Counter
from typing import Any

STOCK_MAX = 2**53


class Model:
    """Feed it lines in the order in which the ledger took them; then read off what must be true."""

    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str], tuple[str, str | None]] = {}  # of (source, id), with the reason
        self.tally: Counter[str] = Counter()  # deliveries: applied, rejected, duplicate, conflict
        self.stock: dict[str, int] = {}  # pieces by goods_id
        self.versions: Counter[str] = Counter()  # events by stream
        self.purchases: dict[tuple[str, str], dict[str, Any]] = {}  # the applied ones by (source, id)
        self._users: dict[str, str] = {}  # open or closed
        self._payloads: dict[tuple[str, str], dict[str, Any]] = {}

    def feed(self, line: dict[str, Any]) -> str:
        """The outcome of this delivery."""
        key = line["source"], line["id"]
        payload = {"purchase_source": key[0]}  # the default; it matters to a CancelPurchase only
        payload |= {name: v for name, v in line.items() if name not in ("source", "id") and v is not None}
        if key in self._payloads:
            word = "duplicate" if payload == self._payloads[key] else "conflict"
        else:
            self._payloads[key] = payload
            reason = self._apply(key, payload)
            word = "rejected" if reason else "applied"
            self.outcomes[key] = word, reason
        self.tally[word] += 1
        return word

    def _apply(self, key: tuple[str, str], payload: dict[str, Any]) -> str | None:
        """Take the command in, or say why not."""
        user, goods, quantity = (payload.get(name, "") for name in ("user_id", "goods_id", "quantity"))
        refused = {"open": None, "closed": "user_closed"}.get(self._users.get(user, ""), "user_not_found")
        unlisted = goods not in self.stock
        match payload["type"]:
            case "RegisterUser" if user in self._users:
                return "user_already_exists"
            case "CloseUser" | "PurchaseGoods" if refused:
                return refused
            case "RegisterUser" | "CloseUser" as word:
                self._users[user] = "open" if word == "RegisterUser" else "closed"
                self.versions[f"user-{user}"] += 1
                return None
            case "ListGoods":
                return self._move(goods, 0) if unlisted else "goods_already_exist"
            case "ReceiveStock" | "AdjustStock" | "PurchaseGoods" | "CancelPurchase" if unlisted:
                return "goods_not_found"
            case "ReceiveStock":
                return self._move(goods, quantity)
            case "AdjustStock":
                return self._move(goods, payload["delta"])
            case "PurchaseGoods":
                bought = {"user_id": user, "goods_id": goods, "quantity": quantity, "cancelled": False}
                return self._move(goods, -quantity) or self.purchases.update({key: bought})
            case "CancelPurchase":
                bought = self.purchases.get((payload["purchase_source"], payload["purchase_id"]), {})
                if bought.get("goods_id") != goods:
                    return "purchase_not_found"
                if bought["cancelled"]:
                    return "already_cancelled"
                return self._move(goods, bought["quantity"]) or bought.update(cancelled=True)
        raise ValueError(f"not a command: {payload['type']}")

    def _move(self, goods: str, delta: int) -> str | None:
        on_hand = self.stock.get(goods, 0) + delta
        if not 0 <= on_hand <= STOCK_MAX:
            return "insufficient_stock" if on_hand < 0 else "stock_limit"
        self.stock[goods] = on_hand
        self.versions[f"goods-{goods}"] += 1
        return None
