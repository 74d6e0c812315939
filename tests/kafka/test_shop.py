"""`buy_goods`, the one call: the same answer for the same `request_id`, whoever asks, when, and how often."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from confluent_kafka import KafkaError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from gateway.sender import Order, Sender
from gateway.shop import AsyncShop, Shop
from ledger.domain.commands import MessageKey, PurchaseGoods
from ledger.errors import BadSettings, BrokerUnavailable, TopicUnfit, Unavailable
from producer.publisher import Publisher
from stockledger.embedded.kafka import EmbeddedKafka
from tests.support.doorstep import records
from tests.support.forks import forked
from tests.support.proxy import Proxy
from tests.support.publish import says, shop
from tests.support.workers import wait_for

PRODUCE = 0  # the protocol's key of the request
PATIENCE_S = 60.0
STOCK = 100


@pytest.fixture
def group(new_group, publisher):
    """A ledger in which anna can buy tea, and ben can't buy any more."""
    made = new_group(partitions=2)
    sender = publisher(made)
    closing = [says("RegisterUser", "user-ben", user_id="ben"), says("CloseUser", "close-ben", user_id="ben")]
    sender.send(*shop(stock=STOCK), *closing, partition=0)
    sender.flush()
    made.catch_up()
    return made


def shop_of(group, **properties):
    return Shop(
        {"bootstrap.servers": group.kafka["bootstrap.servers"], **properties}, group.topic, "web", group.dsn
    )


def on_hand(group):
    [(number,)] = group.ask("SELECT on_hand FROM ledger.stock_levels WHERE goods_id = 'tea'")
    return number


def test_a_purchase_is_applied_or_refused_with_its_reason(group):
    """A "no" is an outcome and no exception: one reason each, and a conflict for an id that was used."""
    with group.running(), shop_of(group) as web:

        def buys(user="anna", goods="tea", quantity=1, id="a"):
            found = web.buy_goods(user, goods, quantity, id, timeout_s=PATIENCE_S)
            return found.outcome, found.reason

        assert buys(id="order-1") == ("applied", None)
        assert buys(id="order-2", quantity=STOCK) == ("rejected", "insufficient_stock")
        assert buys(id="order-3", user="nobody") == ("rejected", "user_not_found")
        assert buys(id="order-4", user="ben") == ("rejected", "user_closed")
        assert buys(id="order-5", goods="none") == ("rejected", "goods_not_found")
        assert buys(id="order-1", quantity=2) == ("conflict", None)
        assert buys(id=UUID(int=1)) == ("applied", None)
        assert on_hand(group) == STOCK - 2


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("anna", "tea", 0, "a"), "quantity"),
        (("anna", "tea", 1.5, "a"), "quantity"),
        (("", "tea", 1, "a"), "user_id"),
        (("anna", " tea", 1, "a"), "goods_id"),
        (("anna", "tea", 1, ""), "id must be"),
        (("anna", "tea", 1, "two words"), "id must be"),
        (("anna", "tea", 1, None), "request_id must be"),
    ],
    ids=str,
)
def test_what_cant_be_a_purchase_is_named_and_not_sent(group, words, named):
    """A ValueError or TypeError says which argument; nothing is published."""
    with shop_of(group) as web:
        before = records(group)
        with pytest.raises((ValueError, TypeError), match=named):
            web.buy_goods(*words)
        assert records(group) == before


@pytest.mark.parametrize(
    "routing",
    [
        {"partition_by": "user"},
        {"partition_by": "mixed", "hot_goods": ["tea"]},
        {"partition_by": "mixed", "hot_goods": ["tea"], "hot_by": "spread", "hot_partitions": 2},
    ],
    ids=str,
)
def test_a_shop_chooses_lanes_as_a_publisher_does(new_group, routing):
    """Each purchase goes where a publisher with the same choice sends it, from both kinds of shop."""
    group = new_group(partitions=4)
    users = [f"user-{number}" for number in range(8)]
    kafka = {"bootstrap.servers": group.kafka["bootstrap.servers"]}
    with Publisher(kafka, group.topic, "elsewhere", **routing) as publisher:
        sent = [publisher.send(PurchaseGoods(user_id=user, goods_id="tea", quantity=1)) for user in users]
    lanes = [receipt.partition for receipt in sent]

    def lane(said):
        return int(str(said.value).partition(f"{group.topic}[")[2].partition("]")[0])

    async def in_asyncio():
        async with AsyncShop(kafka, group.topic, "web", group.dsn, **routing) as web:
            for user, expected in zip(users, lanes, strict=True):
                with pytest.raises(TimeoutError) as said:
                    await web.buy_goods(user, "tea", 1, f"async-{user}", timeout_s=0)
                assert lane(said) == expected

    with Shop(kafka, group.topic, "web", group.dsn, **routing) as web:
        for user, expected in zip(users, lanes, strict=True):
            with pytest.raises(TimeoutError) as said:
                web.buy_goods(user, "tea", 1, f"order-{user}", timeout_s=0)
            assert lane(said) == expected
    asyncio.run(in_asyncio())


