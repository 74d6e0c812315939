"""Which lane a command goes to: the promises of each way of routing, on commands of every kind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.commands import (
    CancelPurchase,
    ListGoods,
    MessageKey,
    PurchaseGoods,
    ReceiveStock,
    RegisterUser,
    record_key,
)
from ledger.domain.delivery import Request
from ledger.domain.envelope import decode, fingerprint, headers
from ledger.domain.shares import share_of
from ledger.errors import BadSettings
from producer.jsonl import Item, parse, to_line
from producer.lines import Line
from producer.plain import Ready, quick
from producer.publisher import Publisher
from producer.routing import Routing, Why
from tests.unit.strategies import business_ids, commands, keys

NOWHERE = {"bootstrap.servers": "127.0.0.1:1"}
PARTITIONS = 12


def routing(by="goods", hot=(), hot_by="isolate", hot_partitions=None):
    return Routing.of(by, hot, hot_by, hot_partitions)


def ready(command):
    return Ready.of("shop", "1", command)


def buys(user="anna", goods="tea"):
    return ready(PurchaseGoods(user_id=user, goods_id=goods, quantity=1))


@st.composite
def routings(draw):
    """Any routing that makes sense for 12 partitions."""
    by = draw(st.sampled_from(["goods", "user", "mixed"]))
    if by != "mixed":
        return routing(by)
    hot = draw(st.lists(business_ids | st.just("tea"), min_size=1, max_size=5))
    width = draw(st.none() | st.integers(1, PARTITIONS - 1))
    return routing(by, hot, draw(st.sampled_from(["isolate", "spread"])), width)


def routed(command, by):
    """The routing, with the command's goods among the hot ones where there are such."""
    goods = getattr(command, "goods_id", "")
    if goods and by.hot_goods:
        return routing(by.partition_by, [goods, *by.hot_goods], by.hot_by, by.hot_partitions)
    return by


# Whatever the routing


@given(keys, commands, routings())
def test_quick_and_slow_lines_go_the_same_way(key, command, by):
    """A line judged quickly, one judged by the models, and a program's command: all go to the same lane."""
    text = to_line(key, command).rstrip(b"\n")
    item = parse("f", Line(1, text, 0, len(text)), "")
    assert isinstance(item, Item)
    for each in (by, routed(command, by)):
        found = each.route(item.ready(), PARTITIONS)
        assert each.route(Ready.of(key.source, key.id, command), PARTITIONS) == found
        fast = quick(text, "")
        assert fast is None or each.route(fast, PARTITIONS) == found
        assert 0 <= found.lane(PARTITIONS) < PARTITIONS


@given(keys, commands, routings())
def test_routing_leaves_the_command_alone(key, command, by):
    """Under every routing a worker reads the same command, with the same fingerprint; the subject stays."""
    sent, by = Ready.of(key.source, key.id, command), routed(command, by)
    routed_key = by.route(sent, PARTITIONS).key
    head = headers(
        sent.source, key.id, sent.name, "2010-12-01T08:26:00Z", sent.subject,
        routed_key if routed_key != sent.subject else "",
    )  # fmt: skip
    found = decode(head, sent.value)
    assert isinstance(found, Request)
    assert (found.key, found.fingerprint) == (key, fingerprint(key, command))
    named = dict(head)
    assert named["ce_subject"] == record_key(command).encode()
    assert named.get("ce_partitionkey", named["ce_subject"]) == routed_key.encode()


# By goods, by user


@given(commands)
def test_by_goods_is_the_default(command):
    """The key is what the command changes, and the client's partitioner has the last word."""
    assert routing() == Routing()
    route = routing().route(ready(command), PARTITIONS)
    assert route[:2] == (record_key(command), None)
    assert route.lane(PARTITIONS) == share_of(record_key(command), PARTITIONS)


@given(business_ids, business_ids)
def test_by_user_all_that_a_user_does_is_on_one_lane(user, goods):
    """Registration and purchases have the user for their key; what has no user goes by its goods."""
    by_user = routing("user")
    for of_user in (RegisterUser(user_id=user), PurchaseGoods(user_id=user, goods_id=goods, quantity=1)):
        assert by_user.route(ready(of_user), PARTITIONS) == (user, None, Why.USER)
    cancel = CancelPurchase(goods_id=goods, purchase_id="1")
    for of_goods in (ListGoods(goods_id=goods), ReceiveStock(goods_id=goods, quantity=1), cancel):
        assert by_user.route(ready(of_goods), PARTITIONS) == (goods, None, Why.GOODS)


