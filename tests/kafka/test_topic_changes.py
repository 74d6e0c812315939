"""The topic changes under the ledger, or isn't what it seems: halt, and name the one next step."""

import signal

import confluent_kafka
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
)

from consumer import gaps, watch
from consumer.source import Source
from consumer.worker import Worker
from ledger.domain.delivery import Lane, Mark
from ledger.errors import (
    Contended,
    ForeignGroup,
    RecordsLost,
    SchemaMismatch,
    TopicReplaced,
    TopicUnfit,
)
from tests.support.publish import audit, buys, shop
from tests.support.workers import wait_for

pytestmark = pytest.mark.real_kafka


@pytest.fixture
def group(new_group):
    return new_group(partitions=2)


@pytest.fixture
def sender(group, publisher):
    """A producer of the group's topic; the shop and ten purchases are in partition 0, not yet applied."""
    sender = publisher(group)
    sender.send(*shop(), *(buys(f"p{n}") for n in range(10)), partition=0)
    sender.flush()
    return sender


@pytest.fixture
def admin(kafka):
    return AdminClient({"bootstrap.servers": kafka["bootstrap.servers"], "log_level": 0})


@pytest.fixture
def often(monkeypatch):
    """The watch looks at the topic at once."""
    monkeypatch.setattr(watch, "INTERVAL_S", 0.3)


def delete_records(admin, topic, partition, before):
    where = TopicPartition(topic, partition, before)
    admin.delete_records([where])[where].result(60)


def make_again(services, admin, topic, partitions=2):
    """Delete the topic and make one of the same name."""
    services.kafka.delete_topic(topic)
    wait_for("it is gone", lambda: topic not in admin.list_topics(timeout=60).topics)
    services.kafka.create_topic(topic, partitions)


# Another topic of the same name


@pytest.mark.parametrize("count", [0, 3, 30])
def test_a_topic_made_again_while_nobody_ran_is_refused(group, sender, publisher, services, admin, count):
    """With fewer or with more records than before: offsets begin anew, so none of them is read."""
    group.catch_up()
    make_again(services, admin, group.topic)
    again = publisher(group)
    again.send(*(buys(f"new-{n}") for n in range(count)), partition=0)
    again.flush()
    before = group.ask("TABLE ledger.journal")
    with pytest.raises(TopicReplaced, match="deleted and made again") as refused:
        group.catch_up()
    assert refused.value.remedy == f"stockledger migrate --topic {group.topic}-2 --partitions 2"
    assert group.ask("TABLE ledger.journal") == before


@pytest.mark.parametrize("count", [3, 30])
def test_a_topic_made_again_under_a_running_worker_halts_it(
    group, sender, publisher, services, admin, often, count
):
    """Within the watch's interval, whatever the client makes of it."""
    with group.running() as running:
        group.applies(sender)
        make_again(services, admin, group.topic)
        again = publisher(group)
        again.send(*(buys(f"new-{n}") for n in range(count)), partition=0)
        again.flush()
        assert isinstance(running.halts(), TopicReplaced)
    with pytest.raises(TopicReplaced):
        group.catch_up()


def test_a_topic_made_again_with_more_records_is_found_out(new_group, publisher, services, admin):
    """The client reads on at the old number and says nothing; the watch over the topic's id halts it."""
    group = new_group(partitions=1, session_timeout_ms="30000")
    sender = publisher(group)
    sender.send(*shop(), partition=0)
    sender.flush()
    run = group.start()
    group.applies(sender)
    run.send(signal.SIGSTOP)
    run.frozen()
    make_again(services, admin, group.topic, 1)
    again = publisher(group)
    again.send(*(buys(f"new-{n}") for n in range(30)), partition=0)
    again.flush()
    run.send(signal.SIGCONT)
    assert run.ended() == 4
    assert run.result()["error"]["code"] == "SL-GRP-004"
    assert group.epochs() == {0: 1}, "it was found by a rebalance"


def test_a_topic_deleted_under_a_running_worker_halts_it(group, sender, services, often):
    """It doesn't wait for ever for a topic that is gone."""
    with group.running() as running:
        group.applies(sender)
        services.kafka.delete_topic(group.topic)
        fault = running.halts()
    assert isinstance(fault, TopicReplaced)
    with pytest.raises(TopicReplaced, match="was deleted, of which the ledger has 2 lanes") as refused:
        group.catch_up()
    assert (
        refused.value.remedy == fault.remedy == f"stockledger migrate --topic {group.topic}-2 --partitions 2"
    )
    services.kafka.create_topic(group.topic, 2)  # for the fixture to delete


