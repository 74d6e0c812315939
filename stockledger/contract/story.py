"""Records to show: commands, one of them rejected, and what the ledger and the relay make of them."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from ledger.domain.commands import (
    AdjustStock,
    AnyCommand,
    CancelPurchase,
    CloseUser,
    ListGoods,
    MessageKey,
    PurchaseGoods,
    ReceiveStock,
    RegisterUser,
    record_key,
)
from ledger.domain.decider import State, decide, evolve
from ledger.domain.delivery import Lane
from ledger.domain.envelope import encode, request
from ledger.domain.events import payload
from ledger.domain.outcome import Rejection
from ledger.domain.token import Token
from ledger.store.reads.columns import EventColumns, OutcomeColumns
from ledger.store.reads.history import StoredEvent
from ledger.store.tables.stock import StockLevel
from producer.relay.outputs import (
    CommandDecided,
    OutgoingRecord,
    Outputs,
    RelayedStock,
    of_events,
    of_outcomes,
    of_stock,
)

SOURCE, USER, GOODS = "shop-uk", "17850", "85123A"
LEDGER = "/stockledger/5L6g3nShT-eMCtK--X86sw/stockledger"
BEGIN, FIRST_POSITION, FIRST_OFFSET = datetime(2026, 11, 1, 10, tzinfo=UTC), 18_402, 5_512
COMMANDS: dict[str, AnyCommand] = {
    "user-17850": RegisterUser(user_id=USER, name="Anna"),
    "goods-85123A": ListGoods(goods_id=GOODS, name="White hanging heart"),
    "delivery-7": ReceiveStock(goods_id=GOODS, quantity=100),
    "count-3": AdjustStock(goods_id=GOODS, delta=-2, note="broken"),
    "order-42": PurchaseGoods(user_id=USER, goods_id=GOODS, quantity=6, unit_price_minor=255),
    "order-43": PurchaseGoods(user_id=USER, goods_id=GOODS, quantity=500),
    "return-42": CancelPurchase(goods_id=GOODS, purchase_id="order-42"),
    "goodbye-17850": CloseUser(user_id=USER),
}
"""By their ids, in the order in which they are applied, each as a journal entry of its own."""


def told(topic: str, outputs: Outputs) -> Iterator[tuple[str, OutgoingRecord]]:
    """Each record, of this topic and of the relay's, with the name of its value's schema."""
    state = State()
    for number, (id, command) in enumerate(COMMANDS.items()):
        time, position = BEGIN + timedelta(minutes=number), FIRST_POSITION + number
        key, hash = MessageKey(SOURCE, id), hashlib.sha256(str(position).encode()).digest()
        headers, value = encode(key, command)
        sent = [(name, text) for name, text in headers if text is not None]
        yield command.NAME, OutgoingRecord(topic, record_key(command).encode(), value, sent)

        asked = request(key, command)
        decided = decide(state, asked)
        reason = decided.reason if isinstance(decided, Rejection) else None
        token = str(Token.at(position, hash))
        outcome = OutcomeColumns(
            position, time, [str(FIRST_OFFSET + number).encode()], [(reason or "").encode()],
            [asked.fingerprint.hex().encode()], [key.source.encode()], [key.id.encode()],
        )  # fmt: skip
        for record in of_outcomes(outputs.outcomes, outcome, LEDGER, token, Lane(topic, 0)):
            yield CommandDecided.__name__, record
        if isinstance(decided, Rejection):
            continue

        place = evolve(state, key, decided)
        text = payload(decided).decode()
        stored = StoredEvent(position, 0, place.stream, place.version, decided.TYPE, text, *key, time)
        for record in of_events(outputs.events, EventColumns.of(stored), LEDGER, token):
            yield decided.TYPE, record
        if decided.stock_delta:
            goods = state.goods[GOODS]
            level = StockLevel(GOODS, goods.on_hand, goods.version)
            yield RelayedStock.__name__, of_stock(outputs.stock, level, token)
