"""Three brokers, to be killed one by one, and logs that lose their tail.

Node 3 is the controller, too, and stays; topics of a test lie on the nodes 1 and 2, as it says.
"""

import signal
import struct
import time
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from pathlib import Path

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, BrokerMetadata, NewTopic, TopicDescription

from stockledger.embedded.postgres import free_port
from tests.support.java_kafka import JavaKafka

PATIENCE_S = 150  # three JVMs at once, on whatever machine
FROZEN_S = 15
NODES = (1, 2, 3)
CONTROLLER = 3
BATCH_HEAD = struct.Struct(">qi")  # of each batch in a segment: its first offset, and how many bytes follow


class Cluster:
    """Three nodes of one cluster. `stop` ends them and removes their data."""

    def __init__(self) -> None:
        ports, controller = {node: free_port() for node in NODES}, free_port()
        self.addresses = {node: f"127.0.0.1:{port}" for node, port in ports.items()}
        self.bootstrap_servers = ",".join(self.addresses.values())
        self._nodes = {
            node: JavaKafka(ports[node], _settings(node, ports[node], controller)) for node in NODES
        }
        self._killed = set(NODES)
        self.whole()

    def create_topic(self, name: str, replicas: Sequence[Sequence[int]], **config: str) -> None:
        """A topic with these nodes for each partition, the first of which leads it."""
        made = NewTopic(
            name, len(replicas), replica_assignment=[list(nodes) for nodes in replicas], config=config
        )
        admin = self._admin()
        admin.create_topics([made])[name].result(PATIENCE_S)
        self.wait_for(f"leaders of {name}", lambda: all(p.leader for p in self.describe(name).partitions))

    def _admin(self) -> AdminClient:
        """A new one: one that has lost its controller may look for it for ever."""
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})

    def describe(self, name: str) -> TopicDescription:
        admin = self._admin()
        found: TopicDescription = admin.describe_topics(TopicCollection([name]), request_timeout=5)[
            name
        ].result(10)
        return found

    def leads(self, name: str, partition: int, node: int | None) -> None:
        """Wait until this node leads the partition; None: until nobody does."""

        def led() -> bool:
            leader = self.describe(name).partitions[partition].leader
            return (leader and leader.id) == node

        self.wait_for(f"node {node} leads {name}[{partition}]", led)

    def alone(self, name: str, partition: int, node: int) -> None:
        """Wait until no other replica than this node's is in sync."""

        def shrunk() -> bool:
            return [each.id for each in self.describe(name).partitions[partition].isr] == [node]

        self.wait_for(f"only node {node} is in sync", shrunk)

    def kill(self, node: int) -> None:
        self._nodes[node].kill()
        self._killed.add(node)

    def start(self, node: int) -> None:
        """Start a killed node again; it may take a while until it answers."""
        self._nodes[node].start()
        self._killed.discard(node)

    def elect(self, name: str, partition: int) -> None:
        """Freeze the partition's leader until another one leads, and wait until all replicas are in sync.

        Where none was in sync just then, as on a busy machine, it goes on and is frozen again.
        """
        [was] = [p.leader for p in self.describe(name).partitions if p.id == partition]
        self.wait_for(f"another leader of {name}[{partition}]", lambda: self._moved(name, partition, was.id))

    def _moved(self, name: str, partition: int, leader: int) -> bool:
        """Whether another one leads after the leader was frozen for a while; then all are in sync."""

        def elsewhere() -> bool:
            now = self.describe(name).partitions[partition].leader
            return bool(now) and now.id != leader

        self._in_sync(name)
        self._nodes[leader].signal(signal.SIGSTOP)
        try:
            self.wait_for(f"another leader of {name}[{partition}]", elsewhere, FROZEN_S)
        except AssertionError:
            return False
        finally:
            self._nodes[leader].signal(signal.SIGCONT)
            self._in_sync(name)
        return True

    def _in_sync(self, name: str) -> None:
        self.wait_for(
            f"all of {name} in sync",
            lambda: all(len(p.isr) == len(p.replicas) for p in self.describe(name).partitions),
        )

    def cut(self, node: int, name: str, partition: int, offset: int) -> None:
        """Let the log of a killed node end before this offset, as on a disk that forgot its last writes."""
        [segment] = sorted((self._nodes[node].data / f"{name}-{partition}").glob("*.log"))[-1:]
        cut_segment(segment, offset)

    def stop(self) -> None:
        for node in self._nodes.values():
            node.stop()

    def whole(self) -> None:
        """Start what a test has killed, and wait until all three answer."""
        for node in self._killed:
            self._nodes[node].start()
        self._killed.clear()
        self.wait_for("three brokers", lambda: len(self._brokers()) == len(NODES))

    def _brokers(self) -> dict[int, BrokerMetadata]:
        admin = self._admin()
        return admin.list_topics(timeout=5).brokers

    def wait_for(self, what: str, check: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
        """Return when `check` gives something true; not reaching the cluster is a "not yet"."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            for node in self._nodes.values():
                node.check()
            with suppress(KafkaException, FutureTimeout):
                if check():
                    return
            time.sleep(0.05)
        raise AssertionError(f"not within {patience_s} s: {what}")


def cut_segment(segment: Path, offset: int) -> None:
    """Cut the segment's file before the first batch that begins at or after the offset."""
    written, at = segment.read_bytes(), 0
    while at + BATCH_HEAD.size <= len(written):
        first, size = BATCH_HEAD.unpack_from(written, at)
        if first >= offset:
            break
        at += BATCH_HEAD.size + size
    assert at < len(written), f"{segment} has nothing from offset {offset} on"
    with segment.open("r+b") as file:
        file.truncate(at)


def _settings(node: int, port: int, controller: int) -> dict[str, str]:
    roles = {
        "node.id": str(node),
        "process.roles": "broker",
        "controller.quorum.voters": f"{CONTROLLER}@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "offsets.topic.replication.factor": "3",
        "default.replication.factor": "3",
        "replica.lag.time.max.ms": "1500",
        "broker.session.timeout.ms": "1000",
    }
    if node != CONTROLLER:
        return roles
    both = f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}"
    return roles | {"process.roles": "broker,controller", "listeners": both}