def test_a_refusal_ends_the_command_with_code_and_remedy(group, sender, services, admin):
    """Exit code 4; stderr and the object on stdout say what is wrong and the one next step."""
    group.catch_up()
    make_again(services, admin, group.topic)
    run = group.start()
    assert run.ended() == 4
    error = run.result()["error"]
    assert (error["code"], error["retryable"]) == ("SL-GRP-004", False)
    assert error["remedy"] == f"stockledger migrate --topic {group.topic}-2 --partitions 2"


def test_commands_go_on_in_a_topic_of_another_name(new_group, group, sender, publisher):
    """The remedy works: what was applied from the old topic stays applied once."""
    group.catch_up()
    other = new_group(partitions=1)
    other.name = group.name
    again = publisher(other)
    again.send(*shop(), *(buys(f"p{n}") for n in range(15)), partition=0)
    again.flush()
    other.catch_up()
    other.prove(sender, again, tally={"applied": 18, "duplicate": 13})


# Records deleted before they were read


def test_deleted_records_halt_until_somebody_accepts_the_loss(group, sender, admin):
    """Nothing is skipped by itself; an accepted gap is an entry of its own, with who accepted it."""
    group.catch_up()
    lost = [buys(f"lost-{n}") for n in range(4)]
    sender.send(*lost, buys("kept"), partition=0)
    sender.flush()
    delete_records(admin, group.topic, 0, 17)
    with pytest.raises(RecordsLost, match=r"4 records .* were deleted before they were read") as refused:
        group.catch_up()
    assert "gap accept 0" in refused.value.remedy
    with group.connect() as conn:
        [gap] = gaps.pending(conn, group.kafka, group.topic)
        assert (gap.lane.partition, gap.first_offset, gap.next_offset) == (0, 13, 17)
        gaps.accept(conn, gap, by="olga")
        assert gaps.pending(conn, group.kafka, group.topic) == []
        with pytest.raises(Contended):
            gaps.accept(conn, gap, by="olga")
    group.catch_up()
    for offset in range(13, 17):
        del sender.sent[0, offset]
    group.prove(sender, tally={"applied": 14})
    rows = group.ask("SELECT partition, first_offset, next_offset, cause, accepted_by FROM ledger.gaps")
    assert rows == [(0, 13, 17, "records_deleted", "olga")]


def test_records_deleted_while_it_runs_halt_it(group, sender, admin, monkeypatch):
    """Those that were fetched already are applied; at the first that is missing it stops."""
    apply_next = Worker._apply_next
    begun: list[bool] = []

    def after_the_deletion(self, source, processor):
        if source.lanes and any(map(len, source.lanes.values())) and not begun:
            begun.append(True)
            delete_records(admin, group.topic, 0, -1)
        apply_next(self, source, processor)

    monkeypatch.setattr(Worker, "_apply_next", after_the_deletion)
    prefetch_nothing = {
        "queued.min.messages": "1",
        "queued.max.messages.kbytes": "1",
        "max.partition.fetch.bytes": "1",
        "fetch.max.bytes": "1000000",
        "fetch.queue.backoff.ms": "1000",
    }
    sender.send(*(buys(f"big-{n}") for n in range(3)), partition=0)
    sender.flush()
    with group.running(batch_size_max=1, kafka=prefetch_nothing) as running:
        fault = running.halts()
    assert isinstance(fault, RecordsLost)
    assert "were deleted before they were read" in fault.message
    assert group.next_offsets()[0] < 16


def test_a_log_that_was_cut_short_is_refused(group, sender):
    """The lane is ahead of its log: Kafka lost what it had acknowledged, and gives the offsets out again."""
    group.catch_up()
    group.do("UPDATE ledger.lane SET next_offset = 20 WHERE partition = 0")
    sender.send(buys("next"), partition=0)
    sender.send(buys("elsewhere"), partition=1)
    sender.flush()
    with pytest.raises(RecordsLost, match=r"ends at offset 14, but is applied up to 20") as refused:
        group.catch_up()
    assert refused.value.remedy.startswith(f"stockledger migrate --topic {group.topic}-2 ")


OTHERS = ["last_leader_epoch = last_leader_epoch + 1", "last_timestamp_ms = 1", "last_digest = 'other'"]


