"""On three brokers: a log loses what was applied and grows again, or its broker is away.

What Kafka acknowledged and lost is Kafka's loss; to read on as if nothing had happened would be ours.
"""

import random
import signal
import uuid

import pytest

from consumer import known_log
from ledger.api import Ledger
from ledger.errors import RecordsLost, TopicReplaced
from stockledger.reports import status
from stockledger.settings import load
from tests.support.cluster import Cluster
from tests.support.java_kafka import NotUsable
from tests.support.publish import Publisher, buys, shop
from tests.support.workers import Group, wait_for

pytestmark = [pytest.mark.real_kafka, pytest.mark.slow, pytest.mark.timeout(900)]
STEPS = 25
CLEAN = {"min.insync.replicas": "1", "unclean.leader.election.enable": "false"}
UNCLEAN = {"min.insync.replicas": "1", "unclean.leader.election.enable": "true"}


@pytest.fixture(scope="module")
def cluster():
    try:
        cluster = Cluster()
    except NotUsable as why:
        pytest.skip(f"no three brokers here: {why}")
    yield cluster
    cluster.stop()


@pytest.fixture
def kafka(cluster):
    return {
        "bootstrap.servers": cluster.bootstrap_servers,
        "session.timeout.ms": "6000",
        "reconnect.backoff.max.ms": "500",
        "fetch.error.backoff.ms": "50",
        "topic.metadata.refresh.interval.ms": "1000",
    }


@pytest.fixture
def new_group(cluster, kafka, ledger_dsn):
    """`new_group(replicas, **config)`: a group on a new topic that lies on these nodes."""
    made = []

    def create(replicas, **config):
        name = f"commands-{uuid.uuid4().hex[:12]}"
        cluster.whole()
        cluster.create_topic(name, replicas, **config)
        made.append(Group(ledger_dsn, kafka, name))
        return made[-1]

    yield create
    for one in made:
        one.close()


def publishes(group, *lines, partition=0):
    """Acknowledged, each in a batch of its own, so that a log can be cut after any of them."""
    sender = Publisher(group.kafka, group.topic)
    for line in lines:
        sender.send(line, partition=partition)
        sender.flush()
    return sender


def purchases(name, count):
    return [buys(f"{name}-{n}") for n in range(count)]


def lose(cluster, group, count):
    """The broker of partition 0 is killed, and forgets the last records that it had acknowledged."""
    [at] = [at for partition, at in group.next_offsets().items() if partition == 0]
    cluster.kill(1)
    cluster.cut(1, group.topic, 0, at - count)
    cluster.start(1)
    cluster.leads(group.topic, 0, 1)


def told(fault):
    """It names both records and the one next step."""
    assert isinstance(fault, TopicReplaced), fault
    assert "has applied a record (leader epoch" in fault.message
    assert "the log holds another (leader epoch" in fault.message
    return True


def entries(group):
    return group.ask("SELECT position, first_offset, next_offset FROM ledger.journal ORDER BY 1")


def test_a_log_that_lost_its_end_and_grew_again_is_never_read_on_from(cluster, new_group):
    """Nobody ran meanwhile: each verb that reads the topic says so, and nothing of it is applied."""
    group = new_group([[1]])
    publishes(group, *shop(), *purchases("old", 47))
    group.catch_up()
    lose(cluster, group, 40)
    publishes(group, *purchases("other", 80))
    before = entries(group)
    with pytest.raises(TopicReplaced) as refused:
        group.catch_up()
    assert told(refused.value)
    assert entries(group) == before
    settings = load({"dsn": group.dsn, "topic": group.topic}, [f"{n}={v}" for n, v in group.kafka.items()])
    with Ledger(group.dsn) as book:
        found = status.read(book, settings)
    assert told(found.fault)
    assert found.lag is None
    assert [lane.lag for lane in found.lanes] == [None]
    with group.connect() as conn:
        known = known_log.read(conn)
    with pytest.raises(TopicReplaced):
        known_log.KnownRecords(group.kafka, known)
    left = known_log.KnownRecords(group.kafka, known._replace(in_use="another")).left_behind
    assert list(left) == [found.lanes[0].lane]


def test_it_halts_a_running_worker_before_a_command_at_a_new_offset_is_applied(cluster, new_group):
    """New records come under a new leader: that sends the reader back to the last applied one."""
    group = new_group([[1]])
    sender = publishes(group, *shop(), *purchases("old", 47))
    run = group.start(session_timeout_ms="300000", max_poll_interval_ms="300000")
    group.applies(sender)
    before = entries(group)
    run.send(signal.SIGSTOP)
    run.frozen()  # it doesn't see that the log was shorter for a while
    lose(cluster, group, 40)
    publishes(group, *purchases("other", 80))
    run.send(signal.SIGCONT)
    assert run.ended() == 4
    error = run.result()["error"]
    assert error["code"] == "SL-GRP-004", error
    assert "the log holds another (leader epoch" in error["message"]
    assert error["remedy"] == f"stockledger migrate --topic {group.topic}-2 --partitions 12"
    assert entries(group) == before


