"""Several command topics in one ledger: each has lanes of its own, all one register and journal."""

import signal

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from consumer import watch
from ledger.errors import TopicMissing, TopicReplaced, TopicUnfit
from tests.support.publish import buys, shop
from tests.support.workers import wait_for

pytestmark = [pytest.mark.real_kafka, pytest.mark.timeout(400)]
PROTOCOLS = {"cooperative": {}, "KIP-848": {"group_protocol": "consumer"}}


@pytest.fixture
def two(new_group):
    """`two(**properties)`: the same group on one topic, and on another one."""

    def create(**properties):
        main, hot = new_group(partitions=2, **properties), new_group(partitions=2, **properties)
        hot.name = main.name
        return main, hot

    return create


@pytest.fixture
def both(two):
    return two()


@pytest.fixture
def set_up(publisher):
    """`set_up(main, hot)`: producers of both topics; the shop is set up by the first, and applied."""

    def create(main, hot):
        sender, other = publisher(main), publisher(hot)
        sender.send(*shop(stock=10_000), partition=0)
        sender.flush()
        main.catch_up()
        return sender, other

    return create


def topics(*groups):
    return tuple(group.topic for group in groups)


def owned(group):
    """The lanes that somebody had, by topic and partition, and the process that had each last."""
    return {
        (topic, partition): pid
        for topic, partition, pid in group.ask("SELECT topic, partition, owner_pid FROM ledger.lane")
    }


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_two_workers_share_out_the_lanes_of_two_topics(two, set_up, protocol):
    """One is killed in the middle of a batch, another takes its lanes; a command that is sent to both topics
    counts once, and is a duplicate on whichever lane comes later."""
    main, hot = two(**PROTOCOLS[protocol])
    sender, other = set_up(main, hot)
    first = main.start("--topic", hot.topic, "--batch", "10", failpoints="seal=kill@12")
    for partition in range(2):
        sender.send(*(buys(f"main-{partition}-{n}") for n in range(60)), partition=partition)
        other.send(*(buys(f"hot-{partition}-{n}") for n in range(60)), partition=partition)
        other.send(*(buys(f"main-{partition}-{n}") for n in range(60)), partition=partition)
    for each in (sender, other):
        each.flush()
    assert first.ended() == -signal.SIGKILL
    second = main.start("--topic", hot.topic, "--batch", "10")
    third = main.start("--topic", hot.topic, "--batch", "10")
    wait_for("both have lanes", lambda: {second.pid, third.pid} == set(owned(main).values()))
    sender.send(*(buys(f"more-{n}") for n in range(20)), partition=1)
    other.send(*(buys(f"more-{n}") for n in range(20)), partition=0)
    for group, each in ((main, sender), (hot, other)):
        each.flush()
        group.applies(each)
    for worker in (second, third):
        worker.terminates()
    main.prove(sender, other, tally={"applied": 3 + 4 * 60 + 20, "duplicate": 2 * 60 + 20})
    assert set(owned(main)) == {(topic, partition) for topic in topics(main, hot) for partition in range(2)}


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_members_of_one_group_may_have_different_topics(two, set_up, protocol):
    """One worker is on the first topic, one on both: none gets a lane that it isn't for. Without the second
    one the other topic waits, and the first goes on."""
    main, hot = two(**PROTOCOLS[protocol])
    sender, other = set_up(main, hot)
    one = main.start()
    sender.send(*(buys(f"a-{n}") for n in range(10)), partition=0)
    sender.flush()
    main.applies(sender)
    all_ = main.start("--topic", hot.topic)
    other.send(*(buys(f"b-{n}") for n in range(10)), partition=0)
    other.flush()
    hot.applies(other)
    wait_for("it has the other topic", lambda: owned(main).get((hot.topic, 1)) == all_.pid)
    assert not [line for line in one.said("assigned") if hot.topic in str(line["lanes"])]
    all_.send(signal.SIGKILL)
    all_.ended()
    other.send(*(buys(f"c-{n}") for n in range(10)), partition=1)
    sender.send(*(buys(f"d-{n}-{partition}") for n in range(10) for partition in range(2)))
    for each in (sender, other):
        each.flush()
    main.applies(sender)
    assert hot.next_offsets()[1] == 0
    again = main.start("--topic", hot.topic)
    hot.applies(other)
    for worker in (one, again):
        worker.terminates()
    main.prove(sender, other, tally={"applied": 3 + 50})


