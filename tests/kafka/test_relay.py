"""The relay on a real broker: each entry once for readers of committed records, whatever happens."""

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

from tests.support.relayed import PARTITIONS, PATIENCE_S, place
from tests.support.workers import wait_for

pytestmark = pytest.mark.real_kafka
CUT = """SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'stockledger/relay'"""


def test_all_that_the_journal_says_is_there_once(relayed):
    """Events, outcomes and stock; a second run has nothing to add, and a later one adds what came since."""
    first = relayed.catches_up()
    relayed.proves()
    assert (first["events"], first["outcomes"]) == (
        len(relayed.records(relayed.outputs.events)), len(relayed.records(relayed.outputs.outcomes)),
    )  # fmt: skip
    again = relayed.catches_up()
    assert (again["events"], again["outcomes"], again["token"]) == (0, 0, first["token"])
    relayed.sell("second")
    assert relayed.catches_up()["events"] > 0
    relayed.proves()


def test_of_two_relays_the_later_one_works(relayed):
    """It fences the other, which says so and ends with a code; nothing is there twice."""
    first = relayed.start()
    first.says("ready")
    wait_for("it relays", lambda: relayed.records(relayed.outputs.positions))
    second = relayed.start()
    second.says("ready")
    relayed.sell("then")
    assert first.ended() == 4, first.logged
    error = first.result()["error"]
    assert error["code"] == "SL-RLY-001", error
    second.terminates()
    relayed.catches_up()
    relayed.proves()


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        ("events missing", "SL-KAFKA-005", "migrate"),
        ("events compacted", "SL-KAFKA-005", "cleanup.policy"),
        ("stock not compacted", "SL-KAFKA-005", "cleanup.policy"),
        ("too few replicas", "SL-KAFKA-005", "replicas"),
        ("events made again", "SL-GRP-004", "--to"),
        ("positions spoilt", "SL-KAFKA-005", "--to"),
    ],
)
def test_topics_that_cant_do_it_are_named_before_anything_is_written(relayed, spoil, code, words):
    """Exit 4 with the topic and the next step."""
    relayed.catches_up()
    before = len(relayed.records(relayed.outputs.outcomes))
    relayed.sell("then")
    events, stock = relayed.outputs.events, relayed.outputs.stock
    if spoil == "events made again":
        make_again(relayed, events)
    elif spoil == "events missing":
        relayed.admin.delete_topics([events])[events].result(PATIENCE_S)
        wait_for("it is gone", lambda: events not in relayed.admin.list_topics(timeout=PATIENCE_S).topics)
    elif spoil == "positions spoilt":
        stranger = Producer({"bootstrap.servers": relayed.group.kafka["bootstrap.servers"]})
        stranger.produce(relayed.outputs.positions, b"hello", b"x")
        stranger.flush(PATIENCE_S)
    else:
        name, setting, value = {
            "events compacted": (events, "cleanup.policy", "compact"),
            "stock not compacted": (stock, "cleanup.policy", "delete"),
            "too few replicas": (events, "min.insync.replicas", "2"),
        }[spoil]
        change = ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[change])
        relayed.admin.incremental_alter_configs([resource])[resource].result(PATIENCE_S)
    process = relayed.start("--until-caught-up")
    assert process.ended() == 4, process.logged
    error = process.result()["error"]
    assert error["code"] == code, error
    assert words in error["remedy"] or words in error["message"], error
    assert len(relayed.records(relayed.outputs.outcomes)) == before


def test_what_is_away_is_waited_for(relayed):
    """Its connection to the database is cut over and over: it goes on, each entry once."""
    process = relayed.start()
    process.says("ready")
    for number in range(3):
        relayed.sell(f"cut-{number}")
        wait_for("it is cut off", lambda: relayed.group.ask(CUT))
        process.says("ready", times=number + 2)
    process.terminates()
    relayed.catches_up()
    relayed.proves()


def test_a_topic_that_is_deleted_under_it_ends_it(relayed):
    """Exit 4, and the topic is named; what the journal has is not lost."""
    process = relayed.start()
    process.says("ready")
    events = relayed.outputs.events
    wait_for("it relays", lambda: relayed.records(events))
    relayed.admin.delete_topics([events])[events].result(PATIENCE_S)
    relayed.sell("then")
    assert process.ended() == 4, process.logged
    error = process.result()["error"]
    assert error["code"] == "SL-KAFKA-005", error


def test_a_topic_that_was_made_again_under_it_ends_it(relayed):
    """Soon, although it has nothing to write: what was relayed so far isn't in the new one."""
    process = relayed.start()
    process.says("ready")
    events = relayed.outputs.events
    wait_for("it relays", lambda: relayed.records(events))
    make_again(relayed, events)
    assert process.ended() == 4, process.logged
    error = process.result()["error"]
    assert error["code"] in ("SL-GRP-004", "SL-KAFKA-005"), error  # it may have looked in between
    assert events in error["message"]


def make_again(relayed, topic):
    """Delete the topic, and make another one of its name."""
    relayed.admin.delete_topics([topic])[topic].result(PATIENCE_S)
    wait_for("it is gone", lambda: topic not in relayed.admin.list_topics(timeout=PATIENCE_S).topics)
    relayed.admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(PATIENCE_S)
    wait_for("it is back", lambda: topic in relayed.admin.list_topics(timeout=PATIENCE_S).topics)


def test_it_begins_where_it_is_told_to_the_first_time_alone(relayed):
    """`--from latest` leaves out what was there; later runs go on, whatever they are told."""
    begun = relayed.catches_up("--from", "latest")
    assert begun["events"] == 0
    relayed.sell("then")
    assert relayed.catches_up("--from", "0")["events"] > 0
    last = int(begun["token"].partition("-")[0])
    assert {place(each)[0] for each in relayed.records(relayed.outputs.events)} == {
        position
        for (position,) in relayed.group.ask("SELECT position FROM ledger.events WHERE position > %s", last)
    }
