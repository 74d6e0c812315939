"""Measure, and write results/*.json, tables and plots. `all` or some of:

    throughput  commands a second beside the limit and the usual ways, by stage and batch size; 10 minutes
    latency     from send() to visible, open loop at 100 to 50,000 commands/s; 6 minutes
    growth      rate, WAL and latency after 0 to 10 million processed messages; 30 minutes
    repeats     duplicates and rejections, as ratios to clean input; 5 minutes
    natural     the first load of a fresh ledger beside the same on an analysed one; 2 minutes
    codec       the two codecs, one worker each, beside the limit; 3 minutes
    shapes      input that hurts: one SKU, Zipf, a million goods, a batch of one; 8 minutes
    hot         who waits for whom: shared goods, a flood, Postgres at a distance; 15 minutes a round
    cache       reads from a stock cache beside other ways, and how soon a commit is seen; 5 minutes
    gateway     purchases and reads over HTTP beside a constant answer and slow clients; 4 minutes a round
    peers       both codecs beside Kafka Streams (Java, Maven) and the usual ways; 2 minutes a round
    soak        ten minutes of purchases under four readers of caches; 12 minutes
    producer    `publish` beside librdkafka's own producer; 1 minute (10 million lines: --lines 10000000)
    relay       the relay beside a plain transactional producer, and beside a worker; 3 minutes
    report      the tables and plots again from results/*.json; no services needed

Needs Kafka and Postgres; the best that this machine offers are found or started as for the tests
(STOCKLEDGER_TEST_RUNG, STOCKLEDGER_DSN, STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS choose). Use a calm machine:
nothing else may use its cores, nor this Postgres and this broker. --quick: about a minute each; it shows that
all works, its figures mean nothing, and nothing is written.
"""

import argparse
import json
from types import ModuleType

from benchmarks import (
    cache,
    codec,
    gateway,
    growth,
    hot,
    latency,
    natural,
    peers,
    producer,
    relay,
    repeats,
    report,
    shapes,
    soak,
    throughput,
)
from benchmarks.result import Options, keep, kept
from benchmarks.testbed import Testbed
from consumer.worker import rarely_collect_cycles

ALL: dict[str, ModuleType] = {
    "throughput": throughput,
    "latency": latency,
    "growth": growth,
    "repeats": repeats,
    "natural": natural,
    "codec": codec,
    "shapes": shapes,
    "hot": hot,
    "cache": cache,
    "gateway": gateway,
    "peers": peers,
    "soak": soak,
    "producer": producer,
    "relay": relay,
}


def main() -> None:
    """Parse, measure, keep, show."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=[*ALL, "all", "report"], metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--rounds", type=int, help="default 3, or 1 with --quick")
    parser.add_argument("--lines", type=int, help="of the producer's benchmark; default 200,000")
    given = parser.parse_args()
    names = list(ALL) if "all" in given.names else [name for name in ALL if name in given.names]
    rounds = given.rounds or (1 if given.quick else 3)
    options = Options(rounds, given.quick, given.lines or (20_000 if given.quick else 200_000))
    if names:
        _measure(names, options)
    if "report" in given.names:
        for name, module in ALL.items():
            if found := kept(name):
                report.write(name, found, module.tables(found), module.plot(found))


def _measure(names: list[str], options: Options) -> None:
    rarely_collect_cycles()  # as `stockledger run` does
    bed = Testbed()
    try:
        if not bed.services.kafka.real and not options.quick:
            raise SystemExit("a mock broker can't hold the workload: start a real Kafka, or use --quick")
        for name in names:
            machine = bed.machine()
            print(f"{name}: {json.dumps(machine)}", flush=True)
            found = {"benchmark": name, "machine": machine, "rounds": options.rounds}
            found |= ALL[name].run(bed, options)
            found = json.loads(json.dumps({**found, "skipped": bed.skipped}, default=vars))
            tables, svg = ALL[name].tables(found), ALL[name].plot(found)
            print(tables, flush=True)
            if not options.quick:
                keep(name, found)
                report.write(name, found, tables, svg)
    finally:
        bed.close()


if __name__ == "__main__":
    main()
