"""What a test publishes, by a plain Kafka producer, and the audit of the ledger against exactly that.

    topic = Publisher(kafka, name)
    topic.send(says("RegisterUser", "u1", user_id="anna"), partition=0)
    topic.send_raw(b"no JSON", partition=0)
    topic.flush()
    ...
    audit(dsn, topic)

Records are made by hand, as another CloudEvents client would: nothing of the ledger's own encoder is used.
The audit goes by what the broker acknowledged and by an independent model, never by the event table.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
from confluent_kafka import Message, Producer

from tests.support.model import Model

SOURCE = "shop"
FLUSH_TIMEOUT_S = 60

Line = dict[str, Any]
Headers = list[tuple[str, bytes | None]]


class Sent(NamedTuple):
    """A record as it was sent; `line` is what it says, None if it is no command."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    line: Line | None


def says(type: str, id: str, *, source: str = SOURCE, **fields: object) -> Line:
    """The command as a line, as the model takes it."""
    return {"type": type, "id": id, "source": source, **fields}


def shop(users: Iterable[str] = ("anna",), goods: Iterable[str] = ("tea",), stock: int = 1000) -> list[Line]:
    """The set-up: users, and goods with stock."""
    lines = [says("RegisterUser", f"user-{user}", user_id=user) for user in users]
    for name in goods:
        lines.append(says("ListGoods", f"goods-{name}", goods_id=name))
        lines.append(says("ReceiveStock", f"stock-{name}", goods_id=name, quantity=stock))
    return lines


def buys(id: str, goods: str = "tea", quantity: int = 1, user: str = "anna", **fields: Any) -> Line:
    """The centre of it all."""
    return says("PurchaseGoods", id, user_id=user, goods_id=goods, quantity=quantity, **fields)


def fields_of(line: Line) -> Line:
    return {name: value for name, value in line.items() if name not in ("type", "id", "source")}


