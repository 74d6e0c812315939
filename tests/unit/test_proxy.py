"""The proxy that loses things, between this test and an echo server on the loopback."""

import socket
import socketserver
import threading
from typing import ClassVar

import pytest

from tests.support.proxy import Proxy


class Echo(socketserver.BaseRequestHandler):
    """Answers every message with itself and remembers it."""

    heard: ClassVar[list[bytes]]

    def handle(self):
        while data := self.request.recv(4096):
            self.heard.append(data)
            self.request.sendall(data)


@pytest.fixture
def server():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        Echo.heard = []
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(server):
    with Proxy(*server.server_address) as proxy:
        yield proxy


@pytest.fixture
def connect(proxy):
    opened = []

    def connect():
        opened.append(socket.create_connection(("127.0.0.1", proxy.port), timeout=60))
        return opened[-1]

    yield connect
    for client in opened:
        client.close()


def ask(client, question):
    client.sendall(question)
    return client.recv(4096)


def test_bytes_pass_both_ways(connect):
    """Undisturbed, it isn't there."""
    client = connect()
    assert ask(client, b"one") == b"one"
    assert ask(client, b"two") == b"two"


def test_a_cut_ends_what_is_open_and_nothing_else(proxy, connect):
    """Both sides see the end; a new connection works."""
    client = connect()
    ask(client, b"one")
    proxy.cut()
    assert client.recv(4096) == b""
    assert ask(connect(), b"two") == b"two"


def test_a_stall_delays(proxy, connect):
    """Nothing arrives while it lasts, everything afterwards."""
    client = connect()
    ask(client, b"one")
    proxy.stall()
    client.settimeout(0.05)
    with pytest.raises(TimeoutError):
        ask(client, b"two")
    proxy.resume()
    client.settimeout(5)
    assert client.recv(4096) == b"two"


def test_a_lost_answer_leaves_the_effect(server, proxy, connect):
    """The server heard the commit, the client no answer: a lost acknowledgement. It happens once."""
    client = connect()
    lost = proxy.lose_answer(lambda request: b"COMMIT" in request)
    assert ask(client, b"BEGIN") == b"BEGIN"
    assert ask(client, b"COMMIT") == b""
    assert lost.wait(60)
    assert Echo.heard == [b"BEGIN", b"COMMIT"]
    assert ask(connect(), b"COMMIT") == b"COMMIT"


def test_a_server_that_is_gone_refuses_through_the_proxy(server, connect):
    """The client's connection ends at once; it doesn't hang."""
    server.socket.close()
    assert connect().recv(4096) == b""