@pytest.mark.parametrize("other", OTHERS)
def test_another_record_at_the_last_applied_offset_is_refused(group, sender, other):
    """A log that lost its end and grew again: whatever of the record differs, nothing after it is applied."""
    group.catch_up()
    group.do(f"UPDATE ledger.lane SET {other} WHERE partition = 0")
    before = group.ask("TABLE ledger.journal")
    with pytest.raises(
        TopicReplaced, match=r"at offset 12 the ledger has applied .*log holds another"
    ) as idle:
        group.catch_up()
    sender.send(buys("next"), partition=0)
    sender.send(buys("elsewhere"), partition=1)
    sender.flush()
    with group.running() as running:
        fault = running.halts()
    assert isinstance(fault, TopicReplaced)
    assert fault.remedy == idle.value.remedy == f"stockledger migrate --topic {group.topic}-2 --partitions 12"
    assert [row for row in group.ask("TABLE ledger.journal") if row[3] == 0] == before


def test_a_log_that_is_not_the_applied_one_halts_an_idle_worker(group, sender, often, monkeypatch):
    """Nothing new has to arrive for it: the last applied record is read again with each look at the topic."""
    made = []

    def make(*given):
        made.append(Source(*given))
        return made[-1]

    monkeypatch.setattr("consumer.worker.Source", make)
    with group.running() as running:
        group.applies(sender)
        queue = made[0].lanes[Lane(group.topic, 0)]
        wait_for("it has applied it", lambda: queue.mark and queue.mark.offset == 12)
        queue._mark, queue._applied = (
            Mark(12, 0, 1, b"other"),
            None,
        )  # as if the log held another record there
        assert isinstance(running.halts(), TopicReplaced)


def test_a_record_that_retention_removed_is_not_compared(group, sender, admin):
    """The log's start says so: what comes next is still there, and read on from."""
    group.catch_up()
    delete_records(admin, group.topic, 0, -1)
    sender.send(buys("next"), partition=0)
    sender.flush()
    group.catch_up()
    assert group.next_offsets()[0] == 14


def test_a_last_record_behind_which_only_markers_follow_is_found(group, kafka, sender):
    """A batch that ends in a gap: the offset before the next one holds no record, and that is no fault."""
    transactional = confluent_kafka.Producer({**sender_properties(kafka), "transactional.id": group.topic})
    transactional.init_transactions()
    for _ in range(2):
        transactional.begin_transaction()
        transactional.produce(group.topic, b"no command", partition=0)
        transactional.commit_transaction()
        group.catch_up()
    sender.send(buys("next"), partition=0)
    sender.flush()
    group.catch_up()
    assert group.next_offsets()[0] == 18
    assert group.ask("SELECT last_offset FROM ledger.lane WHERE partition = 0") == [(17,)]


def sender_properties(kafka):
    return {"bootstrap.servers": kafka["bootstrap.servers"], "log_level": 0}


# Where to begin


def test_a_log_whose_head_is_gone_is_begun_only_when_told_to(group, sender, admin):
    """What was deleted before the ledger first met the topic is a recorded gap, on `--start earliest`."""
    delete_records(admin, group.topic, 0, 3)
    with pytest.raises(RecordsLost, match="begins at offset 3") as refused:
        group.catch_up()
    assert "--start earliest" in refused.value.remedy
    group.catch_up(start="earliest")
    for offset in range(3):
        del sender.sent[0, offset]
    group.prove(sender, tally={"rejected": 10})
    rows = group.ask("SELECT partition, first_offset, next_offset, cause, accepted_by FROM ledger.gaps")
    assert rows == [(0, 0, 3, "before_start", "--start")]


def test_start_latest_skips_what_is_there_once_and_says_so(group, sender):
    """It counts for a topic first met: later runs go on where the ledger is, whatever `--start` says."""
    group.catch_up(start="latest")
    skipped = dict(sender.sent)
    sender.send(*shop(), buys("new"), partition=0)
    sender.flush()
    group.catch_up(start="latest")
    sender.send(buys("newer"), partition=0)
    sender.flush()
    group.catch_up(start="earliest")
    for place in skipped:
        del sender.sent[place]
    audit(group.dsn, sender, tally={"applied": 5})
    assert group.ask("SELECT first_offset, next_offset, cause FROM ledger.gaps") == [(0, 13, "before_start")]


def test_what_start_latest_skipped_is_no_loss(group, sender):
    """A recorded gap accounts for its offsets, also while Kafka still has their records."""
    group.catch_up(start="latest")
    sender.sent.clear()
    group.prove(sender)


def test_start_earliest_reads_all_that_is_there(group, sender):
    """No gap where nothing is missing."""
    group.catch_up(start="earliest")
    group.prove(sender, tally={"applied": 13})


