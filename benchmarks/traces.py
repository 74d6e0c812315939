"""Traces: what they cost a publisher and a worker, as CPU time of the thread that works.

    off        no provider: how it is unless somebody asks for traces
    unsampled  every command takes a trace along, and none of them is kept
    sampled    every span is made; nothing is sent anywhere, which is a thread's of its own

For the publisher, `post` into librdkafka's mock broker. For the worker, what stands around a batch of 5,000
commands, each in a trace; the batch itself isn't applied. Needs no services:

    python -m benchmarks.traces [--commands 100000] [--rounds 7]
"""

import argparse
import statistics
import time
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from benchmarks.workload import Workload, encoded
from consumer.traces import spans_of
from consumer.worker import rarely_collect_cycles
from ledger.domain.commands import PurchaseGoods
from ledger.domain.delivery import Batch, Delivery, Lane, pack
from ledger.domain.envelope import decode
from ledger.telemetry.tracing import TRACEPARENT
from producer.plain import Ready
from producer.publisher import Publisher
from stockledger.embedded.kafka import EmbeddedKafka

BATCH = 5_000
TOPIC = "commands"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{:02x}"
WAYS: dict[str, Sampler | None] = {"off": None, "unsampled": ALWAYS_OFF, "sampled": ALWAYS_ON}


def main() -> None:
    """Each way in turn, so many rounds; every second round backwards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--commands", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    rarely_collect_cycles()
    ready = Ready.of("bench", None, PurchaseGoods(user_id="anna", goods_id="tea", quantity=1))
    batches = {way: _batch(way != "unsampled") for way in WAYS}
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(given.rounds):
        for way in list(WAYS)[:: -1 if number % 2 else 1]:
            with EmbeddedKafka({TOPIC: 1}) as kafka, _tracing(WAYS[way]):
                posts = partial(_posts, kafka.bootstrap_servers, ready, given.commands)
                found.setdefault(("publisher", way), []).append(posts() * 1e6)
            with _tracing(WAYS[way]):
                around = partial(_around, batches[way], max(1, given.commands // BATCH))
                found.setdefault(("worker", way), []).append(around() * 1e6)
    for (who, way), times in found.items():
        off = found[who, "off"]
        more = statistics.median(mine - theirs for mine, theirs in zip(times, off, strict=True))
        print(f"{who:10} {way:10} {statistics.median(times):8.3f} µs a command, {more:+8.3f} against off")


@contextmanager
def _tracing(sampler: Sampler | None):
    """Spans are made, and dropped at their end; without a sampler there is no provider."""
    if sampler is None:
        yield
        return
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor())
    with patch.object(trace, "get_tracer_provider", lambda: provider):
        yield


def _posts(servers: str, ready: Ready, count: int) -> float:
    with Publisher({"bootstrap.servers": servers}, TOPIC) as publisher:
        publisher.connect()
        begun = time.thread_time()
        for number in range(count):
            publisher.post(ready, f"order-{number}")
        spent = time.thread_time() - begun
    return spent / count


def _around(batch: Batch, times: int) -> float:
    spans = spans_of("bench")
    begun = time.thread_time()
    for _ in range(times):
        with spans.applying(batch, {}):
            pass
    return (time.thread_time() - begun) / (times * BATCH)


def _batch(sampled: bool) -> Batch:
    parent = TRACEPARENT, PARENT.format(sampled).encode()
    deliveries = [
        Delivery(at, decode(each.headers, each.value), pack(each.key, each.value, [*each.headers, parent]))
        for at, each in enumerate(encoded(Workload(BATCH)).records)
    ]
    return Batch(Lane(TOPIC, 0), 0, BATCH, deliveries)


if __name__ == "__main__":
    main()
