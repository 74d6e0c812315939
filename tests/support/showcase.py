"""A ledger in which all that the dashboard shows has happened, with ids that try to be more than text."""

from ledger.projections.registry import find
from ledger.rebuilding.projector import Projector
from tests.support.projections import connector
from tests.support.publish import SOURCE, Line, Publisher, buys, says, shop
from tests.support.workers import Group

MARKUP = "<img src=x onerror=alert(1)>"
SCRIPT_ID = "\"'><script>alert(document.cookie)</script>"
GOODS = [
    MARKUP,
    "\"'></table><script>alert(1)</script>",
    "{{7*7}}${7*7}",
    "שלום עולם",
    "مرحبا بالعالم",
    "日本茶 煎茶",
    "🫖 tea for two",
    "Ελληνικός καφές",
    "W" * 64,
    "a/b?c#d&e=%2F",
    ".",
    "..",
    "javascript:alert(1)",
]
TOLD_ONCE = "order-42"
ALIKE = "order-42-b"


def happens(group: Group) -> Publisher:
    """Let it all happen; returns what was sent."""
    sender = Publisher(group.kafka, group.topic)
    sender.send(*shop(users=("anna", "17850"), stock=60), partition=0)
    for number, name in enumerate(GOODS):
        sender.send(says("RegisterUser", f"odd-user-{number}", user_id=name), partition=0)
        sender.send(says("ListGoods", f"odd-goods-{number}", goods_id=name), partition=0)
        sender.send(says("ReceiveStock", f"odd-stock-{number}", goods_id=name, quantity=9), partition=0)
    sender.flush()
    group.catch_up()
    sender.send(*(_order(number) for number in range(10)), partition=0)
    sender.flush()
    group.catch_up()
    sender.send(says("ReceiveStock", "delivery-7", goods_id="tea", quantity=30), partition=0)
    sender.send(*(_order(number) for number in range(10, 24)), partition=0)
    sender.send(buys(TOLD_ONCE, quantity=2, user="17850"), partition=1)
    sender.flush()
    group.catch_up()
    sender.send(buys(TOLD_ONCE, quantity=2, user="17850"), partition=1)
    sender.send(buys(TOLD_ONCE, quantity=2, user="17850"), partition=0)
    sender.send(buys(TOLD_ONCE, quantity=3, user="17850"), partition=1)
    sender.send(buys(ALIKE, quantity=1, user="17850"), partition=1)
    sender.send(buys("too-many", quantity=100_000, user="17850"), partition=1)
    sender.send(buys("nobody", user="never-registered"), partition=0)
    sender.send(buys(SCRIPT_ID, goods=MARKUP, user=MARKUP), partition=0)
    for number, name in enumerate(GOODS):
        sender.send(buys(f"of-{number}", goods=name, user=name), partition=1)
    cancel = says("CancelPurchase", "cancel-3", goods_id="tea", purchase_id="order-3", purchase_source=SOURCE)
    sender.send(cancel, partition=0)
    _dead(sender)
    sender.flush()
    group.catch_up()
    Projector(connector(group.dsn), [find("user_events")], until_caught_up=True).run()
    return sender


def _order(number: int) -> Line:
    return buys(f"order-{number}", quantity=1 + number % 3, user="17850")


def _dead(sender: Publisher) -> None:
    sender.send_raw(f"<b>{MARKUP}</b>".encode(), partition=0, key=MARKUP.encode())
    sender.send_raw(b"\x00\xff\xfe binary", [("x-\xe9", b"\xff"), ("x-none", None)], partition=1)
    sender.send_raw('{"id":"\u202edrow\u202c"}'.encode(), [("ce_id", b"dead-1")], key=b"k", partition=1)
    later = [("ce_specversion", b"1.0"), ("ce_id", b"later"), ("ce_source", b"shop")]
    sender.send_raw(b"{}", [*later, ("ce_type", b"stockledger.Later.v1")], partition=0)
