"""Every metric: its name with its unit, what it means, its labels. docs/METRICS.md is made of this.

Names as Prometheus' users expect them; where another exporter has a name already, it is that one. No label
holds an id: whatever is one (a command, a user, goods) has no bound.
"""

from typing import NamedTuple

DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
WAITS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)


class Family(NamedTuple):
    """A metric. One with `buckets` is a histogram, one that ends in `_total` a counter, any other a gauge.

    Of several workers, counters and histograms are added, and so are gauges: or the `greatest` is taken,
    where each says the same thing.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    greatest: bool = False


COMMANDS = Family("stockledger_commands_total", "Deliveries that were decided, by outcome.", ("outcome",))
APPLY = Family(
    "stockledger_apply_duration_seconds",
    "The time of one batch, from BEGIN to its commit; its count is that of the batches.",
    buckets=DURATIONS,
)
STEP = Family(
    "stockledger_apply_step_duration_seconds",
    "The same by step: dedup (with the fence), load, decide, seal (writing and the commit).",
    ("step",),
    buckets=DURATIONS,
)
END_TO_END = Family(
    "stockledger_end_to_end_seconds",
    "From a record's time in Kafka to the commit that decided it, by this machine's clock; "
    "of a large batch 32 records stand for all.",
    buckets=WAITS,
)
LAG = Family(
    "kafka_consumergroup_lag",
    "Offsets between the log's end, as the client heard of it last, and what is applied; own lanes alone.",
    ("consumergroup", "topic", "partition"),
    greatest=True,
)
QUEUED = Family("stockledger_queued_records", "Records in hand that aren't applied yet.")
REBALANCES = Family(
    "stockledger_rebalances_total", "Changes of the lanes: assigned, revoked, lost.", ("kind",)
)
RETRIES = Family("stockledger_batch_retries_total", "Batches that lost a race and were tried again.")
WAITED = Family(
    "stockledger_waits_total", "Times that it had to wait, by the code of the cause (see Errors).", ("code",)
)
DEAD_LETTERS = Family(
    "stockledger_dead_letters", "Dead letters in the ledger, by status.", ("status",), greatest=True
)
SLOT_KEPT = Family(
    "stockledger_replication_slot_kept_bytes",
    "What Postgres keeps of its log (WAL) for a replication slot.",
    ("slot",),
    greatest=True,
)
CODEC = Family("stockledger_codec_info", "1 for the codec that the workers use.", ("codec",), greatest=True)
WORKERS = Family("stockledger_workers", "Worker processes that run.")
RESTARTS = Family("stockledger_worker_restarts_total", "Workers that died and are started again.")

POSITION = Family(
    "stockledger_projection_position", "The journal's position up to which it is applied.", ("projection",)
)
LAG_ENTRIES = Family("stockledger_projection_lag_entries", "Journal entries that it lacks.", ("projection",))
LAG_SECONDS = Family(
    "stockledger_projection_lag_seconds",
    "The age of the first entry that it lacks, one look a second; 0 if it lacks none.",
    ("projection",),
    buckets=WAITS,
)
PROJECTED = Family("stockledger_projection_events_total", "Events applied by this process.", ("projection",))
PROJECTED_AT = Family(
    "stockledger_projection_last_applied_timestamp_seconds",
    "When this process applied events to it last.",
    ("projection",),
)

CACHE_AGE = Family(
    "stockledger_cache_age_seconds", "How old the cached stock may be, one look a second.", buckets=WAITS
)
CACHE_POSITION = Family("stockledger_cache_position", "The journal's position that the cached stock is of.")
CACHE_LOADS = Family("stockledger_cache_loads_total", "Times that all stock was loaded.")
CACHE_RESETS = Family("stockledger_cache_resets_total", "Times that the ledger's history was another one.")

RELAY_POSITION = Family("stockledger_relay_position", "The journal's position up to which it is in Kafka.")
RELAY_LAG_ENTRIES = Family("stockledger_relay_lag_entries", "Journal entries that aren't in Kafka yet.")
RELAY_LAG_SECONDS = Family(
    "stockledger_relay_lag_seconds",
    "The age of the first entry that isn't in Kafka yet, one look a second; 0 if all are.",
    buckets=WAITS,
)
RELAYED = Family(
    "stockledger_relay_records_total", "Records committed to Kafka: events, outcomes, stock.", ("kind",)
)

HTTP = Family(
    "stockledger_http_request_duration_seconds",
    "From a request to the begin of its answer, by the endpoint's path as it is documented.",
    ("method", "route", "status"),
    buckets=DURATIONS,
)
HTTP_IN_HAND = Family("stockledger_http_in_hand_requests", "Requests that aren't answered yet.")
HTTP_WAITING = Family("stockledger_http_waiting_requests", "Those of them that wait for an answer.")
HTTP_STREAMS = Family("stockledger_http_streams", "Streams of events that are open.")

READY = Family("stockledger_ready", "1 while `/readyz` says 200, else 0.")
BUILD = Family(
    "stockledger_build_info",
    "1; the version of stockledger and of Python.",
    ("version", "python"),
    greatest=True,
)

RUN = (
    COMMANDS, APPLY, STEP, END_TO_END, LAG, QUEUED, REBALANCES, RETRIES, WAITED, DEAD_LETTERS,
    SLOT_KEPT, CODEC, READY,
)  # fmt: skip
SUPERVISOR = (WORKERS, RESTARTS)
PROJECT = (POSITION, LAG_ENTRIES, LAG_SECONDS, PROJECTED, PROJECTED_AT, WAITED, READY)
CACHE = (CACHE_AGE, CACHE_POSITION, CACHE_LOADS, CACHE_RESETS, WAITED, READY)
RELAY = (RELAY_POSITION, RELAY_LAG_ENTRIES, RELAY_LAG_SECONDS, RELAYED, WAITED, READY)
SERVE = (HTTP, HTTP_IN_HAND, HTTP_WAITING, HTTP_STREAMS, CACHE_AGE, CACHE_POSITION, CACHE_LOADS, CACHE_RESETS)
VERBS: dict[str, tuple[Family, ...]] = {
    "run": RUN,
    "run --workers N": SUPERVISOR,
    "project": PROJECT,
    "relay": RELAY,
    "cache": CACHE,
    "serve": SERVE,
}
"""Which verb has which; each has `BUILD` besides."""
FAMILIES = {family.name: family for of_verb in (*VERBS.values(), (BUILD,)) for family in of_verb}
