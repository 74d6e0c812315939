"""Records of megabytes: they pass in bounded memory, and so do those who look at them."""

import re
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from tests.support.workers import wait_for

pytestmark = [pytest.mark.real_kafka, pytest.mark.slow]
MEMORY_MAX_MB = 300


@pytest.fixture
def group(new_group):
    return new_group(partitions=1)


def peak_mb(pid):
    """The most memory that the process ever had."""
    [peak_kb] = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(peak_kb) / 1024


def allow_large(services, topic):
    """Let the topic take records of ten megabytes."""
    admin = AdminClient({"bootstrap.servers": services.kafka.bootstrap_servers, "log_level": 0})
    entry = ConfigEntry("max.message.bytes", "10485760", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    [done] = admin.incremental_alter_configs([resource]).values()
    done.result(30)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("count", "size"), [(500, 900_000), (20, 8_000_000)])
def test_large_records_pass_in_bounded_memory(group, sender, publisher, services, count, size):
    """None of them is a command: each is kept, byte for byte, and the lane goes on. Together the smaller ones
    are half as much again as the memory that anybody may have."""
    allow_large(services, group.topic)
    large = publisher(group, message_max_bytes=10_000_000, linger_ms=0)
    for n in range(count):
        large.send_raw(b"%d " % n + b"x" * size, partition=0)
        if n % 20 == 0:
            large.flush()
    large.flush()
    run = group.start()
    seen = []

    def applied():
        seen.append(peak_mb(run.pid))
        return group.next_offsets()[0] == 3 + count

    wait_for("all of them", applied, 300)
    run.terminates()
    assert max(seen) < MEMORY_MAX_MB
    for verb in (["dlq", "list"], ["verify", "--topic"], ["dlq", "redrive", "--all"]):
        assert group.cli.peak_mb(*verb) < MEMORY_MAX_MB, verb