def test_a_time_out_is_safe_to_repeat(group):
    """Before a worker runs there is no outcome, and the error says so; the same call later has it, once."""
    with shop_of(group) as web:
        for _ in range(2):
            with pytest.raises(TimeoutError, match=r"web order-1 .* it is in the topic, at .* counts once"):
                web.buy_goods("anna", "tea", 1, "order-1", timeout_s=0)
        with group.running():
            first = web.buy_goods("anna", "tea", 1, "order-1", timeout_s=PATIENCE_S)
            published = records(group)
            assert web.buy_goods("anna", "tea", 1, "order-1", timeout_s=0) == first
    assert first.outcome == "applied"
    assert on_hand(group) == STOCK - 1
    assert records(group) == published  # what the register knows isn't published again


def test_the_same_from_many_threads_and_two_shops_is_one_purchase(group):
    """All who ask at the same moment get one outcome, the same for all."""
    with group.running(), shop_of(group) as one, shop_of(group) as other, ThreadPoolExecutor(20) as pool:
        ready = threading.Barrier(20)

        def buy(number):
            ready.wait(PATIENCE_S)
            web = (one, other)[number % 2]
            return web.buy_goods("anna", "tea", 1, "order-1", timeout_s=PATIENCE_S)

        found = {(each.outcome, each.token) for each in pool.map(buy, range(20))}
    assert len(found) == 1
    assert on_hand(group) == STOCK - 1


def test_different_purchases_under_one_id_are_one_and_conflicts(group):
    """At the same moment, by two shops: one is applied, and whoever asked for another is told `conflict`."""
    with group.running(), shop_of(group) as one, shop_of(group) as other, ThreadPoolExecutor(8) as pool:
        ready = threading.Barrier(8)

        def buy(number):
            ready.wait(PATIENCE_S)
            web = (one, other)[number % 2]
            return web.buy_goods("anna", "tea", 1 + number, "order-1", timeout_s=PATIENCE_S).outcome

        found = sorted(pool.map(buy, range(8)))
    assert found == ["applied", *["conflict"] * 7]
    assert on_hand(group) in range(STOCK - 8, STOCK)


def test_who_waits_in_asyncio_holds_no_thread(group):
    """Two hundred wait at once, with a thread that sends and one that asks; each gets its own outcome."""

    async def all_buy():
        servers = {"bootstrap.servers": group.kafka["bootstrap.servers"]}
        before = threading.active_count()
        async with AsyncShop(servers, group.topic, "web", group.dsn) as web:
            buying = [
                asyncio.create_task(web.buy_goods("anna", "tea", 1, f"order-{n % 150}", timeout_s=PATIENCE_S))
                for n in range(200)
            ]
            await asyncio.wait(buying, timeout=0.01)
            threads = threading.active_count() - before
            running.__enter__()
            return threads, await asyncio.gather(*buying)

    running = group.running()
    try:
        threads, found = asyncio.run(all_buy())
    finally:
        running.__exit__()
    assert threads <= 2
    assert [each.id for each in found] == [f"order-{n % 150}" for n in range(200)]
    assert sum({each.id: each.outcome == "applied" for each in found}.values()) == STOCK


def test_a_broker_that_isnt_there(ledger_dsn, group):
    """The error says that nothing was published, and that the same call is safe to repeat."""
    with Shop({"bootstrap.servers": "127.0.0.1:1"}, group.topic, "web", group.dsn) as web:
        with pytest.raises(BrokerUnavailable, match="not published") as caught:
            web.buy_goods("anna", "tea", 1, "order-1", timeout_s=0.1)
        assert "counts once" in caught.value.remedy
    with group.running(), shop_of(group) as web:
        assert web.buy_goods("anna", "tea", 1, "order-1", timeout_s=PATIENCE_S).outcome == "applied"


def test_what_no_shop_can_be_made_of(group):
    """A property that breaks the promise and a source that can't be one: at once; no topic: when asked."""
    with pytest.raises(BadSettings, match="acks"):
        shop_of(group, acks="1")
    with pytest.raises(ValueError, match="source"):
        Shop(group.kafka, group.topic, "two words", group.dsn)
    servers = {"bootstrap.servers": group.kafka["bootstrap.servers"]}
    with Shop(servers, "no-such-topic", "web", group.dsn) as web, pytest.raises(TopicUnfit, match="no-such"):
        web.buy_goods("anna", "tea", 1, "order-1", timeout_s=PATIENCE_S)


