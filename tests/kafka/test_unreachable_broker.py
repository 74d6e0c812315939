"""Why no broker answers: each verb that asks one names the address, the cause and the step that mends it."""

import json
import re
import subprocess
import sys

import pytest

from ledger.brokers import RESOLVE, TRANSPORT, complaint
from tests.support.environment import inherited

TIMEOUT_S = 120
SASL = ["-X", "security.protocol=sasl_plaintext", "-X", "sasl.mechanism=PLAIN", "-X", "sasl.username=u"]


@pytest.fixture
def environment(services, ledger_dsn, topic):
    kept = inherited()
    named = {
        "DSN": ledger_dsn,
        "KAFKA_BOOTSTRAP_SERVERS": services.kafka.bootstrap_servers,
        "TOPIC": topic(1),
        "KAFKA_SASL_PASSWORD": "secret-91",
    }
    return kept | {f"STOCKLEDGER_{name}": value for name, value in named.items()}


def said(environment, words, kafka):
    """What the verb says, on both streams."""
    done = subprocess.run(
        [sys.executable, "-m", "stockledger", *words, *kafka],
        env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert "secret-91" not in done.stdout + done.stderr
    return done


@pytest.mark.parametrize("words", [["status"], ["doctor"], ["migrate", "--partitions", "1"]], ids=" ".join)
@pytest.mark.parametrize(
    ("kafka", "cause", "remedy"),
    [
        (["-X", "bootstrap.servers=nowhere.invalid:9092"], "nowhere.invalid:9092", "correct "),
        (["-X", "bootstrap.servers=127.0.0.1:1"], "127.0.0.1:1", "start the broker"),
        (["-X", "security.protocol=ssl"], "hangs up (SSL ", "security.protocol"),
        (SASL, "refuses the connection", "correct security.protocol, sasl"),
    ],
    ids=["name", "port", "tls", "sasl"],
)
def test_the_cause_and_the_address(environment, words, kafka, cause, remedy):
    """Not what was waited for but what the client was told; exit 3. Doctor looks at Postgres all the same."""
    done = said(environment, words, kafka)
    assert done.returncode == 3
    assert "SL-KAFKA-001" in done.stderr
    assert cause in done.stdout + done.stderr
    [following] = re.findall(r"  next: (.*)", done.stderr)
    assert remedy in following
    if words == ["doctor"]:
        assert re.search(r"^ok +schema", done.stdout, re.MULTILINE)


def test_a_worker_says_it_while_it_waits(environment):
    """One line with the cause, not one with the name of what was asked."""
    command = [sys.executable, "-m", "stockledger", "run", "--log-format", "json", *SASL]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        line = next(json.loads(line) for line in process.stderr if '"waiting"' in line)
        process.terminate()
        process.communicate(timeout=TIMEOUT_S)
    assert "refuses the connection" in line["cause"]
    assert environment["STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS"] in line["cause"]


def test_a_name_that_only_the_broker_gave():
    """Then it isn't bootstrap.servers that is wrong."""
    text = "sasl_ssl://kafka-0.internal:9093/1: Failed to resolve (after 2ms in state CONNECT)"
    found = complaint("broker.example:9093", RESOLVE, text)
    assert "kafka-0.internal:9093" in found.what
    assert "advertised.listeners" in found.remedy
    given = complaint("kafka-0.internal:9093, other:1", RESOLVE, text)
    assert "bootstrap.servers" in given.remedy


def test_a_handshake_that_is_told_as_the_disconnect_it_led_to():
    """It is the protocol that is wrong all the same, not a broker that is down."""
    text = "ssl://a.example:9093/boot: Disconnected: SSL connection closed by peer (after 3ms in state X)"
    found = complaint("a.example:9093", TRANSPORT, text)
    assert "hangs up (SSL connection closed by peer)" in found.what
    assert "security.protocol" in found.remedy