def test_a_log_that_grew_again_to_the_very_same_end_is_found_too(cluster, new_group):
    """Nothing new arrives, the lag is 0: the look at the idle lane finds it."""
    group = new_group([[1]])
    sender = publishes(group, *shop(), *purchases("old", 47))
    lost = 5
    with group.running() as running:
        group.applies(sender)
        lose(cluster, group, lost)
        publishes(group, *purchases("other", lost))
        fault = running.halts()
    assert isinstance(fault, RecordsLost | TopicReplaced), fault
    with pytest.raises(TopicReplaced) as refused:
        group.catch_up()
    assert told(refused.value)


def test_an_unclean_election_is_found(cluster, new_group):
    """No tool has touched the disk: a replica that was behind becomes the leader, and others write on."""
    group = new_group([[1, 2]], **UNCLEAN)
    sender = publishes(group, *shop(), *purchases("both", 7))
    group.catch_up()
    cluster.kill(2)
    cluster.alone(group.topic, 0, 1)
    alone = publishes(group, *purchases("alone", 40))
    with group.running() as running:
        group.applies(alone)
        before = entries(group)
        cluster.kill(1)
        cluster.start(2)
        cluster.leads(group.topic, 0, 2)
        publishes(group, *purchases("other", 80))
        fault = running.halts()
        cluster.start(1)
    assert isinstance(fault, RecordsLost | TopicReplaced), (
        fault
    )  # as it found the log before or after it grew
    assert entries(group) == before
    assert len(sender.sent) + len(alone.sent) == before[-1][2]
    with pytest.raises(TopicReplaced) as refused:
        group.catch_up()
    assert told(refused.value)


def test_rebalances_restarts_and_new_leaders_are_no_false_alarm(cluster, new_group, seed):
    """A long random run: old records are read again under every leader that the log has had; nobody halts."""
    choose = random.Random(seed)
    assignor = choose.choice(["range", "cooperative-sticky"])
    group = new_group([[1, 2], [2, 1], [1, 2]], **CLEAN)
    sender = publishes(group, *shop())
    workers, sent = [], 0
    group.catch_up()

    def start():
        workers.append(group.start("--batch", "10", partition_assignment_strategy=assignor))
        workers[-1].says("ready")

    start()
    for _ in range(STEPS):
        step = choose.choice(["publish", "publish", "elect", "join", "leave", "kill"])
        if step == "publish":
            for _ in range(choose.randrange(20, 60)):
                sender.send(buys(f"p{sent}"), partition=choose.randrange(3))
                sent += 1
            sender.flush()
        elif step == "elect":
            cluster.elect(group.topic, choose.randrange(3))
        elif step == "join" or len(workers) < 2:
            start()
        else:
            worker = workers.pop(choose.randrange(len(workers)))
            worker.send(signal.SIGTERM if step == "leave" else signal.SIGKILL)
            assert worker.ended() in (0, -signal.SIGKILL), worker.logged[-3:]
        assert all(worker.alive for worker in workers), [worker.logged[-3:] for worker in workers]
    group.applies(sender)
    assert all(worker.alive for worker in workers), [worker.logged[-3:] for worker in workers]
    group.prove(sender, tally={"applied": 3 + sent})


def test_a_lane_whose_broker_is_away_holds_up_no_other(cluster, new_group):
    """Also for a worker that starts then; its lag is unknown, the others' are shown, and it goes on later."""
    group = new_group([[1], [2], [3]])
    set_up = publishes(group, *shop(), partition=1)
    waits = publishes(group, *purchases("one", 5))
    group.catch_up()
    waits.send(*purchases("more", 5), partition=0)
    waits.flush()
    cluster.kill(1)
    cluster.leads(group.topic, 0, None)
    with group.running() as running:
        there = [publishes(group, *purchases(f"p{p}", 20), partition=p) for p in (1, 2)]
        for sender in there:
            group.applies(sender)
        settings = load(
            {"dsn": group.dsn, "topic": group.topic}, [f"{n}={v}" for n, v in group.kafka.items()]
        )
        with Ledger(group.dsn) as book:
            found = status.read(book, settings)
        assert [lane.lag for lane in found.lanes] == [None, 0, 0]
        assert found.lanes[0].why
        assert not found.lanes[1].why
        assert len(running.said("brokers of lanes are away")) == 1
        assert len(running.said("ready")) == 1
        cluster.start(1)
        cluster.leads(group.topic, 0, 1)
        group.applies(waits)
    group.prove(set_up, waits, *there)


def test_a_lane_first_met_while_its_broker_is_away_is_taken_up_later(cluster, new_group):
    """The others are begun and applied; it follows once somebody knows where it begins."""
    group = new_group([[1], [2]])
    waits = publishes(group, *purchases("one", 5))
    cluster.kill(1)
    cluster.leads(group.topic, 0, None)
    with group.running() as running:
        there = publishes(group, *shop(), *purchases("two", 20), partition=1)
        group.applies(there)
        assert group.next_offsets() == {1: 23}
        cluster.start(1)
        cluster.leads(group.topic, 0, 1)
        wait_for("it is taken up", lambda: group.next_offsets().get(0) == len(waits.sent))
        assert running.fault is None