# Hot goods by themselves


@given(st.lists(commands, max_size=20), routings())
def test_nothing_else_uses_a_hot_partition(several, by):
    """The last partitions have hot goods only; of the rest nothing moves but what would have come there."""
    if by.hot_by != "isolate" or not by.hot_goods:
        return
    others = PARTITIONS - (by.hot_partitions or 1)
    for command in several:
        found = by.route(ready(command), PARTITIONS)
        at = share_of(record_key(command), PARTITIONS)
        assert found.key == record_key(command)
        if getattr(command, "goods_id", None) in by.hot_goods:
            assert (found.why, found.lane(PARTITIONS) >= others) == (Why.ISOLATED, True)
            continue
        assert found.lane(PARTITIONS) == (at if at < others else share_of(found.key, others))
        assert found.why is Why.DISPLACED if at >= others else found.why in (Why.GOODS, Why.USER)


def test_hot_goods_take_turns_on_their_partitions():
    """In the order of the list: with partitions enough each has its own. A repeat doesn't count."""
    by = routing("mixed", ["tea", "milk", "tea", "rum"], hot_partitions=2)
    found = {goods: by.route(buys(goods=goods), 8).partition for goods in ("tea", "milk", "rum")}
    assert found == {"tea": 6, "milk": 7, "rum": 6}
    for command in (ListGoods(goods_id="tea"), CancelPurchase(goods_id="tea", purchase_id="1")):
        assert by.route(ready(command), 8) == ("tea", 6, Why.ISOLATED)


def test_a_user_with_the_name_of_hot_goods_is_not_hot():
    """Users and goods may share an id: only goods are hot."""
    by = routing("mixed", ["tea"])
    assert by.route(ready(RegisterUser(user_id="tea")), PARTITIONS).why in (Why.USER, Why.DISPLACED)
    assert by.route(buys(user="tea", goods="milk"), PARTITIONS).why in (Why.GOODS, Why.DISPLACED)


# Hot goods over several lanes


@pytest.mark.parametrize("width", [1, 3, PARTITIONS, None])
def test_purchases_of_hot_goods_are_spread_by_user(width):
    """They go to exactly so many partitions (by default to all), a user's always to the same, each with a key
    that names goods and share; what has no user stays on the goods' own lane."""
    by = routing("mixed", ["tea"], "spread", width)
    found = [by.route(buys(user=f"u{number}"), PARTITIONS) for number in range(500)]
    assert len({route.partition for route in found}) == len({route.key for route in found})
    assert len({route.partition for route in found}) == (width or PARTITIONS)
    assert found == [by.route(buys(user=f"u{number}"), PARTITIONS) for number in range(500)]
    own = share_of("tea", PARTITIONS)
    assert {route.partition for route in found if route.key == "tea/0"} == {own}
    assert by.route(ready(ReceiveStock(goods_id="tea", quantity=1)), PARTITIONS) == ("tea", own, Why.GOODS)
    milk = share_of("milk", PARTITIONS)
    assert by.route(buys(goods="milk"), PARTITIONS) == ("milk", milk, Why.GOODS)


@pytest.mark.parametrize(
    ("hot_by", "width", "key"),
    [("isolate", None, "tea"), ("spread", None, ""), ("spread", 3, f"tea/{share_of('anna', 3)}")],
)
def test_without_partitions_only_what_is_known_is_said(hot_by, width, key):
    """A dry run without a broker: no partition, and no key that depends on how many there are."""
    by = routing("mixed", ["tea"], hot_by, width)
    assert by.route(buys(), 0) == (key, None, "isolated" if hot_by == "isolate" else "spread")
    assert by.route(buys(goods="milk"), 0) == ("milk", None, "goods")
    assert by.route(ready(RegisterUser(user_id="anna")), 0) == ("anna", None, "user")


# What makes no sense


