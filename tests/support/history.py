"""A small ledger that has everything once: all outcomes, most reasons, gaps, odd bytes, awkward texts."""

from ledger.api import Ledger
from ledger.domain.commands import (
    AdjustStock,
    CancelPurchase,
    CloseUser,
    ListGoods,
    PurchaseGoods,
    ReceiveStock,
    RegisterUser,
)
from ledger.domain.delivery import Record
from ledger.store.connection.database import Connection
from tests.support.batches import Hole, Lanes, says

AWKWARD = "C:\\new\ttab\nline \"quoted\" 'single' \x01\x7f \\N é № 🛒"
CAFE = "Café  №\\5"


def buys(id: str, user_id: str, quantity: int, price: int | None = None, *, source: str = "shop") -> Record:
    """A purchase of tea."""
    bought = PurchaseGoods(user_id=user_id, goods_id="tea", quantity=quantity, unit_price_minor=price)
    return says(id, bought, source=source)


def history(conn: Connection) -> Lanes:
    """Seven entries over lanes 0, 1 and 2; lane 3 is claimed, but empty. The tea ends at 86 pieces."""
    lanes = Lanes(conn)
    lanes.apply(
        0,
        says("u1", RegisterUser(user_id="anna", name=AWKWARD)),
        says("u2", RegisterUser(user_id="ben")),
        says("u3", RegisterUser(user_id="anna")),  # already there
        says("x1", CloseUser(user_id="ben")),
        says("x2", CloseUser(user_id="ben")),  # closed
        says("x3", CloseUser(user_id="ghost")),  # not found
    )
    lanes.apply(
        1,
        says("g1", ListGoods(goods_id="tea")),
        says("g2", ListGoods(goods_id=CAFE, name="")),
        says("g3", ListGoods(goods_id="tea")),  # already there
        says("r1", ReceiveStock(goods_id="tea", quantity=100)),
        Hole(3),
        says("a1", AdjustStock(goods_id="tea", delta=-7, note=AWKWARD)),
        says("a2", AdjustStock(goods_id="ghost", delta=1)),  # not found
        says("r2", ReceiveStock(goods_id=CAFE, quantity=5)),
    )
    lanes.apply(
        1,
        buys("p1", "anna", 3, 250),
        buys("p1", "anna", 3, 250),  # duplicate
        buys("p1", "anna", 4, 250),  # conflict
        buys("p2", "ben", 1),  # closed
        buys("p3", "anna", 1000),  # not enough
        says("c1", CancelPurchase(goods_id="tea", purchase_id="p1")),
        says("c2", CancelPurchase(goods_id="tea", purchase_id="p1")),  # already cancelled
        says("c3", CancelPurchase(goods_id="tea", purchase_id="p2")),  # never bought
        buys("p4", "anna", 5),
    )
    lanes.claim(1)
    lanes.apply(
        0,
        Record(None, b"no JSON", None),
        Record(b"k\x00\xff", None, [("ce_id", b"x\x00\n"), ("none", None), ("", b""), ("\udcff", b"\\x")]),
        Record(b"", b"\xff\xfe\x00", []),
        buys("p1", "anna", 2, source="web"),  # another source: another command
        buys("p4", "anna", 6),  # conflict, with a delivery of another lane
        Hole(2, "records_deleted", "op\\erator\t"),
    )
    # duplicates, all of them
    lanes.apply(1, buys("p4", "anna", 5), says("u1", RegisterUser(user_id="anna", name=AWKWARD)))
    lanes.apply(2, Hole(5, "before_start", "operator"))
    lanes.apply(2, says("c4", CancelPurchase(goods_id="tea", purchase_id="p4")), buys("p5", "anna", 5))
    lanes.claim(3)
    return lanes


def on_hand(ledger: Ledger, goods_id: str, as_of: int | None = None) -> int:
    """The stock of goods that are listed, now or after this position."""
    level = ledger.stock(goods_id, as_of=as_of)
    assert level is not None
    return level.on_hand
