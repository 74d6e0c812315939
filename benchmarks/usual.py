"""The usual ways, on the ledger's own tables: message by message, and in batches by executemany.

One statement a message registers it, sells, and writes the event. No lanes, no order, no chain, no
fingerprint, and Kafka's own offsets, advanced asynchronously, say where to read on.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from confluent_kafka import Consumer, TopicPartition

from benchmarks import checks
from benchmarks.measure import Run
from benchmarks.testbed import PARTITIONS, Testbed
from benchmarks.workload import STOCK_EACH, Workload

EXECUTEMANY_SIZE = 500

SELL = """
WITH new AS (
    INSERT INTO ledger.processed_message (entry, "offset", version, reason, fingerprint, source, id)
    VALUES (1, %(offset)s, 1, NULL, '', %(source)s, %(id)s) ON CONFLICT DO NOTHING RETURNING id),
sold AS (
    UPDATE ledger.stock SET on_hand = on_hand - %(quantity)s, version = version + 1 FROM new
    WHERE generation = 1 AND goods_id = %(goods_id)s AND on_hand >= %(quantity)s RETURNING version)
INSERT INTO ledger.event (entry, ordinal, stream, version, type, payload, delta, user_id, source, id)
SELECT 1, 1, 'goods-' || %(goods_id)s, version, 'GoodsPurchased', %(payload)s, -%(quantity)s, %(user_id)s,
       %(source)s, %(id)s
FROM sold
"""
STOCKED = "SELECT count(*) FROM ledger.stock WHERE on_hand > 0"
SOLD = "SELECT count(*), -sum(delta) FROM ledger.event WHERE entry = 1"


def one_by_one(bed: Testbed, workload: Workload, topic: str, commands: int) -> Run:
    """The naive way: a transaction a message."""
    with bed.ledger(workload) as dsn, psycopg.connect(dsn) as conn, _consumer(bed, topic) as consumer:

        def work() -> None:
            for _ in range(commands):
                message = consumer.poll(10)
                assert message is not None
                assert not message.error()
                conn.execute(SELL, _facts(message))
                conn.commit()
                consumer.commit(message=message, asynchronous=True)

        run = bed.measured(commands, [os.getpid()], work, batches=commands)
        _check_sold(conn, commands)
    return run


def executemany(bed: Testbed, workload: Workload, topic: str, commands: int) -> Run:
    """The usual next step: 500 messages a transaction."""
    with bed.ledger(workload) as dsn, psycopg.connect(dsn) as conn, _consumer(bed, topic) as consumer:

        def work() -> None:
            for _ in range(commands // EXECUTEMANY_SIZE):
                messages = consumer.consume(EXECUTEMANY_SIZE, 10)
                assert len(messages) == EXECUTEMANY_SIZE
                with conn.cursor() as cursor:
                    cursor.executemany(SELL, [_facts(message) for message in messages])
                conn.commit()
                consumer.commit(asynchronous=True)

        batches = commands // EXECUTEMANY_SIZE
        run = bed.measured(commands, [os.getpid()], work, batches=batches)
        _check_sold(conn, batches * EXECUTEMANY_SIZE)
    return run


@contextmanager
def _consumer(bed: Testbed, topic: str) -> Iterator[Consumer]:
    consumer = Consumer(
        {**bed.kafka, "group.id": f"usual-{time.time_ns()}", "enable.auto.commit": False, "log_level": 0}
    )
    consumer.list_topics(topic, timeout=10)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    try:
        yield consumer
    finally:
        consumer.close()


def _facts(message) -> dict[str, object]:
    headers = dict(message.headers())
    facts = json.loads(message.value())
    facts.update(id=headers["ce_id"].decode(), source=headers["ce_source"].decode(), offset=message.offset())
    return {**facts, "payload": message.value().decode()}


def _check_sold(conn: psycopg.Connection, commands: int) -> None:
    count, pieces = conn.execute(SOLD).fetchone() or (0, 0)
    checks.same("events", commands, count)
    goods = checks.number(conn, STOCKED)
    checks.same("stock", goods * STOCK_EACH - pieces, checks.number(conn, checks.ON_HAND))
