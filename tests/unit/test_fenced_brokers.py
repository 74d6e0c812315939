"""A cluster whose brokers are all fenced, as after a freeze, names no broker: who asks survives it."""

import socket
import struct
import subprocess
import sys
import threading
from contextlib import closing, suppress
from itertools import chain, repeat

import pytest

API_VERSIONS, METADATA = 18, 3
UNSUPPORTED_VERSION = 35
OFFERED = ((API_VERSIONS, 0, 0), (METADATA, 0, 1))
NOBODY = struct.pack(">iii", 0, -1, 0)
"""Metadata, version 1: no brokers, no controller, no topics."""
WHO_ASKS = {
    "the cluster": "admin.cluster_id(kafka, 3)",
    "the topics": "admin.topics(kafka)",
    "why nobody coordinates": "raise group.no_coordinator(kafka, 'group')",
}


def api_versions(asked):
    error = UNSUPPORTED_VERSION if asked else 0
    return struct.pack(">hi", error, len(OFFERED)) + b"".join(struct.pack(">hhh", *each) for each in OFFERED)


def itself(host, port):
    """Metadata that names one broker, which is the controller."""
    return struct.pack(">iih", 1, 1, len(host)) + host.encode() + struct.pack(">ihii", port, -1, 1, 0)


def answers(connection, metadata):
    """As a broker does, until the client leaves."""
    with suppress(OSError), closing(connection), connection.makefile("rwb") as stream:
        while size := stream.read(4):
            key, version, correlation = struct.unpack(">hhi", stream.read(*struct.unpack(">i", size))[:8])
            body = api_versions(version) if key == API_VERSIONS else next(metadata)
            stream.write(struct.pack(">ii", len(body) + 4, correlation) + body)
            stream.flush()


@pytest.fixture
def fenced():
    """The address of a cluster that names its broker once, and none from then on."""
    listening = socket.create_server(("127.0.0.1", 0))
    host, port = listening.getsockname()
    metadata = chain([itself(host, port)], repeat(NOBODY))

    def serve():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=answers, args=(connection, metadata), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield f"{host}:{port}"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()


@pytest.mark.parametrize("asks", WHO_ASKS)
def test_whoever_asks_waits_for_a_broker(fenced, asks):
    """The client's own description of a cluster ends the process there (an assertion in librdkafka 2.16)."""
    program = f"""
from consumer import admin, group
from ledger.errors import BrokerUnavailable

kafka = {{"bootstrap.servers": "{fenced}"}}
try:
    {WHO_ASKS[asks]}
except BrokerUnavailable as fault:
    print(fault)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=90
    )
    assert ended.returncode == 0, ended
    assert ended.stdout.strip()