def headers_of(line: Line) -> Headers:
    """CloudEvents 1.0, Kafka binary mode."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", line["id"].encode()),
        ("ce_source", line["source"].encode()),
        ("ce_type", f"stockledger.{line['type']}.v1".encode()),
        ("content-type", b"application/json"),
    ]


def structured(line: Line) -> tuple[Headers, bytes]:
    """The same command in structured mode: all of it in the value."""
    event = {
        "specversion": "1.0",
        "id": line["id"],
        "source": line["source"],
        "type": f"stockledger.{line['type']}.v1",
        "time": "2026-01-02T03:04:05Z",
        "datacontenttype": "application/json",
        "data": fields_of(line),
    }
    return [("content-type", b"application/cloudevents+json; charset=UTF-8")], json.dumps(event).encode()


class Publisher:
    """A producer of one topic that remembers what the broker acknowledged, by partition and offset."""

    def __init__(self, kafka: Mapping[str, str], topic: str, **properties: object) -> None:
        self.topic = topic
        self.sent: dict[tuple[int, int], Sent] = {}
        named = {name.replace("_", "."): value for name, value in properties.items()}
        base = {"bootstrap.servers": kafka["bootstrap.servers"], "enable.idempotence": True, "linger.ms": 1}
        quick = {"log_level": 0, "reconnect.backoff.max.ms": 500}
        self.producer = Producer(base | quick | named)
        if "transactional.id" in named:
            self.producer.init_transactions(FLUSH_TIMEOUT_S)

    def send(self, *lines: Line, partition: int | None = None) -> None:
        """Commands in binary mode; without a partition, wherever the partitioner puts their record key."""
        for line in lines:
            key = line.get("goods_id") or line["user_id"]
            self._produce(
                Sent(key.encode(), json.dumps(fields_of(line)).encode(), headers_of(line), line), partition
            )

    def send_raw(
        self,
        value: bytes | None,
        headers: Headers = [],  # noqa: B006 (never changed)
        *,
        key: bytes | None = None,
        partition: int | None = None,
        line: Line | None = None,
    ) -> None:
        """Any record; say what it means as a command, if it means one."""
        self._produce(Sent(key, value, headers, line), partition)

    def flush(self) -> None:
        """Wait until everything is acknowledged."""
        assert self.producer.flush(FLUSH_TIMEOUT_S) == 0

    def _produce(self, record: Sent, partition: int | None) -> None:
        def acknowledged(error: object, message: Message) -> None:
            assert error is None, error
            self.sent[message.partition(), message.offset()] = record  # type: ignore[index]

        where = {} if partition is None else {"partition": partition}
        self.producer.produce(
            self.topic,
            record.value,
            record.key,
            headers=list(record.headers),
            on_delivery=acknowledged,
            **where,  # type: ignore[arg-type]
        )
        self.producer.poll(0)

    @contextmanager
    def transaction(self, *, abort: bool = False) -> Iterator[None]:
        """What is sent inside is committed, or aborted and so never sent at all."""
        before = dict(self.sent)
        self.producer.begin_transaction()
        yield
        self.flush()
        if abort:
            self.producer.abort_transaction()
            self.sent = before
        else:
            self.producer.commit_transaction()

    def ends(self) -> dict[int, int]:
        """By partition: the offset behind the last record that was acknowledged."""
        found: dict[int, int] = {}
        for partition, offset in self.sent:
            found[partition] = max(found.get(partition, 0), offset + 1)
        return found


JOURNAL = """
SELECT topic, partition, first_offset, next_offset, applied, rejected, duplicate, conflict, dead, skipped
FROM ledger.journal_entries ORDER BY position
"""
DEAD = 'SELECT topic, partition, "offset", key, value, header_names, header_values FROM ledger.dead_letters'


def audit(dsn: str, *publishers: Publisher, tally: Mapping[str, int] | None = None) -> Model:
    """Assert that the ledger is what one command after the other gives, and that nothing sent is missing.

    The records that were acknowledged are fed to the model in the order of the journal's entries. `tally` is
    how many deliveries must have come to each outcome. Returns the model.
    """
    sent = {(p.topic, *place): record for p in publishers for place, record in p.sent.items()}
    model, dead = Model(), {}
    with psycopg.connect(dsn, autocommit=True) as conn:
        for topic, partition, first, following, *counts in conn.execute(JOURNAL).fetchall():
            words: Counter[str] = Counter()
            for place in ((topic, partition, offset) for offset in range(first, following)):
                record = sent.pop(place, None)
                if record is None:
                    words["skipped"] += 1
                elif record.line is None:
                    words["dead"] += 1
                    dead[place] = record
                else:
                    words[model.feed(record.line)] += 1
            names = ("applied", "rejected", "duplicate", "conflict", "dead", "skipped")
            assert dict(zip(names, counts, strict=True)) == {n: words[n] for n in names}, (topic, partition)
        assert not sent, f"never accounted for: {sorted(sent)[:10]}"
        _compare(conn, model, dead)
    if tally is not None:
        assert model.tally | Counter(dead=len(dead)) == Counter(tally)
    return model


def _compare(conn: psycopg.Connection, model: Model, dead: Mapping[tuple[str, int, int], Sent]) -> None:
    outcomes = conn.execute("SELECT source, id, outcome, reason FROM ledger.outcomes").fetchall()
    assert {(source, id): tuple(rest) for source, id, *rest in outcomes} == model.outcomes
    assert len(outcomes) == len(model.outcomes)
    stock = conn.execute("SELECT goods_id, on_hand FROM ledger.stock_levels").fetchall()
    assert dict(stock) == model.stock
    events = conn.execute("SELECT stream, count(*), max(version) FROM ledger.events GROUP BY 1").fetchall()
    assert {stream: count for stream, count, _ in events} == model.versions
    assert all(count == version for _, count, version in events)
    bought = conn.execute("SELECT source, id, user_id, goods_id, quantity, cancelled FROM ledger.purchases")
    fields = ("user_id", "goods_id", "quantity", "cancelled")
    assert {(s, i): dict(zip(fields, rest, strict=True)) for s, i, *rest in bought} == model.purchases
    [(conflicts,)] = conn.execute("SELECT count(*) FROM ledger.conflicts").fetchall()
    assert conflicts == model.tally["conflict"]
    letters = {(t, p, o): (key, value, _headers(n, h)) for t, p, o, key, value, n, h in conn.execute(DEAD)}
    assert letters == {place: (s.key, s.value, s.headers) for place, s in dead.items()}


def _headers(names: list[bytes] | None, values: list[bytes | None] | None) -> Headers:
    return [(name.decode(), value) for name, value in zip(names or (), values or (), strict=True)]
