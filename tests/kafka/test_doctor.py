"""`doctor` finds what threatens the ledger from outside; each fault is made on the real service."""

import json
import time

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from tests.support.publish import buys, fields_of, headers_of
from tests.support.relayed import PATIENCE_S

pytestmark = pytest.mark.real_kafka
DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def group(new_group):
    return new_group(partitions=1)


def finds(cli, what, *, exits=0):
    """What doctor says of it, by level and in words."""
    found = [each for each in cli("doctor", exits=exits)["findings"] if each["what"] == what]
    assert all(each["fix"] for each in found if each["level"] != "ok")
    return [(each["level"], each["found"]) for each in found]


def set_up(admin, topic, setting, value):
    change = ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[change])
    admin.incremental_alter_configs([resource])[resource].result(PATIENCE_S)


def test_a_replication_slot_that_nobody_reads(group, sender):
    """Postgres keeps its log for it until the disk is full."""
    slot = group.topic.replace("-", "_")
    group.ask("SELECT pg_create_physical_replication_slot(%s, true)", slot)
    try:
        [(level, words)] = [each for each in finds(group.cli, "slots") if slot in each[1]]
    finally:
        group.ask("SELECT pg_drop_replication_slot(%s)", slot)
    assert level == "warn"
    assert "reader is away" in words
    findings = group.cli("doctor")["findings"]
    assert not [each for each in findings if each["what"] == "slots" and slot in each["found"]]
    [disk] = [each for each in findings if each["what"] == "disk"]
    assert "ask its host" in disk["found"]  # no role of the database can see what is left


def test_a_record_that_waits_for_most_of_its_retention(group, sender):
    """It would be deleted before anybody applies it; applied, it is no finding any more."""
    waits_since_ms = int(time.time() * 1000) - 9 * DAY_MS // 2
    line = buys("late")
    sender.producer.produce(
        group.topic, json.dumps(fields_of(line)).encode(), b"tea", 0,
        headers=list(headers_of(line)), timestamp=waits_since_ms,
    )  # fmt: skip
    sender.flush()
    [(level, words)] = [each for each in finds(group.cli, "retention") if each[0] != "ok"]
    assert level == "warn"
    assert "4.5 days old" in words
    assert "deletes it at 7.0" in words
    group.catch_up()
    assert [each for each in finds(group.cli, "retention") if each[0] != "ok"] == []


def test_a_topic_that_takes_no_command(group):
    """Fewer replicas are in sync than min.insync.replicas: every acknowledged write is refused."""
    assert {level for level, _ in finds(group.cli, "replicas")} == {"warn"}  # one broker
    admin = AdminClient({"bootstrap.servers": group.kafka["bootstrap.servers"]})
    set_up(admin, group.topic, "min.insync.replicas", "2")
    [(level, words)] = finds(group.cli, "replicas", exits=1)
    assert level == "fail"
    assert "1 in sync" in words


@pytest.mark.slow
def test_how_far_each_relay_is(relayed):
    """`status` and `doctor` find the ledger's relays by what they have written, and say what each lacks."""
    cli, topic = relayed.group.cli, relayed.group.topic
    assert [each for each in cli("status")["relays"] if each["to"] == topic] == []
    assert finds(cli, "relay") == []
    done = relayed.catches_up()
    position = int(done["token"].partition("-")[0])
    [relay] = cli("status")["relays"]
    assert relay == {
        "to": topic, "position": position, "token": done["token"], "lag": 0, "lag_seconds": 0.0, "why": None,
    }  # fmt: skip
    [(level, _)] = finds(cli, "relay")
    assert level == "ok"
    relayed.sell("more")
    [(now,)] = relayed.group.ask("SELECT max(position) FROM ledger.journal_entries")
    [relay] = cli("status")["relays"]
    assert (relay["position"], relay["lag"]) == (position, now - position)
    assert relay["lag_seconds"] > 0
    [(level, words)] = finds(cli, "relay")
    assert level == "warn"
    assert "no relay is connected" in words
    running = relayed.start()
    running.says("ready")
    found = cli("status")
    assert found["connected"]["relay"] == 1
    [(_, words)] = finds(cli, "connected")
    assert "relay 1" in words
    running.terminates()


@pytest.mark.slow
def test_what_a_relay_published_is_kept(relayed):
    """Events and outcomes as long as readers may be away; of the stock the last of each key, for ever."""
    cli, outputs = relayed.group.cli, relayed.outputs
    relayed.catches_up()
    kept = [found for found in finds(cli, "retention") if relayed.group.topic in found[1]]
    assert kept == [("ok", f"{name}: 7 days") for name in (outputs.events, outputs.outcomes)]
    set_up(relayed.admin, outputs.outcomes, "retention.ms", str(DAY_MS // 2))
    [(level, words)] = [found for found in finds(cli, "retention") if found[0] != "ok"]
    assert level == "warn"
    assert words.startswith(f"{outputs.outcomes}: 0.5 days")
    for topic, right, wrong in (
        (outputs.events, "delete", "compact"),
        (outputs.stock, "compact", "delete"),
        (outputs.stock, "compact", "compact,delete"),
        (outputs.positions, "compact", "compact,delete"),
    ):
        set_up(relayed.admin, topic, "cleanup.policy", wrong)
        [(level, words)] = finds(cli, "relay", exits=1)
        assert level == "fail"
        assert f"{topic} has cleanup.policy={wrong}" in words
        set_up(relayed.admin, topic, "cleanup.policy", right)
