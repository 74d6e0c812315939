"""The real shop under each routing, with workers that are killed: the same stock, the same outcomes.

`STOCKLEDGER_TEST_WHOLE_MONTH=1` takes the whole month where it lies beside the repository; without it a part
of the first day.
"""

import os
from collections import Counter
from contextlib import closing
from itertools import islice
from typing import Any

import pytest

from producer.publisher import Publisher
from stockledger import online_retail
from tests.support import retail
from tests.support.crew import Crew, short_session
from tests.support.workers import Group

WHOLE = bool(os.environ.get("STOCKLEDGER_TEST_WHOLE_MONTH"))
ROWS = None if WHOLE else 1_500
PARTITIONS = 4
STRIKES = 5
"""Each kills one worker at least: 20 under the four routings together."""
HOT = 3
BATCH_PARTS = (50, 100, 200, 800)
IN_JOURNAL_ORDER = 'SELECT source, id FROM ledger.outcomes ORDER BY position, "offset"'
ROUTINGS: dict[str, dict[str, Any]] = {
    "goods": {},
    "user": {"partition_by": "user"},
    "isolate": {"partition_by": "mixed", "hot_by": "isolate"},
    "spread": {"partition_by": "mixed", "hot_by": "spread"},
}
KEEPS_ITEMS_IN_ORDER = {"goods", "isolate"}


def of_the_shop(folder):
    """The set-up, the purchases, and the goods that can't run out: every second item has stock enough."""
    rows = online_retail.read_rows(retail.MONTH if WHOLE else retail.DAY)
    files = online_retail.write_files(islice(rows, ROWS), folder)
    setup, purchases = map(retail.read_lines, files)
    asked: Counter[str] = Counter()
    for line in purchases:
        asked[line["goods_id"]] += line.get("quantity", 0) + abs(line.get("delta", 0))
    stocked = [line for line in setup if line["type"] == "ReceiveStock"]
    for line in stocked[::2]:
        line["quantity"] = asked[line["goods_id"]]
    return setup, purchases, {line["goods_id"] for line in stocked[::2]}


@pytest.mark.real_kafka
@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(3600 if WHOLE else 300)
@pytest.mark.parametrize("name", ROUTINGS)
def test_every_routing_ends_in_the_same_ledger(name, services, ledger_dsn, topic, seed, tmp_path):
    """Purchases delivered 1 to 3 times while workers are killed. Where an item's order is kept, all is as one
    command after the other in the order of the file. Under every routing outcomes, stock and purchases are
    those of the journal's order, and goods that can't run out have the same stock and outcomes everywhere."""
    setup, purchases, ample = of_the_shop(tmp_path)
    deliveries = retail.shuffled_deliveries(purchases, seed)
    total, step = len(setup) + len(deliveries), len(deliveries) // STRIKES + 1
    bought = Counter(line["goods_id"] for line in purchases)
    routing = dict(ROUTINGS[name])
    if "hot_by" in routing:
        routing["hot_goods"] = [goods for goods, _ in bought.most_common(HOT)]

    kafka = {"bootstrap.servers": services.kafka.bootstrap_servers}
    group = Group(ledger_dsn, kafka, topic(PARTITIONS))
    group.kafka |= short_session(group, "consumer")
    with closing(group), closing(group.connect()) as conn:
        with Publisher(kafka, group.topic, **routing) as publisher:
            retail.send(publisher, setup)
            group.catch_up()
            crew = Crew(group, conn, seed, [max(1, len(deliveries) // part) for part in BATCH_PARTS])
            for first in range(0, len(deliveries), step):
                retail.send(publisher, deliveries[first : first + step])
                crew.strike(step, len(setup) + first + step)
        assert crew.phases.total() >= STRIKES
        retail.wait_for_deliveries(conn, total)
        crew.stop()
        print(f"{name}: {total} deliveries, {crew.phases.total()} kills, they hit {dict(crew.phases)}")

        in_file_order = retail.model_of([*setup, *purchases])
        commands = {(line["source"], line["id"]): line for line in [*setup, *purchases]}
        in_journal_order = retail.model_of(commands[key] for key in group.ask(IN_JOURNAL_ORDER))
        retail.judge(conn, in_journal_order, total)
    if name in KEEPS_ITEMS_IN_ORDER:
        assert in_journal_order.outcomes == in_file_order.outcomes
        assert in_journal_order.stock == in_file_order.stock
    certain = {key for key, line in commands.items() if line.get("goods_id") in ample}
    assert len(certain) > len(commands) // 10
    for key in certain:
        assert in_journal_order.outcomes[key] == in_file_order.outcomes[key]
    for goods in ample:
        assert in_journal_order.stock[goods] == in_file_order.stock[goods]
    assert group.cli("verify", "--topic")["checks"][-1]["name"] == "topic"
    group.cli("replay", "--commands", "--check")
