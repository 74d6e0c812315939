"""`--http`: what each verb that goes on says of itself, on real services, also while these are away."""

import os
import signal
import socket
from contextlib import closing

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ledger.domain.outcome import Outcome
from tests.support.environment import inherited
from tests.support.proxy import Proxy
from tests.support.publish import buys
from tests.support.watching import Watcher
from tests.support.workers import STOP_BUDGET_S, Process, wait_for

pytestmark = pytest.mark.real_kafka
HTTP = "--http", "0"
SHOP = 3
"""Commands that set it up."""


@pytest.fixture
def group(new_group):
    return new_group(partitions=2)


@pytest.fixture
def cut(group):
    """A proxy before the group's database, and the DSN that leads through it."""
    parts = conninfo_to_dict(group.dsn)
    with Proxy(str(parts["host"]), int(str(parts["port"]))) as proxy:
        yield proxy, make_conninfo(group.dsn, host="127.0.0.1", port=proxy.port)


def purchases(sender, name, count=20):
    for partition in range(2):
        sender.send(*(buys(f"{name}-{partition}-{n}") for n in range(count // 2)), partition=partition)
    sender.flush()


def decided(watcher):
    """How many deliveries all of its workers say they have decided."""
    metrics = watcher.metrics()
    return sum(value for (name, _), value in metrics.items() if name == "stockledger_commands_total")


@pytest.fixture
def verb(group):
    """`verb(name, *arguments, dsn=...)`: a verb other than `run`, that goes on."""
    made = []

    def start(name, *arguments, dsn=""):
        environment = inherited() | {"STOCKLEDGER_DSN": dsn or group.dsn}
        made.append(Process([*arguments], environment, verb=name))
        return made[-1]

    yield start
    for each in made:
        each.close()


# run


def test_a_worker_says_how_it_stands(group, sender):
    """Commands by outcome, each batch and its steps, the time from topic to commit, lag, rebalances."""
    run = group.start(*HTTP)
    watcher = Watcher.of(run)
    run.says("ready")
    purchases(sender, "new")
    sender.send(buys("new-0-0"), partition=0)
    sender.flush()
    group.applies(sender)
    watcher.shows("stockledger_commands_total", 20, outcome="applied")
    watcher.shows("stockledger_commands_total", 1, outcome="duplicate")
    seen = watcher.metrics()

    def value(name, **labels):
        return seen[name, frozenset(labels.items())]

    assert {value("stockledger_commands_total", outcome=outcome.value) for outcome in Outcome} == {20, 1, 0}
    assert value("stockledger_end_to_end_seconds_count") == 21
    batches = value("stockledger_apply_duration_seconds_count")
    assert 1 <= batches <= 21
    for step in ("dedup", "load", "decide", "seal"):
        assert value("stockledger_apply_step_duration_seconds_count", step=step) == batches
    for partition in ("0", "1"):
        watcher.shows(
            "kafka_consumergroup_lag", 0, consumergroup=group.name, topic=group.topic, partition=partition
        )
    assert value("stockledger_rebalances_total", kind="assigned") >= 1
    assert value("stockledger_dead_letters", status="parked") == 0
    assert watcher.live
    assert watcher.ready
    run.terminates()


def test_a_worker_says_what_replication_slots_keep(group, sender):
    """What the server keeps of its log for a slot whose reader is away."""
    slot = group.topic.replace("-", "_")
    group.ask("SELECT pg_create_physical_replication_slot(%s, true)", slot)
    try:
        purchases(sender, "new")
        group.catch_up()
        run = group.start(*HTTP)
        watcher = Watcher.of(run)
        wait_for("a slot", lambda: watcher.value("stockledger_replication_slot_kept_bytes", slot=slot) > 0)
        run.terminates()
    finally:
        group.ask("SELECT pg_drop_replication_slot(%s)", slot)


def test_a_worker_whose_database_is_away_is_live_and_not_ready(group, sender, cut):
    """It says which fault it waits for; and is ready again once the database answers."""
    proxy, dsn = cut
    run = group.start(*HTTP, dsn=dsn)
    watcher = Watcher.of(run)
    wait_for("readiness", lambda: watcher.ready)
    proxy.refuse()
    wait_for("no readiness", lambda: not watcher.ready)
    told = watcher.get("/readyz")
    assert (told.status, told.body["ready"]) == (503, False)
    assert "SL-DB-001" in told.body["detail"]
    watcher.shows("stockledger_ready", 0)
    assert watcher.live
    assert watcher.value("stockledger_waits_total", code="SL-DB-001") >= 1
    proxy.accept()
    wait_for("readiness", lambda: watcher.ready)
    run.terminates()


def test_a_worker_that_is_stuck_isnt_live(group, sender):
    """One of two stands still for longer than max.poll.interval.ms: whoever may start it anew hears of it."""
    timeout_ms = group.kafka["session.timeout.ms"]
    run = group.start("--workers", "2", *HTTP, max_poll_interval_ms=timeout_ms)
    watcher = Watcher.of(run)
    wait_for("readiness", lambda: watcher.ready)
    assert watcher.live
    os.kill(run.children()[0], signal.SIGSTOP)
    wait_for("a stuck worker", lambda: not watcher.live)
    assert "stood still" in watcher.get("/livez").body["detail"]
    os.kill(run.children()[0], signal.SIGCONT)
    wait_for("life", lambda: watcher.live)
    run.terminates()


def test_the_sum_over_workers_never_goes_backwards(group, sender):
    """Also where one is killed: what it had said stays in the sum, and its successor's is added."""
    run = group.start("--workers", "2", *HTTP)
    watcher = Watcher.of(run)
    wait_for("readiness", lambda: watcher.ready)
    purchases(sender, "first", 100)
    wait_for("all decided", lambda: decided(watcher) == 100)
    before = watcher.metrics()
    os.kill(run.children()[0], signal.SIGKILL)

    def restarted():
        nonlocal before
        now = watcher.metrics()
        counters = {
            key: value for key, value in before.items() if key[0].endswith(("_total", "_count", "_bucket"))
        }
        assert {key: value for key, value in counters.items() if now.get(key, -1) < value} == {}
        before = now
        return now["stockledger_worker_restarts_total", frozenset()] == 1

    wait_for("the next one", restarted)
    wait_for("readiness", lambda: watcher.ready)
    purchases(sender, "second", 100)
    group.applies(sender)
    wait_for("all decided", lambda: restarted() and decided(watcher) == 200)
    assert watcher.value("stockledger_workers") == 2
    run.terminates()


def test_a_scrape_during_the_end_is_whole_or_refused(group, sender):
    """Somebody asks without pause while it ends, another one says nothing: it ends in time all the same."""
    run = group.start(*HTTP)
    watcher = Watcher.of(run)
    wait_for("readiness", lambda: watcher.ready)
    with closing(socket.create_connection((watcher.host, watcher.port))), watcher.scraped_without_pause():
        run.terminates(STOP_BUDGET_S)


# The others


def test_a_projector_says_how_it_stands(group, sender, verb, cut):
    """Position, lag and what was applied, by projection; live and not ready while its database is away."""
    proxy, dsn = cut
    project = verb("project", "sales_by_day", *HTTP, dsn=dsn)
    watcher = Watcher.of(project)
    wait_for("readiness", lambda: watcher.ready)
    purchases(sender, "new")
    group.catch_up()
    [(position,)] = group.ask("SELECT max(position) FROM ledger.journal_entries")
    watcher.shows("stockledger_projection_position", position, projection="sales_by_day")
    watcher.shows("stockledger_projection_lag_entries", 0, projection="sales_by_day")
    watcher.shows("stockledger_projection_events_total", 20 + SHOP, projection="sales_by_day")
    assert watcher.value("stockledger_projection_lag_seconds_count", projection="sales_by_day") >= 1
    assert (
        watcher.value("stockledger_projection_last_applied_timestamp_seconds", projection="sales_by_day")
        > 1e9
    )
    proxy.refuse()
    wait_for("no readiness", lambda: not watcher.ready)
    assert watcher.live
    proxy.accept()
    wait_for("readiness", lambda: watcher.ready)
    project.terminates()


def test_a_cache_says_how_it_stands(group, sender, verb, cut, tmp_path):
    """Position and age; live and not ready while its database is away, and the age tells."""
    proxy, dsn = cut
    cache = verb("cache", "--into", str(tmp_path / "cache"), *HTTP, dsn=dsn)
    watcher = Watcher.of(cache)
    wait_for("readiness", lambda: watcher.ready)
    [(position,)] = group.ask("SELECT max(position) FROM ledger.journal_entries")
    watcher.shows("stockledger_cache_position", position)
    watcher.shows("stockledger_cache_loads_total", 1)
    assert watcher.value("stockledger_cache_age_seconds_count") >= 1
    proxy.refuse()
    wait_for("no readiness", lambda: not watcher.ready)
    assert watcher.live

    def old():
        fresh = watcher.value("stockledger_cache_age_seconds_bucket", le="0.25")
        return fresh < watcher.value("stockledger_cache_age_seconds_count")

    wait_for("an age", old)
    proxy.accept()
    wait_for("readiness", lambda: watcher.ready)
    cache.terminates()


# Where it listens


@pytest.mark.parametrize("words", [["run"], ["project"], ["relay"], ["cache", "--into", "DIR"]])
def test_a_port_that_is_taken_is_said_at_the_start(group, words, tmp_path):
    """Nothing else is done, and the remedy is named."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arguments = [str(tmp_path / "cache") if word == "DIR" else word for word in words]
        error = group.cli(*arguments, "--http", port, exits=2)["error"]
    assert str(port) in error["message"]
    assert "--http" in error["remedy"]
    assert group.next_offsets() == {}
    assert not (tmp_path / "cache").exists()
