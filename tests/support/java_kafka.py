"""The real Apache Kafka without Docker: its jars from Maven, run by Java 17 or later; one node, KRaft."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from stockledger.embedded.postgres import free_port

HERE = Path(__file__).parent / "kafka_java"
VERSION = os.environ.get("STOCKLEDGER_TEST_KAFKA") or "4.3.1"
CLUSTER_ID = "5L6g3nShT-eMCtK--X86sw"
HEAP = "-Xmx320m"
FETCH_TIMEOUT_S = 300

# For both real brokers, Docker's and Java's: quick rebalances, short sessions, a killed broker back in 4 s.
# Where tests run side by side a broker may not get to its controller for a second, and must not be fenced.
SETTINGS = {
    "node.id": "1",
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "200",
    # the only replica of a broker that was killed must lead again, whatever the controller thinks of it:
    # else the group coordinator's partition was once left without a leader
    "unclean.leader.election.enable": "true",
    "unclean.leader.election.interval.ms": "1000",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "200",
    "group.consumer.heartbeat.interval.ms": "500",
    "group.consumer.assignment.interval.ms": "0",
}
LOG4J = """\
rootLogger = INFO, out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = [%d] %p %m (%c)%n
"""


class NotUsable(Exception):
    """Something isn't here or doesn't start; the message says what, in one line."""


def server_settings(bind: str, host: str, port: int, controller_port: int) -> dict[str, str]:
    """All of server.properties but the data's folder. The port is the same inside and outside a container."""
    return SETTINGS | {
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://{bind}:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{host}:{port}",
    }


class JavaKafka:
    """One broker process on 127.0.0.1 with its data in a temporary folder. `start` doesn't wait for it.

    `changes` are to its settings, for one of several nodes.
    """

    def __init__(self, port: int | None = None, changes: Mapping[str, str] | None = None) -> None:
        self._java = java()
        self._jars = jars()
        self.port = port or free_port()
        self._work = Path(tempfile.mkdtemp(prefix="stockledger-kafka-"))
        self.data = self._work / "data"
        self._process: subprocess.Popen[bytes] | None = None
        settings = server_settings("127.0.0.1", "127.0.0.1", self.port, free_port()) | dict(changes or {})
        settings["log.dirs"] = str(self.data)
        properties = self._work / "server.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        (self._work / "log4j2.properties").write_text(LOG4J)
        self._run("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(properties)).wait()

    def _run(self, *main: str) -> subprocess.Popen[bytes]:
        logging = f"-Dlog4j2.configurationFile={self._work / 'log4j2.properties'}"
        command = [self._java, HEAP, "-XX:+UseSerialGC", logging, "-cp", f"{self._jars}/*", *main]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def _log(self) -> Path:
        return self._work / "kafka.log"

    def start(self) -> None:
        self._process = self._run("kafka.Kafka", str(self._work / "server.properties"))

    def check(self) -> None:
        """Raise `NotUsable` with the broker's last words if it has ended."""
        if self._process and self._process.poll() is not None:
            raise NotUsable(f"Kafka ended: {self._log.read_text(errors='replace').splitlines()[-1:]}")

    def signal(self, number: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self._work)


def java() -> str:
    """The `java` to use; raises `NotUsable` if there is none or it is too old."""
    found = shutil.which("java")
    if found is None:
        raise NotUsable("no java on the PATH")
    said = subprocess.run([found, "-version"], check=True, capture_output=True, text=True).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < 17:
        raise NotUsable(f"Kafka needs Java 17 or later, this is {said.splitlines()[0]}")
    return found


def jars(pom: Path = HERE / "pom.xml") -> Path:
    """The folder of a pom's jars, fetched once per version of it; raises `NotUsable` if Maven can't."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stockledger"
    target = cache / f"{pom.parent.name}-{VERSION}-{hashlib.sha256(pom.read_bytes()).hexdigest()[:16]}"
    if target.exists():
        return target
    maven = shutil.which("mvn")
    if maven is None:
        raise NotUsable("no mvn on the PATH to fetch the jars")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as half:
        fetch = [
            maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies",
            f"-Dkafka.version={VERSION}", "-DincludeScope=runtime", f"-DoutputDirectory={half}/libs",
        ]  # fmt: skip
        try:
            done = subprocess.run(fetch, check=False, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise NotUsable(f"mvn did not fetch the jars within {FETCH_TIMEOUT_S} s") from None
        if done.returncode:
            raise NotUsable(f"mvn failed: {done.stdout.strip().partition(chr(10))[0]}")
        if not target.exists():
            (Path(half) / "libs").rename(target)
    return target
