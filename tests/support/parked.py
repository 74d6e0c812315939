"""Records that are dead in the ledger, as an older version of it would have parked them."""

from collections.abc import Mapping
from contextlib import closing
from functools import partial

from confluent_kafka import Producer

from consumer import admin, assignment
from ledger.batch import apply_batch
from ledger.domain.commands import ListGoods, MessageKey
from ledger.domain.delivery import Bad, Batch, Delivery, Lane, Record
from ledger.domain.envelope import encode
from ledger.store.connection.database import connect
from ledger.store.tables import identity


def park(environment: Mapping[str, str], *records: Record) -> None:
    """Put records into partition 0 of an empty topic and have them dead, as of an unknown type."""
    kafka = {"bootstrap.servers": environment["STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS"]}
    lane = Lane(environment["STOCKLEDGER_TOPIC"], 0)
    producer = Producer(kafka)
    for record in records:
        producer.produce(lane.topic, record.value, record.key, 0, headers=[*(record.headers or ())])
    producer.flush()
    bad = Bad("unknown_type", "not known to this version")
    deliveries = [Delivery(offset, bad, record.packed()) for offset, record in enumerate(records)]
    with closing(connect(environment["STOCKLEDGER_DSN"], purpose="test")) as conn:
        [facts] = assignment.preflight(conn, kafka, [lane.topic])
        identity.claim(conn, environment.get("STOCKLEDGER_GROUP", "stockledger"), facts.cluster_id)
        ask = partial(admin.watermarks, kafka, facts.lanes)
        assignment.begin_lanes(conn, [facts], ask, None)
        claim = assignment.claim_lanes(conn, ask, [lane])[lane]
        apply_batch(conn, Batch(lane, 0, len(records), deliveries), claim.epoch)


def listing(id: str, goods_id: str) -> Record:
    """A command that this version knows, with a key and headers that no client of ours writes."""
    headers, value = encode(MessageKey("shop", id), ListGoods(goods_id=goods_id), time="2026-01-01T00:00:00Z")
    return Record(b"\xffkey", value, [*headers, ("x-trace", b"\x00\xff"), ("x-none", None)])