def test_a_database_that_doesnt_answer(group):
    """Before: nothing is published. Afterwards: it is in the topic. Then the same call has its outcome."""
    server = conninfo_to_dict(group.dsn)
    servers = {"bootstrap.servers": group.kafka["bootstrap.servers"]}
    proxy = Proxy(str(server["host"]), int(str(server["port"])))
    dsn = make_conninfo(group.dsn, host="127.0.0.1", port=proxy.port)
    with Shop(servers, group.topic, "web", dsn) as web, ThreadPoolExecutor(1) as pool:
        before = records(group)
        proxy.stall()
        with pytest.raises(Unavailable, match="not published"):
            web.buy_goods("anna", "tea", 1, "order-1", timeout_s=0.1)
        assert records(group) == before
        proxy.cut()
        waits = pool.submit(web.buy_goods, "anna", "tea", 1, "order-1", timeout_s=PATIENCE_S)
        wait_for("the record", lambda: records(group) > before)
        proxy.stop()
        with pytest.raises(Unavailable, match="it is in the topic"):
            waits.result(PATIENCE_S)
    with group.running(), shop_of(group) as web:
        assert web.buy_goods("anna", "tea", 1, "order-1", timeout_s=PATIENCE_S).outcome == "applied"


def test_a_process_that_was_forked_off_is_told(group):
    """Its threads aren't there, so the call says what to do and doesn't wait for ever."""
    with shop_of(group) as web:
        told = forked(lambda: str(web.buy_goods("anna", "tea", 1, "order-1")))
    assert told.startswith("Forked(")


# The sender alone, on a broker of the test's own


@pytest.fixture
def broker():
    """A broker of this test's own, which may fail."""
    with EmbeddedKafka({"commands": 4}) as broker:
        yield broker


@pytest.fixture
def sender(broker):
    """A sender whose client gives up early."""
    # What is handed over together goes in one request: a mocked broker takes one that follows a refused one.
    properties = {
        "bootstrap.servers": broker.bootstrap_servers, "message.timeout.ms": "1500", "linger.ms": "200"
    }  # fmt: skip
    made = Sender(lambda: Publisher(properties, "commands"))
    yield made
    made.close(PATIENCE_S)


def order(number):
    command = PurchaseGoods(user_id="anna", goods_id=f"g{number}", quantity=1)
    return Order(MessageKey("web", str(number)), command)


def test_what_isnt_acknowledged_is_in_doubt_and_a_new_client_goes_on(broker, sender):
    """While the broker is down each order fails and says so; afterwards the same sender delivers again."""
    first = order(0)
    sender.send([first])
    assert first.delivered.result(PATIENCE_S).offset is not None
    broker.set_down()
    lost = [order(1), order(2)]
    sender.send(lost)
    for each in lost:
        with pytest.raises(BrokerUnavailable, match="in the topic isn't known") as caught:
            each.delivered.result(PATIENCE_S)
        assert "counts once" in caught.value.remedy
    late = order(3)
    sender.send([late])
    with pytest.raises(BrokerUnavailable, match="not published"):
        late.delivered.result(PATIENCE_S)
    assert sender.trouble
    broker.set_up()
    wait_for("a connection", lambda: sender.trouble is None)
    again = order(1)
    sender.send([again])
    assert again.delivered.result(PATIENCE_S).offset is not None


def test_after_one_that_is_refused_none_of_the_same_body_goes_out(broker, sender):
    """Orders that are handed over together stand in the topic without a hole, whatever the broker refuses."""
    wait_for("a connection", lambda: sender.trouble is None)
    broker.push_request_errors(PRODUCE, KafkaError.INVALID_RECORD)
    orders = [Order(MessageKey("web", str(n)), order(0).command) for n in range(50)]
    sender.send(orders)
    ends = []
    for each in orders:
        try:
            ends.append(each.delivered.result(PATIENCE_S).offset)
        except Exception:  # noqa: BLE001 (which one is told above)
            ends.append(None)
    acknowledged = [offset for offset in ends if offset is not None]
    assert ends[: len(acknowledged)] == acknowledged == sorted(acknowledged)
    assert None in ends


def test_who_gives_up_before_it_is_sent_has_sent_nothing(sender, broker):
    """An order that could be cancelled isn't published, and the sender goes on."""
    orders = [order(number) for number in range(3)]
    given_up = [each for each in orders if each.delivered.cancel()]
    assert given_up == orders
    sender.send(orders)
    last = order(3)
    sender.send([last])
    assert last.delivered.result(PATIENCE_S).offset == 0


def test_a_closed_sender_takes_nothing(broker):
    """What was handed over is sent; what comes later is told that it wasn't."""
    made = Sender(lambda: Publisher({"bootstrap.servers": broker.bootstrap_servers}, "commands"))
    wait_for("a connection", lambda: made.trouble is None)
    kept = order(0)
    made.send([kept])
    made.close(PATIENCE_S)
    assert kept.delivered.result(0).offset == 0
    late = order(1)
    made.send([late])
    with pytest.raises(BrokerUnavailable, match="closed"):
        late.delivered.result(PATIENCE_S)