@pytest.mark.parametrize(
    ("given_", "named"),
    [
        ({"partition_by": "value"}, "partition_by can't be 'value'"),
        ({"partition_by": "mixed"}, "no hot goods are named"),
        ({"hot_goods": ["tea"]}, "hot_goods is given, but partition_by is goods"),
        ({"partition_by": "user", "hot_goods": ["tea"]}, "hot_goods is given, but partition_by is user"),
        ({"hot_partitions": 2}, "hot_partitions is given, but partition_by is goods"),
        ({"partition_by": "mixed", "hot_goods": ["tea"], "hot_by": "split"}, "hot_by can't be 'split'"),
        ({"partition_by": "mixed", "hot_goods": ["tea"], "hot_partitions": 0}, "hot_partitions can't be 0"),
        ({"partition_by": "mixed", "hot_goods": ["tea", ""]}, "number 2 can't be the id of goods"),
        ({"partition_by": "mixed", "hot_goods": ["x" * 65]}, "number 1 can't be .* at most 64"),
        ({"partition_by": "mixed", "hot_goods": ["e\u0301"]}, "number 1 can't be .* normal form C"),
        ({"partition_by": "mixed", "hot_goods": [7]}, "number 1 can't be .* string"),
    ],
)
def test_a_routing_that_makes_no_sense_is_refused(given_, named):
    """At once, before anything connects, with what to do about it."""
    with pytest.raises(BadSettings, match=named) as caught:
        Publisher(NOWHERE, "commands", **given_)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("given_", "named"),
    [
        ({"partition_by": None}, "partition_by must be text, not NoneType"),
        ({"partition_by": "mixed", "hot_goods": "tea"}, "hot_goods must be a list of goods ids, not str"),
        ({"partition_by": "mixed", "hot_goods": 7}, "hot_goods must be a list of goods ids, not int"),
        ({"partition_by": "mixed", "hot_goods": ["tea"], "hot_partitions": True}, "hot_partitions must be"),
        ({"partition_by": "mixed", "hot_goods": ["tea"], "hot_partitions": "2"}, "hot_partitions must be"),
    ],
)
def test_an_argument_of_another_type_is_named(given_, named):
    """A wrong argument is named."""
    with pytest.raises(TypeError, match=named):
        Publisher(NOWHERE, "commands", **given_)


def test_another_partitioner_does_not_go_with_hot_goods():
    """It would put keys where hot goods are to be alone, so mixed refuses it; the others leave it its way."""
    other = NOWHERE | {"partitioner": "consistent"}
    with pytest.raises(BadSettings, match="partitioner"):
        Publisher(other, "commands", partition_by="mixed", hot_goods=["tea"])
    Publisher(other, "commands", partition_by="user").close()
    Publisher(NOWHERE | {"partitioner": "murmur2"}, "c", partition_by="mixed", hot_goods=["tea"]).close()


@pytest.mark.parametrize(
    ("by", "width", "partitions", "fits"),
    [
        ("isolate", None, 1, False),
        ("isolate", None, 2, True),
        ("isolate", 3, 3, False),
        ("isolate", 3, 4, True),
        ("spread", None, 1, True),
        ("spread", 3, 2, False),
        ("spread", 3, 3, True),
    ],
)
def test_a_topic_must_have_partitions_enough(by, width, partitions, fits):
    """One at least is left to what isn't hot; over more than there are nothing can be spread."""
    wanted = routing("mixed", ["tea"], by, width)
    if fits:
        wanted.require("commands", partitions)
        return
    with pytest.raises(BadSettings, match=f"commands has {partitions} partition") as caught:
        wanted.require("commands", partitions)
    assert "nothing was sent" in caught.value.message


def test_what_is_not_mixed_fits_any_topic():
    """By goods and by user one partition will do."""
    for by in ("goods", "user"):
        routing(by).require("commands", 1)


def test_the_key_says_whose_it_is():
    """A message key is no record key: who sends has no part in routing."""
    purchase = PurchaseGoods(user_id="u", goods_id="g", quantity=1)
    one, other = Ready.of(*MessageKey("a", "1"), purchase), Ready.of(*MessageKey("b", "2"), purchase)
    assert routing("user").route(one, 4) == routing("user").route(other, 4)