def test_partitions_added_later_are_read_from_their_beginning(group, sender, admin, publisher):
    """Also with `--start latest`: that was for the topic as it was first met."""
    group.catch_up()
    admin.create_partitions([NewPartitions(group.topic, 3)])[group.topic].result(60)
    wait_for(
        "three partitions", lambda: len(admin.list_topics(timeout=60).topics[group.topic].partitions) == 3
    )
    more = publisher(group)
    more.send(*(buys(f"more-{n}") for n in range(5)), partition=2)
    more.flush()
    group.catch_up(start="latest")
    group.prove(sender, more, tally={"applied": 18})


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_partitions_added_under_a_running_worker_are_taken_up(new_group, publisher, admin, protocol):
    """They are lanes like the others, from their first record on."""
    group = new_group(partitions=1, group_protocol=protocol)
    sender = publisher(group)
    sender.send(*shop(), partition=0)
    sender.flush()
    with group.running() as running:
        group.applies(sender)
        admin.create_partitions([NewPartitions(group.topic, 3)])[group.topic].result(60)
        wait_for("it is seen", lambda: len(admin.list_topics(timeout=60).topics[group.topic].partitions) == 3)
        more = publisher(group)
        more.send(*(buys(f"one-{n}") for n in range(5)), partition=1)
        more.send(*(buys(f"two-{n}") for n in range(5)), partition=2)
        more.flush()
        group.applies(more)
        assert running.fault is None
    group.prove(sender, more, tally={"applied": 13})


# Whose ledger it is


def test_another_group_is_refused(group, sender):
    """A ledger has one consumer group, for good: two would each apply every record."""
    group.catch_up()
    own, group.name = group.name, "intruders"
    with pytest.raises(ForeignGroup, match=f"belongs to the consumer group {own}, not to intruders"):
        group.catch_up()


def test_another_cluster_is_refused(group, sender):
    """Offsets of one cluster mean nothing on another."""
    group.catch_up()
    group.do("UPDATE ledger.identity SET cluster_id = 'elsewhere'")
    with pytest.raises(TopicReplaced, match="begun on the Kafka cluster elsewhere"):
        group.catch_up()


def test_an_older_or_newer_schema_is_refused(group, sender):
    """A build reads and writes only the schema that it was made for."""
    group.catch_up()
    [last] = group.ask("SELECT number, name, checksum FROM ledger.migration ORDER BY number DESC LIMIT 1")
    group.do("DELETE FROM ledger.migration WHERE number = (SELECT max(number) FROM ledger.migration)")
    with pytest.raises(SchemaMismatch, match="lacks 1 of") as older:
        group.catch_up()
    assert older.value.remedy == "stockledger migrate"
    group.do("INSERT INTO ledger.migration (number, name, checksum) VALUES ({}, '{}', '{}')".format(*last))
    group.do("INSERT INTO ledger.migration (number, name, checksum) VALUES (999, 'future', '')")
    with pytest.raises(SchemaMismatch, match="the schema is at 999") as newer:
        group.catch_up()
    assert "upgrade stockledger" in newer.value.remedy


def test_a_compacted_topic_is_refused(group, sender, admin):
    """Compaction would remove commands that were never applied."""
    name = f"{group.topic}-compacted"
    admin.create_topics([NewTopic(name, 1, 1, config={"cleanup.policy": "compact,delete"})])[name].result(60)
    wait_for("it is there", lambda: name in admin.list_topics(timeout=60).topics)
    with pytest.raises(TopicUnfit, match="compacted"):
        group.catch_up(topics=(name,))
    admin.delete_topics([name])[name].result(60)


def test_a_topic_that_is_compacted_from_now_on_halts_the_worker(group, sender, admin, often):
    """As at the start: the watch looks at its settings, too."""
    with group.running() as running:
        group.applies(sender)
        resource = ConfigResource(ConfigResource.Type.TOPIC, group.topic)
        change = ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.SET)
        resource.add_incremental_config(change)
        admin.incremental_alter_configs([resource])[resource].result(60)
        fault = running.halts()
    assert isinstance(fault, TopicUnfit)
    assert "compacted" in fault.message
    with pytest.raises(TopicUnfit, match="compacted"):
        group.catch_up()


def test_an_unknown_topic_is_refused_and_not_made(group, admin):
    """A misspelt name doesn't become an empty topic that is read happily."""
    name = f"{group.topic}-misspelt"
    with pytest.raises(TopicUnfit, match="doesn't exist") as refused:
        group.catch_up(topics=(name,))
    assert refused.value.remedy == f"stockledger migrate --topic {name} --partitions 12"
    assert name not in admin.list_topics(timeout=60).topics