def test_caught_up_is_who_has_applied_his_own_topics(both, set_up):
    """What waits in another topic is another worker's business; then both are applied at once."""
    main, hot = both
    sender, other = set_up(main, hot)
    other.send(*(buys(f"b-{n}") for n in range(5)), partition=1)
    other.flush()
    done = main.catch_up()
    assert (done.caught_up, done.lag, done.counts.total()) == (True, 0, 0)
    assert hot.next_offsets() == {}
    sender.send(buys("a"), partition=1)
    sender.flush()
    done = main.catch_up(topics=topics(hot, main))
    assert (done.caught_up, done.lag, done.counts.total()) == (True, 0, 6)
    main.prove(sender, other, tally={"applied": 9})


def test_one_topic_is_deleted_while_the_other_goes_on(both, set_up, services, monkeypatch):
    """The worker that has it halts and names it; one on the other topic alone applies on."""
    monkeypatch.setattr(watch, "INTERVAL_S", 0.3)
    main, hot = both
    sender, other = set_up(main, hot)
    other.send(buys("b"), partition=0)
    other.flush()
    with main.running() as goes_on, main.running(topics=topics(main, hot)) as halts:
        hot.applies(other)
        services.kafka.delete_topic(hot.topic)
        fault = halts.halts()
        assert isinstance(fault, TopicReplaced)
        assert f"the topic {hot.topic} was deleted" in fault.message
        assert fault.remedy == f"stockledger migrate --topic {hot.topic}-2 --partitions 2"
        for partition in range(2):
            sender.send(*(buys(f"a-{n}-{partition}") for n in range(5)), partition=partition)
        sender.flush()
        main.applies(sender)
        assert goes_on.alive
    with pytest.raises(TopicReplaced, match=hot.topic):
        main.catch_up(topics=topics(main, hot))
    proof = main.cli("verify", "--topic")
    assert {lane["topic"] for lane in proof["left_behind"]} == {hot.topic}
    services.kafka.create_topic(hot.topic, 2)  # for the fixture to delete


def test_each_topic_is_looked_at_before_the_first_record(both, set_up, kafka):
    """One that is missing or compacted is named, and nothing of the others is applied meanwhile."""
    main, hot = both
    sender, _ = set_up(main, hot)
    sender.send(buys("a"), partition=0)
    sender.flush()
    before = main.next_offsets()
    missing, compacted = f"{hot.topic}-misspelt", f"{hot.topic}-compacted"
    with pytest.raises(TopicMissing, match=missing) as caught:
        main.catch_up(topics=(main.topic, missing))
    assert caught.value.remedy == f"stockledger migrate --topic {missing} --partitions 12"
    admin = AdminClient({"bootstrap.servers": kafka["bootstrap.servers"], "log_level": 0})
    admin.create_topics([NewTopic(compacted, 1, config={"cleanup.policy": "compact"})])[compacted].result(30)
    try:
        with pytest.raises(TopicUnfit, match=f"{compacted} is compacted"):
            main.catch_up(topics=(main.topic, compacted))
    finally:
        admin.delete_topics([compacted])[compacted].result(30)
    assert main.next_offsets() == before


def test_all_topics_are_decided_again_in_the_order_of_the_journal(both, set_up):
    """`replay --commands --check` and `verify --topic` read every topic of the ledger, whatever is set."""
    main, hot = both
    sender, other = set_up(main, hot)
    for n in range(3):  # the entries of both alternate
        sender.send(buys(f"p{n}"), buys(f"p{n - 1}"), partition=0)
        other.send(buys(f"p{n}"), buys(f"q{n}"), partition=1)
        for group, each in ((main, sender), (hot, other)):
            each.flush()
            group.catch_up()
    checked = main.cli("replay", "--commands", "--check")
    assert (checked["agrees"], checked["records"]) == (True, 15)
    assert main.cli("verify", "--topic")["checks"][-1]["figure"].startswith("15 ")
    main.prove(sender, other)
