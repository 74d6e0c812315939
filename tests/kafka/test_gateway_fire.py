"""Idempotency under fire: impatient clients of two gateways, while whatever they rest on is killed in turn.

`STOCKLEDGER_TEST_PURCHASES=20000` makes so many purchases from 200 clients, with more kills.
"""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from stockledger.embedded.postgres import free_port
from tests.support.doorstep import SOURCE, Client, Served
from tests.support.fire import Buyers
from tests.support.model import Model
from tests.support.publish import buys, shop
from tests.support.workers import PATIENCE_S, wait_for

PURCHASES = int(os.environ.get("STOCKLEDGER_TEST_PURCHASES", "300"))
AT_SIZE = PURCHASES > 300
CLIENTS = 200 if AT_SIZE else 20
STRIKES = 40 if AT_SIZE else 5
GOODS = [f"item-{number}" for number in range(10)]
IN_STOCK = PURCHASES * 3 // 20
"""A quarter of what is asked for isn't there."""
LONG_S = 4 * PATIENCE_S
DECIDED = """
SELECT source, id, outcome, reason, position, "offset" FROM ledger.outcomes ORDER BY position, "offset"
"""


class Shelter:
    """Two gateways and a worker, which are killed and replaced, with the services under them."""

    def __init__(self, group, services):
        self._group, self._services = group, services
        self._ports = [free_port(), free_port()]
        self.doors = [self._door(number) for number in range(2)]
        self._worker = group.start()
        self.addresses = [door.ready() for door in self.doors]

    def _door(self, number):
        return Served(self._group, "--source", SOURCE, "--rate", "1e6", port=self._ports[number])

    def strike(self, number):
        """SIGKILL what is next in turn, and start it again."""
        match number % 5:
            case 0 | 3 as turn:
                self.doors[turn % 2].ends(signal.SIGKILL)
                self.doors[turn % 2] = self._door(turn % 2)
            case 1:
                self._worker.send(signal.SIGKILL)
                assert self._worker.ended() == -signal.SIGKILL
                self._worker = self._group.start()
            case 2:
                self._services.kafka.kill()
                self._services.kafka.start()
            case 4:
                self._services.postgres.kill()
                self._services.postgres.start()

    def said(self):
        """The last that gateways and worker have said, for who looks why it failed."""
        return [*(door.said[-5:] for door in self.doors), self._worker.logged[-10:]]

    def close(self):
        for door in self.doors:
            door.__exit__()


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.real_kafka
@pytest.mark.timeout(3600 if AT_SIZE else 600)
def test_each_key_has_one_outcome_whatever_is_killed(new_group, publisher, services, supported, seed):
    """Gateways, a worker, the broker and Postgres are killed (SIGKILL) in turn; clients time out and repeat.

    Each key has one outcome, each client the one that the ledger has, and the stock is the model's.
    """
    with supported():
        services.postgres.kill()
    services.postgres.start()
    group = new_group(partitions=4)
    sender = publisher(group)
    set_up = shop(goods=GOODS, stock=IN_STOCK)
    sender.send(*set_up, partition=0)
    sender.flush()
    group.catch_up()
    lines = [
        buys(f"fire-{n}", GOODS[n % len(GOODS)], quantity=1 + n % 3) | {"source": SOURCE}
        for n in range(PURCHASES)
    ]
    orders = {
        line["id"]: {name: line[name] for name in ("user_id", "goods_id", "quantity")} for line in lines
    }
    shelter = Shelter(group, services)
    try:
        buyers = Buyers(shelter.addresses, orders, seed)
        with ThreadPoolExecutor(1) as pool:
            buying = pool.submit(buyers.buy, CLIENTS)
            try:
                for number in range(STRIKES):
                    progress = PURCHASES * (number + 1) // (STRIKES + 1)
                    wait_for(f"{progress} answers", partial(has, buyers, progress, buying), LONG_S)
                    shelter.strike(number)
                buying.result(LONG_S)
            except BaseException:
                buyers.give_up()
                print(f"clients were told: {dict(buyers.told)}; {shelter.said()}")
                raise
        print(f"{PURCHASES} purchases, {STRIKES} kills; clients were told: {dict(buyers.told)}")
        again = Client(wait_for("a gateway", shelter.doors[0].ready))
        for key in [*orders][:: max(1, PURCHASES // 300)]:
            told = again("POST", "/v1/purchases", orders[key], {"Idempotency-Key": key})
            assert (told.status, told.body) == (200, buyers.answered[key])
    finally:
        shelter.close()
    judge(group, buyers.answered, [*set_up, *lines])
    assert group.cli("verify", "--topic")["ok"]


def has(buyers, number, buying):
    """Whether so many are answered; raises what ended the clients."""
    if buying.done():
        buying.result()
    return len(buyers.answered) >= number


def judge(group, answered, lines):
    """The clients, the ledger and the model say the same."""
    decided = group.ask(DECIDED)
    said = {
        (SOURCE, key): (body["outcome"], body["reason"], body["position"], body["offset"])
        for key, body in answered.items()
    }
    ledger = {(source, id): tuple(rest) for source, id, *rest in decided}
    assert len(ledger) == len(decided)
    assert {key: found for key, found in ledger.items() if key[0] == SOURCE} == said
    by_key, model = {(line["source"], line["id"]): line for line in lines}, Model()
    for source, id, *_ in decided:
        model.feed(by_key[source, id])
    assert {key: found[:2] for key, found in ledger.items()} == model.outcomes
    assert dict(group.ask("SELECT goods_id, on_hand FROM ledger.stock_levels")) == model.stock
